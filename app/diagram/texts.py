"""Draws a chart as text, for Graphviz (DOT) and Mermaid, and has the words that all pictures share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field

from app.core.chart import FAILED_KEY, Chart, Guard, State
from app.core.plan import find_needed, find_share, list_failed_endings


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a chart stands, as a picture shows it. `values` are the attributes of the current state.

    `passed` has the states that were left in this run. Each has the number of machines that reported on its first
    attribute in its latest visit, or None if no report had a machine id. `taken` are the moves of this run, each
    from one state to another. `expected` is how many machines take part in the current state, if that is looked up.
    """

    state: str
    values: Mapping[str, int] = field(default_factory=dict)
    is_paused: bool = False
    passed: Mapping[str, int | None] = field(default_factory=dict)
    taken: frozenset[tuple[str, str]] = frozenset()
    _: KW_ONLY
    expected: int | None = None


def say_guards(guards: Iterable[Guard]) -> str:
    """Return the conditions of several transitions between the same two states."""
    return " or ".join(guard.text for guard in guards)


def size_state(chart: Chart, name: str, snapshot: Snapshot | None) -> State:
    """Return a state; the current one with numbers in the place of percentages of a set that is looked up."""
    state = chart.states[name]
    if snapshot is None or name != snapshot.state or snapshot.expected is None:
        return state
    return state.sized(snapshot.expected)


def say_count(chart: Chart, name: str, snapshot: Snapshot | None) -> str:
    """Return the second line of a state's box: the count and the count needed, or what else moves the chart on."""
    state = size_state(chart, name, snapshot)
    if state.is_final:
        return ""
    if not state.is_counting:
        return "by the clock"
    key, needed = str(state.default_key), find_needed(state)
    if snapshot is not None and name == snapshot.state:
        failed = snapshot.values.get(FAILED_KEY, 0) if key != FAILED_KEY else 0
        count = snapshot.values.get(key, 0)
        return _of(count, needed) + (f" · {failed} failed" if failed else "")
    if snapshot is not None and name in snapshot.passed:
        passed = snapshot.passed[name]
        return "passed" if passed is None or needed is None else _of(passed, needed)
    goal = find_share(state) if needed is None else needed
    return "by the clock" if goal is None else _of(state.attributes[0].value, goal)


def _of(count: int, needed: int | str | None) -> str:
    return f"{count} reported" if needed is None else f"{count} / {needed}"


def shorten(text: str, limit: int) -> str:
    """Return `text`, cut to `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def draw_dot(chart: Chart, snapshot: Snapshot | None) -> str:
    """Return the chart in Graphviz's language.

    The current state is filled, endings have two rims, failed endings are octagons, and the clock's arrows are dashed.
    """
    failed = list_failed_endings(chart)
    lines = [f"digraph {_dot(chart.name)} {{", "  rankdir=LR;", '  node [shape=box, style="rounded"];']
    lines += ["  start [shape=point, width=0.15];", f"  start -> {_dot_id(chart.initial)};"]
    for name, state in chart.states.items():
        count = say_count(chart, name, snapshot)
        label = name + (f"\n{count}" if count else "")
        lines.append(f"  {_dot_id(name)} [label={_dot(label)}{_dot_shape(chart, name, snapshot, failed)}];")
        for item in state.transitions:
            dashed = ", style=dashed" if item.guard.is_clock else ""
            label = item.guard.text
            lines.append(f"  {_dot_id(name)} -> {_dot_id(item.target)} [label={_dot(label)}{dashed}];")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_shape(chart: Chart, name: str, snapshot: Snapshot | None, failed: frozenset[str]) -> str:
    shape = ""
    if chart.states[name].is_final:
        shape = ", peripheries=2" + (", shape=octagon" if name in failed else "")
    if snapshot is None or name != snapshot.state:
        return shape
    style = "rounded,dashed,bold" if snapshot.is_paused else "rounded,filled"
    return f'{shape}, style="{style}", fillcolor="#146c4a", fontcolor="{"black" if snapshot.is_paused else "white"}"'


def _dot_id(name: str) -> str:
    # "start" is the dot in front of the first state; a state of that name must not be mistaken for it.
    return _dot(f"state {name}")


def _dot(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def draw_mermaid(chart: Chart, snapshot: Snapshot | None) -> str:
    """Return the chart as a Mermaid state diagram; states are numbered, because Mermaid does not allow every name."""
    failed = list_failed_endings(chart)
    ids = {name: f"s{number}" for number, name in enumerate(chart.states, 1)}
    lines = ["stateDiagram-v2", "  direction LR"]
    for name, number in ids.items():
        count = say_count(chart, name, snapshot)
        label = name + (f" [{count}]" if count else "") + (" (failed ending)" if name in failed else "")
        lines.append(f'  state "{_mermaid(label)}" as {number}')
    lines.append(f"  [*] --> {ids[chart.initial]}")
    for name, state in chart.states.items():
        lines += [f"  {ids[name]} --> {ids[item.target]} : {_mermaid(item.guard.text)}" for item in state.transitions]
        if state.is_final:
            lines.append(f"  {ids[name]} --> [*]")
    if snapshot is not None:
        dash = ",stroke-dasharray:6 4" if snapshot.is_paused else ""
        lines += [f"  classDef current fill:#146c4a,color:#fff{dash}", f"  class {ids[snapshot.state]} current"]
    return "\n".join(lines) + "\n"


def _mermaid(text: str) -> str:
    return "".join(character if character not in '":;#<>' else f"#{ord(character)};" for character in text)
