"""A chart as Graphviz DOT and as Mermaid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from app.core.chart import Chart, ClockGuard, CountGuard, ElapsedGuard, Func, Guard, Op, State
from app.core.plan import is_clock, list_failed_endings, list_planned


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a chart stands; `values` are the current state's.

    `passed` names the states that were left in this run, each with how many machines reported on its first
    attribute in its latest visit, or None where nobody named himself.
    """

    state: str
    values: Mapping[str, int] = field(default_factory=dict)
    is_paused: bool = False
    passed: Mapping[str, int | None] = field(default_factory=dict)


_SIGNS = {Op.EQ: "=", Op.NE: "≠", Op.GE: "≥", Op.LE: "≤", Op.GT: ">", Op.LT: "<"}
# The attribute that counts failures: the name the charts, and the slots' `on_expire: fail`, give it.
FAILED = "failed"


def say_guard(guard: Guard) -> str:
    """The condition of a transition, short."""
    match guard:
        case CountGuard():
            percentage = f" ({guard.written})" if guard.written.endswith("%") else ""
            return f"{guard.key} {_SIGNS[guard.op]} {guard.threshold}{percentage}"
        case ElapsedGuard():
            return f"after {guard.written}"
        case ClockGuard():
            return f"at {guard.instant:%Y-%m-%d %H:%M} UTC"


def say_guards(guards: Iterable[Guard]) -> str:
    """The conditions of several transitions between the same two states."""
    return " or ".join(say_guard(guard) for guard in guards)


def find_needed(state: State) -> int | None:
    """The count at which the state is left as planned."""
    thresholds = (item.guard.threshold for item in list_planned(state) if isinstance(item.guard, CountGuard))
    return next(thresholds, None)


def say_count(chart: Chart, name: str, standing: Standing | None) -> str:
    """The second line of a state's box: counted and needed, or what else moves it on."""
    state = chart.states[name]
    if state.is_final:
        return ""
    if state.func is Func.TIME:
        return "by the clock"
    key, needed = str(state.default_key), find_needed(state)
    if standing is not None and name == standing.state:
        failed = standing.values.get(FAILED, 0) if key != FAILED else 0
        count = standing.values.get(key, 0)
        return _of(count, needed) + (f" · {failed} failed" if failed else "")
    if standing is not None and name in standing.passed:
        passed = standing.passed[name]
        return "passed" if passed is None or needed is None else _of(passed, needed)
    return "by the clock" if needed is None else _of(state.attributes[0].value, needed)


def _of(count: int, needed: int | None) -> str:
    return f"{count} reported" if needed is None else f"{count} / {needed}"


def shorten(text: str, limit: int) -> str:
    """`text`, cut to `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


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
