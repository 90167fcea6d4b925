"""What a chart is meant to do: the planned transitions, the main path along them, and which endings are failures.

A chart file does not say what is planned, so there is a rule. The *planned* transitions of a state are those whose
guard counts its first attribute, which is the one that a plain PUT updates. If there are none, the clock's
transitions are planned; if there are none of these either, all transitions are. A final state that can be reached by
planned transitions alone is a good ending. Any other ending is a failed one: only a count of failures or a deadline
leads there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from app.core.chart import Chart, CountGuard, State, Transition
from app.core.position import Position


def list_planned(state: State) -> tuple[Transition, ...]:
    """Return the transitions by which a state is meant to be left."""
    clock = tuple(move for move in state.transitions if move.guard.is_clock)
    counted = tuple(move for move in state.transitions if move not in clock and move.guard.key == state.default_key)
    return counted or clock or state.transitions


def find_needed(state: State) -> int | None:
    """Return the count at which the state is left as planned; None if the plan counts nothing."""
    guards = (move.guard for move in list_planned(state))
    return next((guard.threshold for guard in guards if not guard.is_clock and guard.share is None), None)


def find_share(state: State) -> str | None:
    """Return the percentage of a set, not looked up yet, at which a state is left as planned; None if by none."""
    guards = (move.guard for move in list_planned(state))
    return next((guard.written for guard in guards if not guard.is_clock and guard.share is not None), None)


def follow_plan(chart: Chart, start: str, taken: set[str]) -> list[str]:
    """Return the states from `start` along the first planned transitions, up to an ending.

    States in `taken` are not entered; the states on the path are added to it.
    """
    path: list[str] = []
    here: str | None = start
    while here is not None:
        path.append(here)
        taken.add(here)
        here = next((item.target for item in list_planned(chart.states[here]) if item.target not in taken), None)
    return path


def find_main_path(chart: Chart) -> list[str]:
    """Return the states that a run passes through if all goes as planned."""
    return follow_plan(chart, chart.initial, set())


def list_on_plan(chart: Chart) -> frozenset[str]:
    """Return the states that planned transitions alone reach."""
    return frozenset(_walk_plan(chart))


def list_failed_endings(chart: Chart) -> frozenset[str]:
    """Return the final states that planned transitions alone do not reach."""
    planned = list_on_plan(chart)
    return frozenset(name for name, state in chart.states.items() if state.is_final and name not in planned)


def find_next_clock(state: State, position: Position) -> tuple[datetime, Transition] | None:
    """Return the clock transition of the state that comes due first, and when it does unless the chart is paused.

    Of several that come due together it is the first in the chart file. None if the state has no clock transition.
    """
    dues = [(item.guard.due_at(position), item) for item in state.transitions if item.guard.is_clock]
    clocks = [(due_at, item) for due_at, item in dues if due_at is not None]
    return min(clocks, key=lambda clock: clock[0], default=None)


def find_limit(state: State, key: str, target: str) -> CountGuard | None:
    """Return the first guard on the attribute `key` that leads from `state` to `target`; None if there is none."""
    guards = (move.guard for move in state.transitions if move.target == target)
    return next((guard for guard in guards if not guard.is_clock and guard.key == key), None)


def find_edge(chart: Chart, position: Position, now: datetime) -> tuple[str, str] | None:
    """Return the attribute on which one more report takes the chart off its plan, and the state to which it goes.

    None if no attribute is that near, and for an attribute on which no machine has reported yet: a chart that tolerates
    no failure is not at the edge as long as there is none.
    """
    state, on_plan = chart.state_at(position), list_on_plan(chart)
    if state.func is None or state.func.counting is None or state.name not in on_plan:
        return None
    for attribute in state.attributes:
        value = position.values[attribute.key]
        if value == attribute.value:
            continue
        values = {**position.values, attribute.key: state.func.counting.apply(value)}
        after = replace(position, values=values)
        target = next((move.target for move in state.transitions if move.guard.holds(after, now)), None)
        if target is not None and target not in on_plan:
            return attribute.key, target
    return None


def _walk_plan(chart: Chart) -> Iterator[str]:
    seen, waiting = {chart.initial}, [chart.initial]
    while waiting:
        here = waiting.pop()
        yield here
        for item in list_planned(chart.states[here]):
            if item.target not in seen:
                seen.add(item.target)
                waiting.append(item.target)
