"""A chart as Graphviz DOT and as Mermaid."""

from __future__ import annotations

from app.core.chart import Chart
from app.diagram.plan import is_clock, list_failed_endings
from app.diagram.standing import Standing
from app.diagram.words import say_count, say_guard


def draw_dot(chart: Chart, standing: Standing | None) -> str:
    """Graphviz: the current state filled, endings with two rims, failed ones octagons, the clock's arrows dashed."""
    failed = list_failed_endings(chart)
    lines = [f"digraph {_dot(chart.name)} {{", "  rankdir=LR;", '  node [shape=box, style="rounded"];']
    lines += ["  start [shape=point, width=0.15];", f"  start -> {_dot_id(chart.initial)};"]
    for name, state in chart.states.items():
        count = say_count(chart, name, standing)
        label = name + (f"\n{count}" if count else "")
        lines.append(f"  {_dot_id(name)} [label={_dot(label)}{_dot_shape(chart, name, standing, failed)}];")
        for item in state.transitions:
            dashed = ", style=dashed" if is_clock(item) else ""
            label = say_guard(item.guard)
            lines.append(f"  {_dot_id(name)} -> {_dot_id(item.target)} [label={_dot(label)}{dashed}];")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_shape(chart: Chart, name: str, standing: Standing | None, failed: frozenset[str]) -> str:
    shape = ""
    if chart.states[name].is_final:
        shape = ", peripheries=2" + (", shape=octagon" if name in failed else "")
    if standing is None or name != standing.state:
        return shape
    style = "rounded,dashed,bold" if standing.is_paused else "rounded,filled"
    return f'{shape}, style="{style}", fillcolor="#146c4a", fontcolor="{"black" if standing.is_paused else "white"}"'


def _dot_id(name: str) -> str:
    # "start" is the dot in front of the first state: a state's own name is never taken for it.
    return _dot(f"state {name}")


def _dot(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def draw_mermaid(chart: Chart, standing: Standing | None) -> str:
    """Mermaid's state diagram: states by number, since not every name may stand there."""
    failed = list_failed_endings(chart)
    ids = {name: f"s{number}" for number, name in enumerate(chart.states, 1)}
    lines = ["stateDiagram-v2", "  direction LR"]
    for name, number in ids.items():
        count = say_count(chart, name, standing)
        label = name + (f" [{count}]" if count else "") + (" (failed ending)" if name in failed else "")
        lines.append(f'  state "{_mermaid(label)}" as {number}')
    lines.append(f"  [*] --> {ids[chart.initial]}")
    for name, state in chart.states.items():
        lines += [
            f"  {ids[name]} --> {ids[item.target]} : {_mermaid(say_guard(item.guard))}" for item in state.transitions
        ]
        if state.is_final:
            lines.append(f"  {ids[name]} --> [*]")
    if standing is not None:
        dash = ",stroke-dasharray:6 4" if standing.is_paused else ""
        lines += [f"  classDef current fill:#146c4a,color:#fff{dash}", f"  class {ids[standing.state]} current"]
    return "\n".join(lines) + "\n"


def _mermaid(text: str) -> str:
    return "".join(character if character not in '":;#<>' else f"#{ord(character)};" for character in text)
