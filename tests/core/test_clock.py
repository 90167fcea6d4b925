"""What the clock does without a request."""

from __future__ import annotations

import pytest

from app.core import machine
from app.core.chart import Chart, Transition
from app.core.position import Goto, Happening, Kind, Pause, Reason, Reset, Resume, Tick, Update
from tests.core.support import NOON, after, at, chart, counted, final, old, paused, started, timed, when


def ticking(*transitions: Transition) -> Chart:
    return chart(timed("a", *transitions), final("first"), final("second"))


TAKEN = [
    pytest.param([old("first", 60)], 59, "a", id="elapsed, not yet"),
    pytest.param([old("first", 60)], 60, "first", id="elapsed"),
    pytest.param([at("first", after(60))], 59, "a", id="clock, not yet"),
    pytest.param([at("first", after(60))], 60, "first", id="clock"),
    pytest.param([old("first", 90), old("second", 60)], 60, "second", id="only the second is due"),
    pytest.param([old("first", 90), old("second", 60)], 90, "first", id="both are due: the first in the list"),
]


@pytest.mark.parametrize(("transitions", "seconds", "state"), TAKEN)
def test_tick_takes(transitions: list[Transition], seconds: float, state: str) -> None:
    definition = ticking(*transitions)
    assert machine.step(definition, started(definition), Tick(), after(seconds)).position.state == state


def test_tick_writes_nothing_if_nothing_is_due() -> None:
    definition = ticking(old("first", 60))
    assert not machine.step(definition, started(definition), Tick(), NOON).entries


def test_row_of_a_timeout_names_the_guard() -> None:
    definition = ticking(old("first", 60))
    (entry,) = machine.step(definition, started(definition), Tick(), after(60)).entries
    assert (entry.kind, entry.from_state, entry.to_state) == (Kind.TIMEOUT, "a", "first")
    assert (entry.key, entry.value_before, entry.reason) == ("elapsed", None, "elapsed 60s")


def test_tick_does_not_take_a_count_guard() -> None:
    definition = chart(counted("a", when("end", "count", 0), old("b", 60)), final("b"), final("end"))
    assert not machine.step(definition, started(definition), Tick(), NOON).entries


def test_clock_guards_that_are_due_are_taken_one_after_another() -> None:
    line = [timed(f"s{number}", at(f"s{number + 1}", NOON)) for number in range(5)]
    step = machine.start(chart(*line, final("s5")), 1, 1, NOON)
    assert [entry.kind for entry in step.entries] == [Kind.IMPORT, *[Kind.TIMEOUT] * 5]
    assert (step.position.state, step.position.visit) == ("s5", 6)
    assert [(visit.visit, visit.state) for visit in step.visits] == [(n + 1, f"s{n}") for n in range(6)]


def test_elapsed_counts_from_the_moment_the_state_was_entered() -> None:
    definition = chart(timed("a", old("b", 60)), timed("b", old("end", 60)), final("end"))
    step = machine.step(definition, started(definition), Tick(), after(300))
    assert (step.position.state, step.due_at) == ("b", after(360))


# A cycle of clock transitions alone moves at most a hundred times in one step; the next step continues

CYCLE = chart(
    counted("a", old("b", 0), when("end", "count", 1)), counted("b", old("a", 0), when("end", "count", 1)), final("end")
)
AT_REST = started(chart(counted("a", when("end", "count", 9)), final("end")))


@pytest.mark.parametrize(
    ("happening", "others"),
    [
        pytest.param(Tick(), 0, id="tick"),
        pytest.param(Update(state="a"), 1, id="a PUT that moves the chart"),
        pytest.param(Pause("look"), 1, id="pause"),
        pytest.param(Reset("again"), 1, id="reset"),
        pytest.param(Goto("b", "there"), 1, id="goto"),
    ],
)
def test_clock_moves_at_most_a_hundred_times_in_one_step(happening: Happening, others: int) -> None:
    step = machine.step(CYCLE, AT_REST, happening, NOON)
    timeouts = [entry for entry in step.entries if entry.kind is Kind.TIMEOUT]
    assert (len(timeouts), len(step.entries) - len(timeouts)) == (100, others)


def test_resume_moves_at_most_a_hundred_times() -> None:
    step = machine.step(CYCLE, paused(AT_REST), Resume("on"), NOON)
    assert [entry.kind for entry in step.entries] == [Kind.RESUME, *[Kind.TIMEOUT] * 100]


def test_cycle_continues_in_the_next_step() -> None:
    first = machine.step(CYCLE, AT_REST, Tick(), NOON)
    second = machine.step(CYCLE, first.position, Tick(), NOON)
    assert (first.due_at, second.position.visit) == (NOON, 201)


def test_line_of_a_hundred_states_takes_one_step() -> None:
    line = [timed(f"s{number}", at(f"s{number + 1}", NOON)) for number in range(100)]
    assert machine.start(chart(*line, final("s100")), 1, 1, NOON).position.state == "s100"


def test_line_of_a_hundred_and_one_states_takes_two_steps() -> None:
    definition = chart(*[timed(f"s{n}", at(f"s{n + 1}", NOON)) for n in range(101)], final("s101"))
    first = machine.start(definition, 1, 1, NOON)
    second = machine.step(definition, first.position, Tick(), NOON)
    assert (first.position.state, first.due_at, second.position.state) == ("s100", NOON, "s101")


# The clock stops while the chart is paused


def test_nothing_is_due_while_paused() -> None:
    definition = ticking(old("first", 60))
    step = machine.step(definition, paused(started(definition)), Tick(), after(3600))
    assert (step.entries, step.due_at) == ((), None)


def test_time_spent_paused_does_not_count_as_elapsed() -> None:
    definition = ticking(old("first", 60))
    here = machine.step(definition, started(definition), Pause("look"), after(50)).position
    here = machine.step(definition, here, Resume("on"), after(1000)).position
    states = [machine.step(definition, here, Tick(), after(seconds)).position.state for seconds in (1009, 1010)]
    assert states == ["a", "first"]


def test_clock_guard_that_came_due_during_a_pause_is_taken_at_resume() -> None:
    definition = ticking(at("first", after(60)))
    here = machine.step(definition, started(definition), Pause("look"), after(50)).position
    step = machine.step(definition, here, Resume("on"), after(100))
    assert [entry.kind for entry in step.entries] == [Kind.RESUME, Kind.TIMEOUT]


def test_put_is_judged_after_the_clock_has_run() -> None:
    definition = chart(counted("a", when("end", "count", 1), old("late", 60)), final("late"), final("end"))
    step = machine.step(definition, started(definition), Update(state="a"), after(60))
    assert (step.reason, step.position.state) == (Reason.NOT_CURRENT, "late")
