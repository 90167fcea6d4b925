"""A PUT: what it does, and the order of its checks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.core import machine
from app.core import position as position_module
from app.core.chart import INT64_MAX, Chart, Func, Op
from app.core.errors import AttributeRangeError, BadRequestError, KeyReusedError
from app.core.position import Kind, LoggedUpdate, Position, Reason, Report, Update, Verdict
from tests.core.support import (
    NOON,
    after,
    at,
    canary,
    chart,
    counted,
    final,
    holding,
    old,
    paused,
    rolling,
    started,
    timed,
    when,
)


def put(definition: Chart, position: Position, state: str, seconds: float = 0, **fields: Any) -> position_module.Step:
    return machine.step(definition, position, Update(state=state, **fields), after(seconds))


# What an accepted PUT does


@pytest.mark.parametrize(("func", "value"), [(Func.INCREMENT, 1), (Func.DECREMENT, -1)])
def test_put_applies_the_func_to_the_first_attribute(func: Func, value: int) -> None:
    definition = chart(counted("a", when("end", "count", 9, Op.EQ), func=func), final("end"))
    step = put(definition, started(definition), "a")
    assert (step.verdict, step.reason, step.key, step.value) == (Verdict.ACCEPTED, Reason.UPDATED, "count", value)
    assert step.position.values == {"count": value, "failed": 0}


def test_put_updates_the_attribute_it_names() -> None:
    definition = chart(counted("a", when("end", "failed", 9)), final("end"))
    assert put(definition, started(definition), "a", key="failed").position.values == {"count": 0, "failed": 1}


def test_put_that_does_not_move_the_chart_writes_one_update_row() -> None:
    step = put(canary(), started(canary()), "canary", machine="m1")
    (entry,) = step.entries
    assert (entry.kind, entry.from_state, entry.to_state) == (Kind.UPDATE, "canary", "canary")
    assert (entry.version, entry.run, entry.visit) == (1, 1, 1)
    assert (entry.key, entry.value_before, entry.value_after, entry.machine) == ("count", 0, 1, "m1")


def test_put_that_moves_the_chart_writes_one_transition_row() -> None:
    step = put(canary(1), started(canary(1)), "canary", machine="m1")
    (entry,) = step.entries
    assert (entry.kind, entry.from_state, entry.to_state, entry.visit) == (Kind.TRANSITION, "canary", "done", 1)
    assert (entry.key, entry.value_before, entry.value_after, entry.machine) == ("count", 0, 1, "m1")


def test_put_that_moves_the_chart_answers_with_the_value_it_reached() -> None:
    step = put(canary(1), started(canary(1)), "canary")
    assert (step.reason, step.key, step.value) == (Reason.TRANSITIONED, "count", 1)
    assert (step.position.state, step.position.visit, step.position.entered_at) == ("done", 2, NOON)


def test_entering_a_state_sets_its_values_as_defined() -> None:
    second = counted("b", when("end", "count", 9), values={"count": 5, "x": -3})
    definition = chart(counted("a", when("b", "count", 1)), second, final("end"))
    assert put(definition, started(definition), "a").position.values == {"count": 5, "x": -3}


def test_first_transition_whose_guard_holds_is_taken() -> None:
    guards = [when("late", "count", 2), when("first", "count", 1), when("second", "count", 1)]
    definition = chart(counted("a", *guards), final("late"), final("first"), final("second"))
    assert put(definition, started(definition), "a").position.state == "first"


def test_put_takes_one_transition_even_if_the_next_guard_holds_too() -> None:
    ready = counted("b", when("end", "count", 0))
    definition = chart(counted("a", when("b", "count", 1)), ready, final("end"))
    step = put(definition, started(definition), "a")
    assert (step.position.state, len(step.entries)) == ("b", 1)


def test_state_entered_with_a_clock_guard_due_moves_on_at_once() -> None:
    definition = chart(counted("a", when("b", "count", 1)), timed("b", at("end", NOON)), final("end"))
    step = put(definition, started(definition), "a")
    assert [(entry.kind, entry.to_state) for entry in step.entries] == [(Kind.TRANSITION, "b"), (Kind.TIMEOUT, "end")]
    assert (step.reason, step.position.state, step.position.visit) == (Reason.TRANSITIONED, "end", 3)


def test_state_may_lead_to_itself() -> None:
    definition = chart(counted("a", when("a", "count", 1), when("end", "failed", 1)), final("end"))
    step = put(definition, started(definition), "a")
    assert (step.reason, step.position.visit, step.position.values["count"]) == (Reason.TRANSITIONED, 2, 0)


def test_put_past_64_bits_is_an_error() -> None:
    definition = chart(counted("a", when("end", "failed", 1), values={"count": INT64_MAX, "failed": 0}), final("end"))
    with pytest.raises(AttributeRangeError):
        put(definition, started(definition), "a")


# What is refused

PLAIN = canary()
ROSTER = canary(roster=("m1", "m2"))
TIMED = chart(timed("wait", old("end", 60)), final("end"))

REFUSED = [
    pytest.param(PLAIN, started(PLAIN), {"state": "nowhere"}, Reason.UNKNOWN_STATE, id="unknown state"),
    pytest.param(PLAIN, started(PLAIN), {"state": "done"}, Reason.NOT_CURRENT, id="another state"),
    pytest.param(PLAIN, paused(started(PLAIN)), {"state": "done"}, Reason.NOT_CURRENT, id="another state, paused"),
    pytest.param(TIMED, started(TIMED), {"state": "wait"}, Reason.TIME_DRIVEN, id="a time state"),
    pytest.param(ROSTER, started(ROSTER), {"state": "canary", "machine": "m3"}, Reason.NOT_ON_ROSTER, id="not listed"),
    pytest.param(
        PLAIN,
        replace(started(PLAIN), state="done", values={}, visit=2),
        {"state": "canary", "machine": "m1", "was_entered": True},
        Reason.LATE,
        id="a machine that comes late",
    ),
    pytest.param(
        PLAIN,
        replace(started(PLAIN), state="done", values={}, visit=2),
        {"state": "canary", "was_entered": True},
        Reason.NOT_CURRENT,
        id="no machine, late",
    ),
    pytest.param(
        PLAIN, replace(started(PLAIN), state="done", values={}), {"state": "done"}, Reason.FINAL, id="a final state"
    ),
    pytest.param(rolling(), started(rolling()), {"state": "reboot", "machine": "m1"}, Reason.NO_SLOT, id="no slot"),
    pytest.param(rolling(), started(rolling()), {"state": "reboot"}, Reason.NO_SLOT, id="no slot, no machine"),
]


@pytest.mark.parametrize(("definition", "position", "fields", "reason"), REFUSED)
def test_put_is_refused_and_changes_nothing(
    definition: Chart, position: Position, fields: dict[str, Any], reason: Reason
) -> None:
    step = machine.step(definition, position, Update(**fields), NOON)
    assert (step.verdict, step.reason, step.position) == (Verdict.REFUSED, reason, position)
    assert not step.entries


def test_machine_on_the_roster_is_counted() -> None:
    assert put(ROSTER, started(ROSTER), "canary", machine="m2").verdict is Verdict.ACCEPTED


@pytest.mark.parametrize("definition", [ROSTER, canary(require_machine=True)], ids=["roster", "require_machine"])
@pytest.mark.parametrize("state", ["canary", "done", "nowhere"])
def test_put_without_a_machine_is_an_error_if_the_chart_needs_one(definition: Chart, state: str) -> None:
    with pytest.raises(BadRequestError, match="machine is missing"):
        put(definition, started(definition), state)


def test_put_on_an_attribute_the_state_lacks_is_an_error() -> None:
    with pytest.raises(BadRequestError, match="state 'canary' has no attribute 'cuont'"):
        put(PLAIN, started(PLAIN), "canary", key="cuont")


@pytest.mark.parametrize(("state", "reason"), [("done", Reason.FINAL), ("wait", Reason.TIME_DRIVEN)])
def test_key_is_ignored_on_a_state_that_does_not_count(state: str, reason: Reason) -> None:
    definition = chart(timed("wait", old("done", 60)), final("done"), initial=state)
    assert put(definition, started(definition), state, key="x").reason is reason


# The order of the checks

EVERYTHING = chart(
    counted("a", old("b", 60), when("b", "count", 9)),
    counted("b", when("end", "count", 9), slots=rolling().states["reboot"].slots),
    final("end"),
    roster=("m1",),
)
LOGGED = LoggedUpdate("a", "m1", "count", "count")
AS_LOGGED = {"state": "a", "machine": "m1", "repeats": LOGGED}
REPORTED = {"state": "a", "machine": "m1", "report": Report(1, "m1", "count"), "was_entered": True}
IN_B = replace(started(EVERYTHING), state="b", visit=2)

ORDER = [
    pytest.param(
        started(EVERYTHING), 60, {"state": "a", "machine": "m1"}, Reason.NOT_CURRENT, id="clock before current"
    ),
    pytest.param(started(EVERYTHING), 60, AS_LOGGED, Reason.REPLAY, id="replay by key whatever the clock did"),
    pytest.param(started(EVERYTHING), 60, REPORTED, Reason.REPLAY, id="replay by machine whatever the clock did"),
    pytest.param(paused(started(EVERYTHING)), 60, AS_LOGGED, Reason.REPLAY, id="replay by key while paused"),
    pytest.param(paused(started(EVERYTHING)), 60, REPORTED, Reason.REPLAY, id="replay by machine while paused"),
    pytest.param(IN_B, 0, AS_LOGGED, Reason.REPLAY, id="replay by key before current"),
    pytest.param(IN_B, 0, REPORTED, Reason.REPLAY, id="replay by machine before current"),
    pytest.param(paused(IN_B), 0, {"state": "a", "machine": "m1"}, Reason.NOT_CURRENT, id="current while paused"),
    pytest.param(paused(IN_B), 0, {"state": "b", "machine": "m9"}, Reason.NOT_ON_ROSTER, id="roster while paused"),
    pytest.param(paused(IN_B), 0, {"state": "b", "machine": "m1"}, Reason.NO_SLOT, id="slot while paused"),
    pytest.param(IN_B, 0, {"state": "a", "machine": "m9"}, Reason.NOT_CURRENT, id="current before roster"),
    pytest.param(
        replace(IN_B, state="end", values={}),
        0,
        {"state": "end", "machine": "m9"},
        Reason.FINAL,
        id="final before roster",
    ),
    pytest.param(IN_B, 0, {"state": "b", "machine": "m9"}, Reason.NOT_ON_ROSTER, id="roster before slot"),
    pytest.param(IN_B, 0, {"state": "b", "machine": "m1"}, Reason.NO_SLOT, id="slot before func"),
    pytest.param(holding(IN_B, "m1"), 0, {"state": "b", "machine": "m1"}, Reason.UPDATED, id="func at last"),
]


@pytest.mark.parametrize(("position", "seconds", "fields", "reason"), ORDER)
def test_put_checks_run_in_order(position: Position, seconds: float, fields: dict[str, Any], reason: Reason) -> None:
    assert machine.step(EVERYTHING, position, Update(**fields), after(seconds)).reason is reason


def test_refused_put_still_takes_the_clock_transition_that_was_due() -> None:
    step = put(EVERYTHING, started(EVERYTHING), "a", 60, machine="m1")
    assert step.verdict is Verdict.REFUSED
    assert [(entry.kind, entry.to_state, entry.machine) for entry in step.entries] == [(Kind.TIMEOUT, "b", None)]


# Replay by Idempotency-Key


def test_replay_by_key_changes_nothing_and_returns_the_current_value() -> None:
    here = replace(started(PLAIN), values={"count": 1, "failed": 0})
    step = put(PLAIN, here, "canary", repeats=LoggedUpdate("canary", None, "count", "count"))
    assert (step.reason, step.key, step.value) == (Reason.REPLAY, "count", 1)
    assert not step.entries


REUSED = [
    pytest.param({"state": "done"}, id="another state"),
    pytest.param({"state": "canary", "machine": "m2"}, id="another machine"),
    pytest.param({"state": "canary"}, id="no machine"),
    pytest.param({"state": "canary", "machine": "m1", "key": "failed"}, id="another attribute"),
]


@pytest.mark.parametrize("fields", REUSED)
def test_key_with_another_request_is_an_error(fields: dict[str, Any]) -> None:
    logged = LoggedUpdate("canary", "m1", "count", "count")
    with pytest.raises(KeyReusedError, match="state 'canary', machine 'm1', key 'count'"):
        put(PLAIN, started(PLAIN), repeats=logged, **fields)


def test_key_sent_with_an_attribute_cannot_be_sent_without_one() -> None:
    with pytest.raises(KeyReusedError):
        put(PLAIN, started(PLAIN), "canary", repeats=LoggedUpdate("canary", None, "failed", "count"))


def test_key_replays_with_the_default_attribute_of_that_time() -> None:
    logged = LoggedUpdate("canary", None, "old_default", "old_default")
    assert put(PLAIN, started(PLAIN), "canary", repeats=logged).reason is Reason.REPLAY


def test_key_replays_even_if_its_state_is_gone_and_a_machine_is_required() -> None:
    definition = canary(require_machine=True)
    logged = LoggedUpdate("gone", None, "count", "count")
    assert put(definition, started(definition), "gone", repeats=logged).reason is Reason.REPLAY
