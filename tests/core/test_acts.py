"""An operator's acts: pause, resume, reset, goto, archive."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from app.core import machine
from app.core.errors import BadRequestError, ConflictError
from app.core.position import Archive, Goto, Happening, Kind, Pause, Position, Reset, Resume, Step
from tests.core.support import NOON, after, at, canary, chart, counted, final, old, paused, started, timed, when

CHART = canary(9)
HERE = replace(started(CHART), values={"count": 3, "failed": 0})


def do(happening: Happening, position: Position = HERE, seconds: float = 10) -> Step:
    return machine.step(CHART, position, happening, after(seconds))


def kinds(step: Step) -> list[Kind]:
    return [entry.kind for entry in step.entries]


ROWS = [
    pytest.param(Pause("look"), HERE, (Kind.PAUSE, 1, 1, "canary", "canary"), id="pause"),
    pytest.param(Resume("look"), paused(HERE), (Kind.RESUME, 1, 1, "canary", "canary"), id="resume"),
    pytest.param(Reset("look"), HERE, (Kind.RESET, 2, 1, "canary", "canary"), id="reset"),
    pytest.param(Goto("done", "look"), HERE, (Kind.GOTO, 1, 1, "canary", "done"), id="goto"),
    pytest.param(Archive("look"), HERE, (Kind.ARCHIVE, 1, 1, "canary", "canary"), id="archive"),
]


@pytest.mark.parametrize(("happening", "position", "row"), ROWS)
def test_act_writes_one_row_with_its_reason(happening: Happening, position: Position, row: tuple[object, ...]) -> None:
    (entry,) = do(happening, position).entries
    assert (entry.kind, entry.run, entry.visit, entry.from_state, entry.to_state) == row
    assert (entry.reason, entry.machine, entry.key) == ("look", None, None)


# Pause and resume


def test_pause_keeps_everything_and_stops_the_clock() -> None:
    step = do(Pause("look"))
    assert (step.position, step.due_at) == (replace(HERE, paused_at=after(10)), None)


def test_pause_of_a_paused_chart_is_a_conflict() -> None:
    with pytest.raises(ConflictError, match="is paused already"):
        do(Pause("look"), paused(HERE))


def test_pause_takes_the_clock_transition_that_was_due_before() -> None:
    definition = chart(timed("a", old("end", 5)), final("end"))
    step = machine.step(definition, started(definition), Pause("look"), after(10))
    assert (kinds(step), step.position.state) == ([Kind.TIMEOUT, Kind.PAUSE], "end")


def test_resume_adds_the_pause_to_those_of_the_visit() -> None:
    here = replace(paused(HERE, 10), paused_for=timedelta(seconds=5))
    assert do(Resume("on"), here, 40).position == replace(HERE, paused_for=timedelta(seconds=35))


def test_resume_of_a_chart_that_is_not_paused_is_a_conflict() -> None:
    with pytest.raises(ConflictError, match="is not paused"):
        do(Resume("on"))


def test_resume_takes_a_guard_that_now_holds() -> None:
    here = paused(replace(HERE, values={"count": 9, "failed": 0}))
    step = do(Resume("on"), here)
    assert (kinds(step), step.position.state) == ([Kind.RESUME, Kind.TRANSITION], "done")
    assert (step.entries[1].key, step.entries[1].reason) == (None, "count >= 9")


def test_resume_takes_a_clock_guard_if_it_is_the_first_that_holds() -> None:
    state = counted("a", at("late", after(5)), when("end", "count", 0))
    definition = chart(state, final("late"), final("end"))
    step = machine.step(definition, paused(started(definition)), Resume("on"), after(10))
    assert (kinds(step), step.position.state) == ([Kind.RESUME, Kind.TIMEOUT], "late")


def test_resume_takes_only_one_count_guard() -> None:
    ready = counted("b", when("end", "count", 0))
    definition = chart(counted("a", when("b", "count", 0)), ready, final("end"))
    step = machine.step(definition, paused(started(definition)), Resume("on"), NOON)
    assert step.position.state == "b"


# Reset


def test_reset_begins_the_next_run_as_defined() -> None:
    position = do(Reset("again"), replace(HERE, state="done", visit=7, values={})).position
    assert (position.run, position.visit, position.state) == (2, 1, "canary")
    assert (position.values, position.entered_at) == ({"count": 0, "failed": 0}, after(10))


def test_reset_takes_clock_guards_but_not_count_guards() -> None:
    state = counted("a", when("end", "count", 0), old("b", 0))
    definition = chart(state, counted("b", when("end", "count", 0)), final("end"))
    step = machine.step(definition, started(definition), Reset("again"), NOON)
    assert (kinds(step), step.position.state) == ([Kind.RESET, Kind.TIMEOUT], "b")


def test_reset_does_not_take_a_clock_guard_of_the_old_run() -> None:
    definition = chart(timed("a", old("end", 5)), final("end"))
    step = machine.step(definition, started(definition), Reset("again"), after(10))
    assert (kinds(step), step.position.state) == ([Kind.RESET], "a")


def test_reset_of_a_paused_chart_stays_paused() -> None:
    step = do(Reset("again"), paused(HERE))
    assert (step.position.is_paused, step.due_at) == (True, None)


# Goto


def test_goto_begins_a_visit_even_if_no_guard_holds() -> None:
    step = do(Goto("rollback", "hurry"))
    assert (step.position.state, step.position.visit, step.position.run) == ("rollback", 2, 1)


def test_goto_the_current_state_begins_a_new_visit() -> None:
    position = do(Goto("canary", "again")).position
    assert (position.state, position.visit, position.values["count"]) == ("canary", 2, 0)


def test_goto_an_unknown_state_is_an_error() -> None:
    with pytest.raises(BadRequestError, match="has no state 'nowhere'"):
        do(Goto("nowhere", "why"))


def test_goto_takes_clock_guards_but_not_count_guards() -> None:
    here = counted("b", when("end", "count", 0), at("c", NOON))
    definition = chart(counted("a", when("b", "count", 9)), here, counted("c", when("end", "count", 0)), final("end"))
    step = machine.step(definition, started(definition), Goto("b", "there"), NOON)
    assert (kinds(step), step.position.state) == ([Kind.GOTO, Kind.TIMEOUT], "c")


def test_goto_of_a_paused_chart_keeps_chart_and_clock_paused() -> None:
    definition = chart(counted("a", when("b", "count", 9)), timed("b", at("end", NOON)), final("end"))
    step = machine.step(definition, paused(started(definition)), Goto("b", "there"), after(10))
    assert (step.position.state, step.position.is_paused, kinds(step)) == ("b", True, [Kind.GOTO])


def test_pause_that_began_before_a_goto_counts_from_the_goto() -> None:
    definition = chart(counted("a", when("b", "count", 9)), timed("b", old("end", 60)), final("end"))
    here = machine.step(definition, paused(started(definition)), Goto("b", "there"), after(10)).position
    step = machine.step(definition, here, Resume("on"), after(30))
    assert (step.position.paused_for, step.due_at) == (timedelta(seconds=20), after(90))


# Archive


def test_archive_leaves_the_position_as_it_is() -> None:
    assert do(Archive("over")).position == HERE


def test_start_of_a_later_run_continues_the_fence() -> None:
    position = machine.start(CHART, 3, 2, NOON, fence=7).position
    assert (position.version, position.run, position.visit, position.fence) == (3, 2, 1, 7)
