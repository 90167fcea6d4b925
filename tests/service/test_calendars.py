"""Calendars: their events close charts, and a new version takes effect at once."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.chart_file.windows import parse_calendar
from app.core.errors import CalendarFileError, ChartFileError
from app.core.position import Reason
from app.core.window import Interval
from app.service import calendars, operate, reading
from app.service.context import Service
from app.service.past import get_past_status
from app.service.put import sweep
from app.service.upkeep import verify
from tests.service.support import ANN, Clock, import_text, kinds, rows
from tests.support.requests import Question, ask

MONDAY = datetime(2026, 11, 30, 20, 30, tzinfo=UTC)
CHART = """\
chart: web
current_state: patch
except: [freeze]
states:
- name: patch
  func: increment
  current: {key: count, value: 0}
  target: [{name: done, when: {key: count, value: 1}}, {name: done, when: {key: elapsed, value: 8h, of: open}}]
- name: done
"""


def calendar(*lines: str, head: str = "") -> str:
    return "\n".join(["BEGIN:VCALENDAR", "VERSION:2.0", *filter(None, [head]), *lines, "END:VCALENDAR", ""])


def event(*lines: str) -> str:
    return "\n".join(["BEGIN:VEVENT", "UID:1", *lines, "END:VEVENT"])


EVENING = event("DTSTART;TZID=Europe/Berlin:20261130T210000", "DTEND;TZID=Europe/Berlin:20261130T220000")
FREEZE = calendar(EVENING)
NOTHING = calendar(event("DTSTART:20200101T000000Z", "DURATION:PT1H"))


@pytest.fixture
def time_source() -> Clock:
    return Clock(MONDAY)


def imported(service: Service, text: str) -> calendars.ImportedCalendar:
    return calendars.import_calendar(service, "freeze", text, ANN)


def test_event_closes_the_chart_and_the_answer_names_the_calendar(service: Service, clock: Clock) -> None:
    assert imported(service, FREEZE).outcome == "created"
    import_text(service, CHART)
    assert kinds(service) == ["import", "calendar"]
    answer = ask(service, "web", Question("patch"))
    assert answer.reason is Reason.WINDOW
    assert answer.as_json()["opens"] == "closed by an event of the calendar 'freeze'; opens Mon 21:00 UTC, in 30 min"
    clock.advance(1800)
    assert ask(service, "web", Question("patch")).is_yes


def test_chart_that_names_a_calendar_that_does_not_exist_is_refused(service: Service) -> None:
    with pytest.raises(ChartFileError, match="3:10: there is no calendar 'freeze': import it first"):
        import_text(service, CHART)


def test_new_version_takes_effect_at_once_and_is_a_log_row(service: Service, clock: Clock) -> None:
    imported(service, FREEZE)
    import_text(service, CHART)
    assert imported(service, NOTHING).charts == {"web": "patch"}
    assert ask(service, "web", Question("patch")).is_yes
    row = rows(service)[-1]
    assert (row.kind, row.key, row.value_before, row.value_after, row.actor) == ("calendar", "freeze", 1, 2, "ann")
    assert imported(service, NOTHING).outcome == "unchanged"
    # The event no longer takes anything from the open time.
    assert reading.get_status(service, "web").deadline.at == datetime(2026, 12, 1, 4, 30, tzinfo=UTC)  # type: ignore[union-attr]
    assert verify(service, "web").differences == ()


def test_upgrade_and_reset_keep_the_calendar_and_an_upgrade_may_drop_it(service: Service) -> None:
    imported(service, FREEZE)
    import_text(service, CHART)
    operate.reset(service, "web", "again", ANN)
    import_text(service, CHART.replace("8h", "9h"))
    assert not ask(service, "web", Question("patch")).is_yes
    import_text(service, CHART.replace("except: [freeze]\n", "").replace(", of: open", ""))
    assert ask(service, "web", Question("patch")).is_yes
    assert calendars.get_calendar(service, "freeze").charts == ()
    assert verify(service, "web").differences == ()


def test_waiters_hear_of_a_new_version(service: Service) -> None:
    imported(service, FREEZE)
    import_text(service, CHART)
    service.hub.start()
    later = threading.Timer(0.3, lambda: imported(service, NOTHING))
    later.start()
    begun = time.monotonic()
    assert ask(service, "web", Question("patch"), wait=20).is_yes
    assert time.monotonic() - begun < 20
    later.join()


def test_versions_are_kept(service: Service) -> None:
    imported(service, FREEZE)
    imported(service, NOTHING)
    assert [item.version for item in calendars.list_versions(service, "freeze")] == [1, 2]
    assert calendars.get_version(service, "freeze", 1).text == FREEZE
    assert [view.version.version for view in calendars.list_calendars(service)] == [2]


# The text

WEEKS = Interval(datetime(2026, 11, 1, tzinfo=UTC), datetime(2027, 1, 10, tzinfo=UTC))


def times(*lines: str, head: str = "") -> list[str]:
    """Return when an event begins and ends, in UTC, without the year."""
    found = parse_calendar(calendar(event(*lines), head=head), WEEKS).list_intervals(*WEEKS)
    return [f"{item.start:%m-%d %H:%M} {item.end:%m-%d %H:%M}" for item in found]


def test_whole_days_and_times_without_a_zone_are_in_the_calendars_zone() -> None:
    days = ("DTSTART;VALUE=DATE:20261224", "DTEND;VALUE=DATE:20261227")
    assert times(*days) == ["12-24 00:00 12-27 00:00"]
    assert times(*days, head="X-WR-TIMEZONE:Europe/Berlin") == ["12-23 23:00 12-26 23:00"]
    assert times("DTSTART:20261224T100000", "DURATION:PT90M", head="X-WR-TIMEZONE:Europe/Berlin") == [
        "12-24 09:00 12-24 10:30"
    ]
    assert times("DTSTART;VALUE=DATE:20261224") == ["12-24 00:00 12-25 00:00"]


def test_event_repeats_in_local_time_but_not_on_its_exceptions() -> None:
    found = times(
        "DTSTART;TZID=America/New_York:20261025T030000",
        "DURATION:PT1H",
        "RRULE:FREQ=WEEKLY;BYDAY=SU;COUNT=5",
        "EXDATE;TZID=America/New_York:20261108T030000",
    )
    # The clock changes on 1 November.
    assert found == ["11-01 08:00 11-01 09:00", "11-15 08:00 11-15 09:00", "11-22 08:00 11-22 09:00"]


def test_cancelled_event_closes_nothing_and_folded_lines_are_one() -> None:
    assert times("DTSTART:20261224T100000Z", "DURATION:PT1H", "STATUS:CANCELLED") == []
    assert times("DTSTART:202612\n 24T100000Z", "DURATION:PT1H") == ["12-24 10:00 12-24 11:00"]


BASE = ("DTSTART:20261224T100000Z", "DURATION:PT1H")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("hello", "1:1: 'hello' is not a line NAME:VALUE", id="no calendar"),
        pytest.param("X:1", "1:1: a calendar begins with BEGIN:VCALENDAR", id="no begin"),
        pytest.param(calendar(), "1:1: the calendar has no event", id="empty"),
        pytest.param(FREEZE.replace("END:VCALENDAR\n", ""), "7:1: the calendar ends inside VCALENDAR", id="no end"),
        pytest.param(calendar("BEGIN:VTODO", "END:VTODO"), "3:1: 'VTODO' in VCALENDAR is not honoured", id="todo"),
        pytest.param(calendar(event("SUMMARY:x")), "3:1: the event has no DTSTART", id="no start"),
        pytest.param(calendar(event(BASE[0])), "5:1: the event has neither DTEND nor DURATION", id="no length"),
        pytest.param(calendar(event(*BASE, "DTEND:20261225T100000Z")), "6:1: an event has DTEND or", id="both"),
        pytest.param(
            calendar(event(BASE[0], "DTEND:20261224T100000Z")), "6:1: the event ends before it begins", id="no time"
        ),
        pytest.param(
            calendar(event("DTSTART:20261332", BASE[1]), event(BASE[0], "DTEND:20261224T100000Z")),
            "11:1: the event ends before it begins",
            id="no time, after another problem",
        ),
        pytest.param(calendar(event("DTSTART:20261332", BASE[1])), "5:1: DTSTART: '20261332' is not a time", id="date"),
        pytest.param(calendar(event(BASE[0], "DURATION:1H")), "6:1: DURATION: '1H' is not a duration", id="duration"),
        pytest.param(
            calendar(event("DTSTART;TZID=W. Europe Standard Time:20261224T100000", BASE[1])),
            "5:1: DTSTART: 'W. Europe Standard Time' is not an IANA time zone",
            id="zone",
        ),
        pytest.param(
            calendar(event(*BASE, "RRULE:FREQ=HOURLY")), "7:1: RRULE: 'FREQ=HOURLY' is not honoured", id="hourly"
        ),
        pytest.param(
            calendar(event(*BASE, "RRULE:FREQ=DAILY;SKIP=OMIT")), "7:1: RRULE: 'SKIP=OMIT' is not honoured", id="part"
        ),
        pytest.param(calendar(event(*BASE, "RDATE:20261225T100000Z")), "7:1: RDATE: more dates are not", id="rdate"),
        pytest.param(
            calendar(event(*BASE, "RECURRENCE-ID:20261225T100000Z")), "7:1: RECURRENCE-ID: a changed", id="changed"
        ),
    ],
)
def test_text_that_cannot_be_honoured_is_a_problem_at_its_line(text: str, message: str) -> None:
    with pytest.raises(CalendarFileError) as caught:
        parse_calendar(text, WEEKS)
    assert message in str(caught.value)


# The past


NIGHTS = CHART.replace("except: [freeze]", "except: [freeze]\nwindows: {from: '20:00', to: '02:00'}")


@pytest.mark.parametrize("chart", [CHART, NIGHTS], ids=["calendar alone", "windows and calendar"])
def test_past_status_knows_the_calendars_of_its_time(service: Service, clock: Clock, chart: str) -> None:
    imported(service, FREEZE)
    import_text(service, chart)
    answered = {clock.now: reading.get_status(service, "web").as_json()}
    for minutes, happening in ((10, None), (15, "pause"), (3, "resume"), (30, NOTHING), (10, FREEZE), (300, None)):
        clock.advance(60 * minutes)
        if happening == "pause":
            operate.pause(service, "web", "lunch", ANN)
        elif happening == "resume":
            operate.resume(service, "web", "fed", ANN)
        elif happening is not None:
            imported(service, happening)
        answered[clock.now] = reading.get_status(service, "web").as_json()

    assert len({status["waits_for"] for status in answered.values()}) > 3
    for at, status in answered.items():
        assert get_past_status(service, "web", at).as_json() == status


def end_by_open_time(service: Service, clock: Clock) -> None:
    """Let a chart end by eight hours of open time; an event took half an hour of the time since its import."""
    imported(service, FREEZE)
    import_text(service, CHART)
    assert verify(service, "web").differences == ()
    for half_hours in range(18):
        assert reading.get_status(service, "web").is_final is (half_hours > 16)
        clock.advance(1800)
        sweep(service)


def test_verify_judges_open_time_by_the_calendars(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_by_open_time(service, clock)
    assert kinds(service) == ["import", "calendar", "timeout"]
    assert verify(service, "web").differences == ()

    # If the event had lasted longer, no guard would have moved the chart then.
    longer = {"freeze": (Interval(MONDAY, MONDAY + timedelta(hours=3)),)}
    monkeypatch.setattr(service.events, "fill", lambda connection, hours, since, until: replace(hours, events=longer))
    (difference,) = verify(service, "web").differences
    assert difference == "web: seq 3 (timeout) moves from 'patch' to 'done', which no guard allowed"
