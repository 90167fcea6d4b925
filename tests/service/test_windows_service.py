"""Windows on a real database: questions and claims at the right time, nights on which the clock changes, waiting."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.core.errors import BadRequestError, ChartFileError, ConflictError
from app.core.position import Reason
from app.service import operate, reading
from app.service.context import Service
from app.service.put import tick
from app.service.rosters import RosterRequest, import_roster, read_lines
from app.service.upkeep import prune, verify
from tests.service.support import ANN, SEED, Clock, import_text, kinds, put, rows
from tests.support.requests import Question, ask, claim

NIGHTLY = """\
chart: web
current_state: patch
windows:
- {days: [mon, tue, wed, thu], from: "22:00", to: "04:00", zone: Europe/Berlin}
states:
- name: patch
  func: increment
  slots: 2
  lease: 45m
  fit: true
  current: [{key: count, value: 0}, {key: failed, value: 0}]
  target:
  - {name: rest, when: {key: count, value: 2}}
  - {name: late, when: {key: elapsed, value: 8h, of: open}}
- name: rest
  windows: []
  func: increment
  current: {key: count, value: 0}
  target: [{name: done, when: {key: count, value: 1}}, {name: done, when: {key: elapsed, value: 90d}}]
- name: late
- name: done
"""
# Mon 21:30 in Berlin.
MONDAY = datetime(2026, 11, 30, 20, 30, tzinfo=UTC)
# Seconds that a waiter may wait; one that is woken needs less than 2.
LONG = 20


@pytest.fixture
def time_source() -> Clock:
    return Clock(MONDAY)


def is_open(service: Service, chart: str = "web", state: str = "patch") -> bool:
    answer = ask(service, chart, Question(state, "m1"))
    assert answer.reason in (Reason.CURRENT, Reason.WINDOW)
    return answer.is_yes


def test_question_and_claim_wait_for_the_window_and_say_when_it_opens(service: Service, clock: Clock) -> None:
    import_text(service, NIGHTLY)
    for answer in (ask(service, "web", Question("patch", "m1")), claim(service, "web", "patch", "m1")):
        assert (answer.is_yes, answer.reason) == (False, Reason.WINDOW)
        assert answer.as_json()["opens_at"] == "2026-11-30T21:00:00.000000Z"
        assert answer.as_json()["opens"] == "opens Mon 22:00 Europe/Berlin, in 30 min"
    clock.advance(1800)
    assert is_open(service)
    assert claim(service, "web", "patch", "m1").is_yes


def test_report_is_counted_while_the_window_is_closed(service: Service, clock: Clock) -> None:
    import_text(service, NIGHTLY)
    clock.advance(1800)
    assert claim(service, "web", "patch", "m1").is_yes
    clock.now = datetime(2026, 12, 1, 12, tzinfo=UTC)
    assert put(service, "patch", "m1").is_yes


def test_state_without_windows_of_its_own_chart_is_always_open(service: Service, clock: Clock) -> None:
    import_text(service, NIGHTLY)
    operate.goto(service, "web", "rest", "look", ANN)
    assert is_open(service, state="rest")


def test_no_claim_is_given_whose_lease_ends_after_closing(service: Service, clock: Clock) -> None:
    import_text(service, NIGHTLY)
    closing = datetime(2026, 12, 1, 3, 0, tzinfo=UTC)
    for number, minutes in enumerate((46, 45, 44, 1, 0)):
        clock.now = closing - timedelta(minutes=minutes)
        answer = claim(service, "web", "patch", f"m{min(number, 1)}")
        expected = Reason.UPDATED if minutes >= 45 else Reason.WINDOW_SHORT if minutes else Reason.WINDOW
        assert answer.reason is expected
    short = claim(service, "web", "patch", "m9")
    assert short.as_json()["opens_at"] == "2026-12-01T21:00:00.000000Z"


def test_status_says_when_it_opens(service: Service, clock: Clock) -> None:
    import_text(service, NIGHTLY)
    status = reading.get_status(service, "web")
    assert "opens Mon 22:00 Europe/Berlin, in 30 min" in status.waits_for
    assert (str(status.health.condition), status.health.because) == (
        "waiting",
        "patch waits for its window: opens Mon 22:00 Europe/Berlin, in 30 min",
    )
    assert status.as_json()["window"]["opens_at"] == "2026-11-30T21:00:00.000000Z"
    clock.now = datetime(2026, 12, 1, 2, 30, tzinfo=UTC)
    assert reading.get_status(service, "web").waits_for.startswith(
        "its next window: a lease of 45 min would outlast this one, which closes Tue 04:00 Europe/Berlin, in 30 min; "
    )
    clock.now = datetime(2026, 11, 30, 21, 30, tzinfo=UTC)
    status = reading.get_status(service, "web")
    assert status.waits_for.startswith("rest when count")
    lines = status.as_text().splitlines()
    assert "window: closes Tue 04:00 Europe/Berlin, in 5 h 30 min" in lines


def test_open_time_moves_the_chart_by_the_clock(service: Service, clock: Clock) -> None:
    import_text(service, NIGHTLY)
    # Six hours on Monday night and two on Tuesday night.
    clock.now = datetime(2026, 12, 1, 22, 59, 59, tzinfo=UTC)
    assert tick(service, "web").state == "patch"
    clock.advance(1)
    assert tick(service, "web").state == "late"
    assert rows(service)[-1].reason == "elapsed 8h of open"
    assert verify(service, "web").differences == ()


def test_pause_in_the_window_moves_the_end_of_open_time(service: Service, clock: Clock) -> None:
    import_text(service, NIGHTLY)
    clock.now = datetime(2026, 12, 1, 1, 0, tzinfo=UTC)
    operate.pause(service, "web", "look", ANN)
    # Two hours of the pause are in the window.
    clock.now = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
    operate.resume(service, "web", "on", ANN)
    assert verify(service, "web").differences == ()
    clock.now = datetime(2026, 12, 2, 0, 59, 59, tzinfo=UTC)
    assert tick(service, "web").state == "patch"
    clock.advance(1)
    assert tick(service, "web").state == "late"


# An operator opens it


def test_act_of_opening_is_logged_and_ends_by_itself(service: Service, clock: Clock) -> None:
    import_text(service, NIGHTLY)
    until = MONDAY + timedelta(minutes=10)
    status = operate.open_chart(service, "web", until, "CVE", ANN)
    assert status.window is not None
    assert (status.window.is_open, status.window.opened_until) == (True, until)
    assert is_open(service)
    row = rows(service)[-1]
    assert (row.kind, row.reason, row.note, row.actor) == ("open", "CVE", "2026-11-30T20:40:00.000000Z", "ann")
    clock.advance(600)
    assert not is_open(service)
    assert verify(service, "web").differences == ()


def test_act_of_opening_outlives_an_upgrade_and_a_prune(service: Service, owner: Service, clock: Clock) -> None:
    import_text(service, NIGHTLY)
    operate.open_chart(service, "web", MONDAY + timedelta(minutes=10), "CVE", ANN)
    import_text(service, NIGHTLY.replace("8h", "9h"))
    clock.advance(60)
    prune(owner, "web", timedelta(seconds=30), ANN)
    assert is_open(service)
    assert kinds(service) == ["prune"]
    assert verify(service, "web").differences == ()


def test_act_of_opening_is_refused_if_it_means_nothing(service: Service, clock: Clock) -> None:
    import_text(service, NIGHTLY)
    with pytest.raises(BadRequestError, match="is past"):
        operate.open_chart(service, "web", MONDAY, "CVE", ANN)
    import_text(service, SEED, name="bare")
    with pytest.raises(ConflictError, match="has no windows"):
        operate.open_chart(service, "bare", MONDAY + timedelta(hours=1), "CVE", ANN)


# Nights on which the clock changes

NIGHT = """\
current_state: patch
states:
- name: patch
  windows: {{from: "{start}", to: "{end}", zone: {zone}}}
  fit: true
  slots: 100%
  lease: 20m
  func: increment
  current: {{key: count, value: 0}}
  target: [{{name: done, when: {{key: count, value: 1}}}}, {{name: done, when: {{key: elapsed, value: 90d}}}}]
