"""When a guard holds, and when the clock next has something to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from app.core.chart import ClockGuard, CountGuard, ElapsedGuard, Func, Guard, Op
from app.core.position import Position, next_due
from tests.core.support import NOON, after, at, chart, counted, final, holding, old, paused, started, timed, when

AT_ONE = CountGuard("count", Op.GE, 1, "1")
CHART = chart(counted("a", when("end", "count", 9), old("end", 60), at("end", after(90))), final("end"))
HERE = started(CHART)


@pytest.mark.parametrize("func", [Func.INCREMENT, Func.DECREMENT])
@pytest.mark.parametrize(
    ("op", "holding_values"),
    [
        (Op.EQ, {5}),
        (Op.NE, {4, 6}),
        (Op.GE, {5, 6}),
        (Op.LE, {4, 5}),
        (Op.GT, {6}),
        (Op.LT, {4}),
    ],
)
def test_count_guard_holds_for(func: Func, op: Op, holding_values: set[int]) -> None:
    state = counted("a", when("end", "count", 5, op), func=func)
    here = started(chart(state, final("end")))
    guard = state.transitions[0].guard
    found = {value for value in (4, 5, 6) if guard.holds(replace(here, values={"count": value}), NOON)}
    assert found == holding_values


@pytest.mark.parametrize(("now", "does"), [(after(-1e-6), False), (NOON, True), (after(1e-6), True)])
def test_clock_guard_holds_once_the_instant_has_come(now: datetime, does: bool) -> None:
    assert ClockGuard(NOON, "noon").holds(HERE, now) is does


@pytest.mark.parametrize(("seconds", "does"), [(59.999999, False), (60, True), (61, True)])
def test_elapsed_guard_holds_once_the_visit_is_that_old(seconds: float, does: bool) -> None:
    assert ElapsedGuard(timedelta(seconds=60), "60s").holds(HERE, after(seconds)) is does


def test_elapsed_guard_does_not_count_pauses_that_are_over() -> None:
    here = replace(HERE, paused_for=timedelta(seconds=30))
    guard = ElapsedGuard(timedelta(seconds=60), "60s")
    assert [guard.holds(here, after(seconds)) for seconds in (89, 90)] == [False, True]


@pytest.mark.parametrize(
    "guard", [ClockGuard(NOON, "noon"), ElapsedGuard(timedelta(0), "0s")], ids=["clock", "elapsed"]
)
def test_clock_guards_wait_while_paused(guard: ClockGuard | ElapsedGuard) -> None:
    assert not guard.holds(paused(HERE), after(3600))


def test_count_guard_holds_while_paused() -> None:
    assert AT_ONE.holds(replace(paused(HERE), values={"count": 1}), NOON)


def test_due_at_is_the_instant_or_when_the_visit_reaches_the_age() -> None:
    guards = [transition.guard for transition in CHART.states["a"].transitions[1:]]
    assert [guard.due_at(HERE) for guard in guards] == [after(60), after(90)]


def test_count_guard_is_never_due() -> None:
    assert AT_ONE.due_at(HERE) is None  # type: ignore[func-returns-value]  # that is the point


GUARD_TEXTS = [
    pytest.param(CountGuard("count", Op.GE, 190, "95%"), False, "count ≥ 190 (95%)", "count >= 95%", id="count"),
    pytest.param(ElapsedGuard(timedelta(minutes=30), "30m"), True, "after 30m", "elapsed 30m", id="elapsed"),
    pytest.param(ClockGuard(NOON, "noon"), True, "at 2026-01-31 12:00 UTC", "clock noon", id="clock"),
]


@pytest.mark.parametrize(("guard", "is_clock", "text", "log_text"), GUARD_TEXTS)
def test_guard_says_what_it_is(guard: Guard, is_clock: bool, text: str, log_text: str) -> None:
    assert (guard.is_clock, guard.text, guard.log_text) == (is_clock, text, log_text)


@pytest.mark.parametrize(
    ("position", "due"),
    [
        pytest.param(HERE, after(60), id="the first clock guard"),
        pytest.param(holding(HERE, "m1", expires=5), after(5), id="a lease that ends before it"),
        pytest.param(holding(HERE, "m1", expires=70), after(60), id="a lease that ends after it"),
        pytest.param(holding(HERE, "m1"), after(60), id="a claim without a lease"),
        pytest.param(paused(HERE), None, id="nothing while paused"),
    ],
)
def test_next_due_is(position: Position, due: datetime | None) -> None:
    assert next_due(CHART, position) == due


def test_next_due_is_none_if_the_clock_has_nothing_to_do() -> None:
    definition = chart(timed("a", old("end", 1)), final("end"), initial="end")
    assert next_due(definition, started(definition)) is None


def test_next_due_ignores_a_lease_that_was_noticed() -> None:
    here = holding(HERE, "m1", expires=5)
    slot = replace(here.slots["m1"], expired_at=after(6))
    assert next_due(CHART, here.with_slot(slot)) == after(60)


PAUSES = [
    pytest.param(None, 0, 10, 0, id="never paused"),
    pytest.param(None, 7, 10, 7, id="an old pause"),
    pytest.param(4, 0, 10, 6, id="a running one"),
    pytest.param(4, 7, 10, 13, id="an old and a running one"),
    pytest.param(-5, 0, 10, 10, id="paused before the visit began"),
    pytest.param(12, 0, 10, 0, id="the clock was set back"),
]


@pytest.mark.parametrize(("paused_at", "paused_for", "now", "seconds"), PAUSES)
def test_pause_in_visit_is(paused_at: float | None, paused_for: float, now: float, seconds: float) -> None:
    since = None if paused_at is None else after(paused_at)
    here = replace(HERE, paused_at=since, paused_for=timedelta(seconds=paused_for))
    assert here.pause_in_visit(after(now)) == timedelta(seconds=seconds)
