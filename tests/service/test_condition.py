"""A chart's condition: one word, since when, and a sentence that names machine, key and numbers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.service import operate
from app.service.condition import Health
from app.service.context import Service
from app.service.reading import get_status, list_statuses
from app.service.rosters import RosterRequest, import_roster
from tests.core.support import NOON
from tests.service.support import ANN, Clock, import_text, put
from tests.support.requests import claim

FLEET = """\
chart: web
current_state: fleet
expect: 40
states:
  - name: fleet
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: backout, when: {key: failed, op: ">", value: 2}}
      - {name: soak, when: {key: count, value: 30}}
      - {name: overdue, when: {key: elapsed, value: 10h}}
  - name: soak
    func: time
    target: {name: done, when: {key: elapsed, value: 1h}}
  - name: backout
    func: increment
    current: {key: count, value: 0}
    target: {name: backed_out, when: {key: count, value: 5}}
  - name: backed_out
  - name: overdue
  - name: done
"""


@pytest.fixture
def fleet(service: Service) -> Service:
    import_text(service, FLEET)
    return service


def health(service: Service, name: str = "web") -> Health:
    return get_status(service, name).health


def import_machines(service: Service, numbers: range) -> None:
    lines = {f"m{number}": f"tier={'odd' if number % 2 else 'even'}" for number in numbers}
    import_roster(service, RosterRequest("web", lines), ANN)


def word(service: Service) -> str:
    return str(health(service).condition)


def report(service: Service, numbers: range, key: str | None = None, state: str = "fleet") -> None:
    for number in numbers:
        put(service, state, f"m{number}", key)


def test_chart_runs_on_its_main_path(fleet: Service) -> None:
    report(fleet, range(2))
    assert word(fleet) == "running"
    assert health(fleet).because == "fleet has count 2, failed 0; soak follows at count ≥ 30"


def test_no_failure_is_no_edge_even_if_none_is_tolerated(service: Service) -> None:
    import_text(service, FLEET.replace('op: ">", value: 2', "value: 1"))
    assert word(service) == "running"


def test_one_failure_before_the_limit_is_the_edge(fleet: Service, clock: Clock) -> None:
    report(fleet, range(2), "failed")
    at = clock.now
    clock.advance(60)
    report(fleet, range(2, 4))
    found = health(fleet)
    assert (str(found.condition), found.since) == ("at_the_edge", at)
    assert found.because == (
        "the 2nd failure, limit 2, from m1 in fleet; one more goes to backout; 4 of 40 have reported"
    )


def test_a_chart_that_left_its_main_path_is_backing_out(fleet: Service, clock: Clock) -> None:
    report(fleet, range(4))
    report(fleet, range(4, 7), "failed")
    left = clock.now
    clock.advance(3600)
    report(fleet, range(3), state="backout")
    found = health(fleet)
    assert (str(found.condition), found.since) == ("backing_out", left)
    assert found.because == "the 3rd failure, limit 2, from m6 in fleet; 7 of 40 had reported"


def test_a_chart_that_ended_off_its_main_path_has_failed_for_the_same_reason(fleet: Service, clock: Clock) -> None:
    report(fleet, range(3), "failed")
    clock.advance(60)
    report(fleet, range(5), state="backout")
    found = health(fleet)
    assert (str(found.condition), found.since) == ("failed", clock.now)
    assert found.because == "the 3rd failure, limit 2, from m2 in fleet; 3 of 40 had reported"


def test_a_deadline_that_ran_out_says_how_far_the_state_was(fleet: Service, clock: Clock) -> None:
    report(fleet, range(4))
    report(fleet, range(4, 5), "failed")
    clock.advance(11 * 3600)
    put(fleet, "fleet")
    found = health(fleet)
    assert str(found.condition) == "failed"
    assert found.because == (
        "the time of fleet was over (elapsed 10h): 4 of 30 machines on count and 1 on failed; 5 of 40 had reported"
    )


def test_goto_off_the_main_path_names_who_and_why(fleet: Service) -> None:
    operate.goto(fleet, "web", "backout", "panics", ANN)
    assert (word(fleet), health(fleet).because) == ("backing_out", "ann moved it from fleet to backout: panics")


def test_ended_chart_says_by_what(fleet: Service, clock: Clock) -> None:
    report(fleet, range(30))
    assert word(fleet) == "waiting"
    assert health(fleet).because == "soak is ended by the clock in 1 h (after 1h), and done follows"
    clock.advance(7200)
    put(fleet, "soak")
    assert (word(fleet), health(fleet).because) == ("ended", "the time of soak was over (elapsed 1h)")


def test_paused_chart_says_who_and_why(fleet: Service, clock: Clock) -> None:
    operate.pause(fleet, "web", "the peak", ANN)
    since = clock.now
    clock.advance(8 * 3600)
    found = health(fleet)
    assert (str(found.condition), found.since, found.because) == ("paused", since, "ann paused it 8 h ago: the peak")


@pytest.mark.parametrize(("hours", "reports", "expected"), [(2, 1, "running"), (5, 14, "running"), (5, 8, "stuck")])
def test_chart_slower_than_its_deadline_allows_is_stuck(
    fleet: Service, clock: Clock, hours: int, reports: int, expected: str
) -> None:
    clock.advance(hours * 3600)
    report(fleet, range(reports))
    assert word(fleet) == expected


def test_stuck_sentence_has_the_pace_and_the_deadline(fleet: Service, clock: Clock) -> None:
    clock.advance(5 * 3600)
    report(fleet, range(8))
    found = health(fleet)
    assert found.because == (
        "8 of 30 on count in fleet after 5 h of 10 h, 1.6 an hour: the rest takes about 13 h 45 min, and overdue comes"
        " in 5 h; the last report came from m7 on count"
    )
    assert NOON < found.since < clock.now


def test_silence_for_half_of_the_deadline_is_stuck(fleet: Service, clock: Clock) -> None:
    clock.advance(5 * 3600)
    assert word(fleet) == "running"
    clock.advance(60)
    found = health(fleet)
    assert (str(found.condition), found.since) == ("stuck", NOON + timedelta(hours=5))
    assert found.because == (
        "nothing has happened in fleet for 5 h 1 min, more than half of the 10 h before it goes to overdue:"
        " 0 of 30 on count"
    )


def test_chart_without_a_deadline_is_never_late(service: Service, clock: Clock) -> None:
    import_text(
        service,
        FLEET.replace("      - {name: overdue, when: {key: elapsed, value: 10h}}\n", "").replace(
            "  - name: overdue\n", ""
        ),
    )
    clock.advance(40 * 24 * 3600)
    assert word(service) == "running"


def test_lease_that_ran_out_and_holds_its_slot_is_stuck_also_in_the_list_and_in_a_pause(
    service: Service, clock: Clock
) -> None:
    import_text(
        service, FLEET.replace("    func: increment\n", "    func: increment\n    slots: 2\n    lease: 1h\n", 1)
    )
    claim(service, "web", "fleet", "m1", ANN)
    clock.advance(3601)
    claim(service, "web", "fleet", "m2", ANN)
    over = clock.now
    clock.advance(600)
    operate.pause(service, "web", "look", ANN)
    for found in (health(service), list_statuses(service)[0].health):
        assert (str(found.condition), found.since) == ("stuck", over)
        assert found.because == "the lease of m1 ran out 10 min ago in fleet, and the slot is still held"


def test_failure_by_a_lease_names_the_machine(service: Service, clock: Clock) -> None:
    text = FLEET.replace('op: ">", value: 2', "value: 1").replace(
        "    func: increment\n", "    func: increment\n    slots: 2\n    lease: 1h\n    on_expire: fail\n", 1
    )
    import_text(service, text)
    claim(service, "web", "fleet", "m1", ANN)
    clock.advance(3601)
    put(service, "fleet", "m2")
    assert (word(service), health(service).because) == (
        "backing_out",
        "the 1st failure, limit 1, from m1 in fleet, whose lease ran out; 1 of 40 had reported",
    )


def test_resume_that_moves_the_chart_is_the_reason(fleet: Service) -> None:
    operate.pause(fleet, "web", "look", ANN)
    report(fleet, range(3), "failed")
    operate.resume(fleet, "web", "seen", ANN)
    assert health(fleet).because == "failed > 2 held in fleet, at the resume by ann; 3 of 40 had reported"


def test_forecast_begins_with_twenty_reports(fleet: Service, clock: Clock) -> None:
    clock.advance(2 * 3600)
    report(fleet, range(19))
    assert health(fleet).forecast is None
    report(fleet, range(19, 20))
    found = health(fleet).forecast
    assert found is not None
    assert (found.per_hour, found.p50, found.basis) == (
        10.0,
        clock.now + timedelta(hours=1),
        "20 reports on count in 2 h",
    )
    assert found.p50 < found.p90 < found.p50 + timedelta(hours=1)
    operate.pause(fleet, "web", "look", ANN)
    assert health(fleet).forecast is None


@pytest.mark.parametrize(("needed", "deadline"), [(2**62, "10h"), (2**62, "1h"), (2**40, "3650d")])
def test_pace_that_takes_ages_has_a_farthest_forecast(
    service: Service, clock: Clock, needed: int, deadline: str
) -> None:
    text = FLEET.replace("expect: 40\n", "").replace("value: 30", f"value: {needed}").replace("10h", deadline)
    import_text(service, text)
    clock.advance(1800)
    report(service, range(20))
    clock.advance(1799)
    found = health(service).forecast
    assert found is not None
    assert found.p50 == clock.now + timedelta(days=3650)


def test_status_has_condition_and_forecast_as_json_and_text(fleet: Service) -> None:
    report(fleet, range(2), "failed")
    status = get_status(fleet, "web")
    fields = status.as_json()
    assert (fields["condition"], fields["condition_since"], fields["forecast"]) == (
        "at_the_edge",
        "2026-01-31T12:00:00.000000Z",
        None,
    )
    assert fields["because"] in status.as_text()


def test_the_sentence_has_the_size_that_a_roster_had_when_the_chart_moved(service: Service, clock: Clock) -> None:
    import_machines(service, range(40))
    import_text(service, FLEET.replace("expect: 40", "expect: {roster: web}").replace("value: 2}", 'value: "5%"}'))
    report(service, range(4))
    report(service, range(4, 6), "failed")
    edge = "the 2nd failure, limit 2, from m5 in fleet; one more goes to backout; 6 of 40 have reported"
    assert health(service).because == edge
    report(service, range(6, 7), "failed")
    clock.advance(60)
    import_machines(service, range(100))
    assert health(service).because == "the 3rd failure, limit 2, from m6 in fleet; 7 of 40 had reported"


def test_the_sentence_has_no_size_of_labelled_machines_once_the_roster_has_changed(
    service: Service, clock: Clock
) -> None:
    import_machines(service, range(40))
    import_text(service, FLEET.replace("expect: 40", "expect: {roster: web, where: {tier: odd}}"))
    report(service, range(1, 6, 2), "failed")
    assert health(service).because == "the 3rd failure, limit 2, from m5 in fleet; 3 of 20 had reported"
    clock.advance(60)
    import_machines(service, range(100))
    assert health(service).because == "the 3rd failure, limit 2, from m5 in fleet; 3 had reported"


def test_values_are_in_the_order_of_the_chart_file(fleet: Service) -> None:
    # PostgreSQL returns a row that was updated after the others.
    report(fleet, range(1))
    assert list(get_status(fleet, "web").values) == ["count", "failed"]
    assert [list(status.values) for status in list_statuses(fleet)] == [["count", "failed"]]