- name: done
"""
DST_NIGHTS = [
    (zone, day)
    for zone, days in {
        "Europe/Berlin": ("2026-03-29", "2026-10-25"),
        "Europe/London": ("2026-03-29", "2026-10-25"),
        "Europe/Dublin": ("2026-03-29", "2026-10-25"),
        "America/New_York": ("2026-03-08", "2026-11-01"),
        "America/St_Johns": ("2026-03-08", "2026-11-01"),
        "America/Santiago": ("2026-04-05", "2026-09-06"),
        "America/Havana": ("2026-03-08", "2026-11-01"),
        "Australia/Sydney": ("2026-04-05", "2026-10-04"),
        "Australia/Lord_Howe": ("2026-04-05", "2026-10-04"),
        "Pacific/Auckland": ("2026-04-05", "2026-09-27"),
        "Asia/Beirut": ("2026-03-29", "2026-10-25"),
        "Africa/Casablanca": ("2026-02-15", "2026-03-22"),
    }.items()
    for day in days
]


def test_nights_on_which_the_clock_changes(service: Service, clock: Clock) -> None:
    assert len(DST_NIGHTS) == 24
    for number, (zone, day) in enumerate(DST_NIGHTS):
        start, end = ("00:30", "02:30") if number % 2 else ("02:30", "03:30")
        name = f"night-{number}"
        place, midnight = ZoneInfo(zone), datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
        changes = {(midnight + timedelta(hours=hour)).astimezone(place).utcoffset() for hour in (-6, 12)}
        assert len(changes) == 2, f"{zone} does not change its clock on {day}"
        clock.now = midnight - timedelta(hours=2)
        import_text(service, NIGHT.format(start=start, end=end, zone=zone).replace("100%", "99"), name=name)
        opened = False
        for minute in range(-60, 360, 15):
            clock.now = midnight + timedelta(minutes=minute)
            local = clock.now.astimezone(place).replace(tzinfo=None)
            if local >= datetime.fromisoformat(f"{day}T{end}"):
                opened = False
                assert not is_open(service, name)
                break
            # Once it is open, an hour that comes twice does not close it.
            opened = opened or local >= datetime.fromisoformat(f"{day}T{start}")
            assert is_open(service, name) is opened, (zone, day, local)
            answer = claim(service, name, "patch", f"m{minute}")
            assert answer.reason in ((Reason.UPDATED, Reason.WINDOW_SHORT) if opened else (Reason.WINDOW,))
            if answer.is_yes:
                last = (clock.now + timedelta(minutes=19, seconds=59)).astimezone(place).replace(tzinfo=None)
                assert last < datetime.fromisoformat(f"{day}T{end}"), (zone, day, local)
        assert not opened


# Waiting


class Shifted(Clock):
    """A time that passes as it does, from another beginning."""

    def __init__(self, now: datetime) -> None:
        super().__init__(now)
        self.started = time.monotonic()

    def __call__(self) -> datetime:
        return self.now + timedelta(seconds=time.monotonic() - self.started)


def test_waiters_hear_of_the_opening_when_it_comes(service: Service) -> None:
    import_text(service, NIGHTLY)
    service.database.clock = Shifted(MONDAY + timedelta(minutes=29, seconds=59.2))
    begun = time.monotonic()
    assert ask(service, "web", Question("patch", "m1"), wait=LONG).is_yes
    assert 0.6 < time.monotonic() - begun < LONG
    service.database.clock = Shifted(MONDAY + timedelta(minutes=29, seconds=59.2))
    begun = time.monotonic()
    assert claim(service, "web", "patch", "m1", wait=LONG).is_yes
    assert 0.6 < time.monotonic() - begun < LONG


LAST = """\
chart: web
current_state: patch
states:
- name: patch
  func: increment
  windows: {from: "21:00", to: "22:00"}
  current: {key: count, value: 0}
  target: [{name: done, when: {key: count, value: 2}}, {name: done, when: {key: elapsed, value: 8h}}]
