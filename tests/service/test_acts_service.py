"""What each operator's act writes, and when it is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from app.core.errors import BadRequestError, ChartNotFoundError, ConflictError, ReasonRequiredError
from app.service import operate
from app.service.context import Service
from app.service.upkeep import verify
from tests.service.support import ANN, CANARY, NOBODY, REBOOT, Clock, get_row, import_text, kinds, put, query, rows
from tests.support import requests
from tests.support.databases import ON_ONE_DATABASE

Act = Callable[[Service, str], object]

ACTS: dict[str, Act] = {
    "pause": lambda service, reason: operate.pause(service, "web", reason, ANN),
    "resume": lambda service, reason: operate.resume(service, "web", reason, ANN),
    "reset": lambda service, reason: operate.reset(service, "web", reason, ANN),
    "goto": lambda service, reason: operate.goto(service, "web", "soak", reason, ANN),
    "archive": lambda service, reason: operate.archive(service, "web", reason, ANN),
}


@pytest.fixture(autouse=True)
def canary(service: Service) -> None:
    import_text(service, CANARY)


def ready(service: Service, kind: str) -> None:
    if kind == "resume":
        operate.pause(service, "web", "look", NOBODY)


@pytest.mark.parametrize("kind", ACTS)
def test_act_is_logged_with_reason_and_author(service: Service, kind: str) -> None:
    ready(service, kind)
    ACTS[kind](service, "  disk errors ")
    row = rows(service)[-1]
    assert (row.kind, row.reason, row.actor, row.remote_addr) == (kind, "disk errors", "ann", "192.0.2.7")
    assert verify(service, "web").differences == ()


@ON_ONE_DATABASE
@pytest.mark.parametrize("reason", ["", "  ", "\n"])
@pytest.mark.parametrize("kind", ACTS)
def test_act_without_a_reason_changes_nothing(service: Service, kind: str, reason: str) -> None:
    with pytest.raises(ReasonRequiredError):
        ACTS[kind](service, reason)
    assert kinds(service) == ["import"]


@pytest.mark.parametrize("kind", ACTS)
def test_act_on_an_archived_chart_is_an_error(service: Service, kind: str) -> None:
    operate.archive(service, "web", "over", ANN)
    with pytest.raises(ChartNotFoundError):
        ACTS[kind](service, "why")


def test_pause_says_who_and_why(service: Service, clock: Clock) -> None:
    status = operate.pause(service, "web", "look", ANN)
    clock.advance(150)
    assert (status.paused, status.paused_by, status.pause_reason) == (True, "ann", "look")


def test_pause_twice_is_a_conflict_that_changes_nothing(service: Service) -> None:
    operate.pause(service, "web", "look", ANN)
    with pytest.raises(ConflictError):
        operate.pause(service, "web", "again", NOBODY)
    found = get_row(service)
    assert (found.paused_by, found.pause_reason, kinds(service)) == ("ann", "look", ["import", "pause"])


def test_resume_forgets_who_and_why_and_counts_the_pause(service: Service, clock: Clock) -> None:
    operate.pause(service, "web", "look", ANN)
    clock.advance(30)
    operate.resume(service, "web", "on", ANN)
    found = get_row(service)
    assert (found.paused_at, found.paused_by, found.pause_reason) == (None, None, None)
    assert found.paused_for == timedelta(seconds=30) // timedelta(microseconds=1)


def test_resume_counts_no_pause_if_the_clock_was_set_back(service: Service, clock: Clock) -> None:
    operate.pause(service, "web", "look", ANN)
    clock.advance(-30)
    operate.resume(service, "web", "on", ANN)
    assert (get_row(service).paused_for, verify(service, "web").differences) == (0, ())


def test_reset_begins_the_next_run_without_reports(service: Service) -> None:
    put(service, "canary", "m1")
    status = operate.reset(service, "web", "again", ANN)
    assert (status.run, status.visit, status.current_state, status.values["count"]) == (2, 1, "canary", 0)
    assert put(service, "canary", "m1").value == 1
    assert query(service, "SELECT run, visit, machine FROM reports ORDER BY run") == [(1, 1, "m1"), (2, 1, "m1")]


def test_reset_keeps_the_rows_of_the_old_run(service: Service) -> None:
    put(service, "canary")
    operate.reset(service, "web", "again", ANN)
    assert [(row.run, row.kind) for row in rows(service)] == [(1, "import"), (1, "update"), (2, "reset")]


def test_goto_the_current_state_begins_a_new_visit(service: Service) -> None:
    put(service, "canary", "m1")
    operate.goto(service, "web", "canary", "again", ANN)
    assert put(service, "canary", "m1").visit == 2


def test_goto_an_unknown_state_is_an_error_that_changes_nothing(service: Service) -> None:
    with pytest.raises(BadRequestError):
        operate.goto(service, "web", "nowhere", "why", ANN)
    assert kinds(service) == ["import"]


def test_archive_stops_the_clock(service: Service) -> None:
    operate.goto(service, "web", "soak", "there", ANN)
    assert get_row(service).due_at is not None
    operate.archive(service, "web", "over", ANN)
    assert (get_row(service).due_at, verify(service, "web").differences) == (None, ())


def test_archive_ends_the_visit(service: Service, clock: Clock) -> None:
    clock.advance(5)
    operate.archive(service, "web", "over", ANN)
    clock.advance(5)
    import_text(service, CANARY)
    assert query(service, "SELECT run, seconds FROM v_state_durations ORDER BY run")[0] == (1, 5)


def test_evict_takes_the_slot_away(service: Service) -> None:
    import_text(service, REBOOT, name="reboot")
    requests.claim(service, "reboot", "reboot", "m1", NOBODY)
    operate.evict(service, "reboot", "m1", "gone", ANN)
    assert query(service, "SELECT machine FROM slots") == []
    assert (kinds(service, "reboot")[-1], verify(service, "reboot").differences) == ("evict", ())


def test_evict_of_a_machine_without_a_slot_is_a_conflict(service: Service) -> None:
    with pytest.raises(ConflictError):
        operate.evict(service, "web", "m1", "gone", ANN)
