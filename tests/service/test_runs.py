"""The runs of a chart side by side."""

from __future__ import annotations

import pytest

from app.core.errors import BadRequestError
from app.core.position import Claim
from app.service import operate
from app.service.context import Service
from app.service.put import apply_one
from app.service.runs import learn_from_run, list_runs, say_ending, say_stays
from tests.service.support import ANN, CANARY, REBOOT, Clock, import_text, put


def live(service: Service, clock: Clock) -> None:
    """Three runs: one ends well, one is broken off, and one fails."""
    import_text(service, CANARY)
    clock.advance(60)
    put(service, "canary", "m1")
    clock.advance(60)
    put(service, "canary", "m2")
    put(service, "soak")
    put(service, "soak", "m1")
    clock.advance(60)
    put(service, "soak", "m2")  # the deadline comes first
    clock.advance(1000)
    operate.reset(service, "web", "again", ANN)
    clock.advance(30)
    operate.reset(service, "web", "again", ANN)
    clock.advance(90)
    put(service, "canary", "m1", "failed")
    clock.advance(500)


def test_runs_have_states_durations_reports_failures_and_ending(service: Service, clock: Clock) -> None:
    live(service, clock)
    first, second, third = list_runs(service, "web")
    assert [(stay.state, stay.span.total_seconds(), dict(stay.reports)) for stay in first.stays[:2]] == [
        ("canary", 120, {"count": 2}),
        ("soak", 60, {"count": 2}),
    ]
    assert (first.ending, first.is_failure, first.span.total_seconds(), first.reports) == ("done", False, 180, 4)
    assert (second.ending, second.span.total_seconds(), say_ending(second)) == (None, 30, "broken off in canary")
    assert (third.ending, third.is_failure, third.is_current) == ("rollback", True, True)
    assert (third.reports, third.failures, third.span.total_seconds()) == (1, 1, 90)
    assert say_stays(third, "canary") == "1 min 30 s, 1 reported, 1 failed"


def compared(service: Service) -> str | None:
    *others, last = list_runs(service, "web")
    assert [run.compared for run in others] == [None] * len(others)
    return last.compared


ROLLOUT = CANARY.replace("value: 1}}", "value: 9}}").replace("count, value: 2}}", "count, value: 8}}")


def go(service: Service, clock: Clock, seconds: float, *machines: str) -> None:
    """Each machine reports so many seconds after the one before; `!m1` reports a failure."""
    for machine in machines:
        clock.advance(seconds)
        put(service, "canary", machine.strip("!"), "failed" if machine.startswith("!") else None)


def test_first_run_is_compared_with_nothing(service: Service, clock: Clock) -> None:
    import_text(service, ROLLOUT)
    go(service, clock, 60, "m1")
    assert compared(service) is None


@pytest.mark.parametrize(
    ("seconds", "machines", "says"),
    [
        # Run 1 had one report from 2 min on, two from 4 min on, and three from 5 min on.
        (30, ("m1", "m2"), "3 min faster than run 1, which had 2 failures at this point; this run has none."),
        (100, ("m1", "!m2"), "As fast as run 1, which had 1 failure at this point; this run has 1."),
        (240, ("m1", "m2"), "3 min slower than run 1, which had 2 failures at this point; this run has none."),
        (180, ("!m1",), "1 min slower than run 1, which had no failure at this point; this run has 1."),
    ],
    ids=["faster", "between two reports", "slower", "no report on the first attribute"],
)
def test_current_run_is_compared_with_the_last_one_at_the_same_point(
    service: Service, clock: Clock, seconds: float, machines: tuple[str, ...], says: str
) -> None:
    import_text(service, ROLLOUT)
    go(service, clock, 60, "!f1", "m1", "!f2", "m2", "m3")
    operate.reset(service, "web", "again", ANN)
    go(service, clock, seconds, *machines)
    assert compared(service) == says


def test_run_before_that_did_not_get_so_far_is_told_by_its_end(service: Service, clock: Clock) -> None:
    import_text(service, ROLLOUT)
    go(service, clock, 60, "!f1", "m1")
    operate.reset(service, "web", "again", ANN)
    go(service, clock, 10, "m1", "m2")
    end = ": it was broken off in canary after 2 min, with 1 failure."
    assert compared(service) == f"Run 1 did not get as far in canary{end}"
    go(service, clock, 10, *(f"m{number}" for number in range(3, 9)))
    assert compared(service) == f"Run 1 was not in soak{end}"


def test_run_that_has_ended_is_compared_by_its_whole_time(service: Service, clock: Clock) -> None:
    import_text(service, CANARY)
    for seconds in (60, 45):
        go(service, clock, seconds, "m1", "m2")
        clock.advance(60)
        put(service, "soak", "m2")  # the deadline comes first
        if seconds == 60:
            operate.reset(service, "web", "again", ANN)
    clock.advance(1000)
    assert compared(service) == "30 s faster than run 1; neither had a failure at this point."


def test_limit_and_before_choose_the_runs(service: Service, clock: Clock) -> None:
    live(service, clock)
    assert [run.run for run in list_runs(service, "web", limit=2)] == [2, 3]
    assert [run.run for run in list_runs(service, "web", limit=2, before=3)] == [1, 2]
    assert list_runs(service, "web", before=1) == []


def test_a_run_is_judged_by_its_own_version(service: Service, clock: Clock) -> None:
    live(service, clock)
    import_text(service, CANARY.replace("- name: done", "- name: finished").replace("name: done,", "name: finished,"))
    assert [(run.version, run.ending) for run in list_runs(service, "web")] == [(1, "done"), (1, None), (2, "rollback")]


def test_a_run_teaches_how_long_work_took_and_what_failed(service: Service, clock: Clock) -> None:
    import_text(service, REBOOT)
    for machine, seconds, key in (("m1", 40, None), ("m2", 60, "failed"), ("m3", 20, None)):
        apply_one(service, "web", Claim("reboot", machine), ANN)
        clock.advance(seconds)
        put(service, "reboot", machine, key)
    operate.reset(service, "web", "again", ANN)
    learned = learn_from_run(service, "web", 1)
    assert ([span.total_seconds() for span in learned.spans], learned.reports) == ([40, 60, 20], 3)
    assert learned.fail == pytest.approx(1 / 3)
    with pytest.raises(BadRequestError, match="it teaches nothing"):
        learn_from_run(service, "web", 2)
    with pytest.raises(BadRequestError, match="there is no run 3"):
        learn_from_run(service, "web", 3)
