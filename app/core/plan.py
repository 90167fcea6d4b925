"""What a chart is meant to do: the planned transitions, the main path along them, and which endings are failures.

The rule, since a chart does not say it: the *planned* transitions of a state are those whose guard counts its first
attribute, the one a plain PUT updates; a state without such a guard plans its clock guards, and one without those
plans all it has. An ending that planned transitions alone lead to from the start is a good one; any other was
reached by a count of failures or by a deadline.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.core.chart import Chart, CountGuard, State, Transition


def is_clock(transition: Transition) -> bool:
    """True where the clock takes the transition."""
    return not isinstance(transition.guard, CountGuard)


def list_planned(state: State) -> tuple[Transition, ...]:
    """The transitions that a state is meant to end by."""
    counted = tuple(item for item in state.transitions if not is_clock(item) and item.guard.key == state.default_key)
    return counted or tuple(item for item in state.transitions if is_clock(item)) or state.transitions


def follow_plan(chart: Chart, start: str, taken: set[str]) -> list[str]:
    """The states from `start` along first planned transitions, up to an ending or to one in `taken`, which grows."""
    path: list[str] = []
    here: str | None = start
    while here is not None:
        path.append(here)
        taken.add(here)
        here = next((item.target for item in list_planned(chart.states[here]) if item.target not in taken), None)
    return path


def find_main_path(chart: Chart) -> list[str]:
    """The states a run passes when all goes as planned."""
    return follow_plan(chart, chart.initial, set())


def list_failed_endings(chart: Chart) -> frozenset[str]:
    """The final states that no sequence of planned transitions leads to."""
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