- name: done
"""


def test_turn_in_the_last_state_with_work_waits_for_its_window(service: Service) -> None:
    import_text(service, LAST)
    service.database.clock = Shifted(MONDAY + timedelta(minutes=29, seconds=59.2))
    begun = time.monotonic()
    answer = ask(service, "web", Question(None, "m1"), wait=LONG)
    assert (answer.is_yes, answer.state) == (True, "patch")
    assert 0.6 < time.monotonic() - begun < LONG


def test_waiters_hear_of_an_act_of_opening(service: Service) -> None:
    import_text(service, NIGHTLY)
    service.hub.start()
    later = threading.Timer(0.3, lambda: operate.open_chart(service, "web", MONDAY + timedelta(minutes=5), "CVE", ANN))
    later.start()
    begun = time.monotonic()
    assert ask(service, "web", Question("patch", "m1"), wait=LONG).is_yes
    assert time.monotonic() - begun < LONG
    later.join()


def test_calendar_that_does_not_exist_is_a_problem_at_its_place(service: Service) -> None:
    with pytest.raises(ChartFileError, match="4:10: there is no calendar 'freeze'"):
        import_text(service, NIGHTLY.replace("states:", "except: [freeze]\nstates:", 1).replace("chart: web\n", "", 1))


# A machine's own zone


def test_machine_goes_by_the_zone_that_its_label_names(service: Service, clock: Clock) -> None:
    lines = read_lines([b"m1 tz=Asia/Tokyo\n", b"m2 tz=Europe/Berlin\n", b"m3\n"])
    import_roster(service, RosterRequest("web", lines), ANN)
    windows = '- {days: [mon, tue, wed, thu], from: "22:00", to: "04:00", zone: Europe/Berlin}'
    local = NIGHTLY.replace(windows, '- {from: "05:00", to: "07:00", zone: "$tz"}')
    local = local.replace("windows:\n", "expect: {roster: web}\nwindows:\n", 1).replace(", of: open", "")
    import_text(service, local)
    # It is 05:30 in Tokyo and 21:30 in Berlin.
    for machine, reason in {"m1": Reason.CURRENT, "m2": Reason.WINDOW, "m3": Reason.WINDOW}.items():
        assert ask(service, "web", Question("patch", machine)).reason is reason
        claimed = claim(service, "web", "patch", machine)
        assert claimed.is_yes is (reason is Reason.CURRENT)
        if machine == "m2":
            assert claimed.as_json()["opens"] == "opens Tue 05:00 Europe/Berlin, in 7 h 30 min"
        if machine == "m3":
            assert str(claimed.as_json()["opens"]).startswith("the machine has no label 'tz'")
