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
