"""What a chart is meant to do: the planned transitions, the main path along them, and which endings are failures.

A chart file does not say what is planned, so there is a rule. The *planned* transitions of a state are those whose
guard counts its first attribute, which is the one that a plain PUT updates. If there are none, the clock's
transitions are planned; if there are none of these either, all transitions are. A final state that can be reached by
planned transitions alone is a good ending. Any other ending is a failed one: only a count of failures or a deadline
leads there.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.core.chart import Chart, State, Transition


def list_planned(state: State) -> tuple[Transition, ...]:
    """Return the transitions by which a state is meant to be left."""
    clock = tuple(move for move in state.transitions if move.guard.is_clock)
    counted = tuple(move for move in state.transitions if move not in clock and move.guard.key == state.default_key)
    return counted or clock or state.transitions


def find_needed(state: State) -> int | None:
    """Return the count at which the state is left as planned; None if the plan counts nothing."""
    guards = (move.guard for move in list_planned(state))
    return next((guard.threshold for guard in guards if not guard.is_clock), None)


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


def list_failed_endings(chart: Chart) -> frozenset[str]:
    """Return the final states that planned transitions alone do not reach."""
    planned = set(_walk_plan(chart))
    return frozenset(name for name, state in chart.states.items() if state.is_final and name not in planned)


def _walk_plan(chart: Chart) -> Iterator[str]:
    seen, waiting = {chart.initial}, [chart.initial]
    while waiting:
        here = waiting.pop()
        yield here
        for item in list_planned(chart.states[here]):
            if item.target not in seen:
                seen.add(item.target)
                waiting.append(item.target)
