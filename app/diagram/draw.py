"""One chart, one picture, in the form that is asked for."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import replace
from enum import StrEnum

from app.core.chart import Chart
from app.diagram.svg import LIGHT, Theme, draw_svg
from app.diagram.texts import Snapshot, draw_dot, draw_mermaid

# A state with more arrows than this, such as the one that every other aborts to, is shown but not looked behind:
# it is near to everything.
HUB = 12


def cut_window(chart: Chart, centre: str, size: int) -> Chart:
    """The `size` states nearest to `centre`, arrows counted either way; transitions that lead out are left out."""
    near = _list_near(chart, centre, size)
    states = {
        name: replace(state, transitions=tuple(item for item in state.transitions if item.target in near))
        for name, state in chart.states.items()
        if name in near
    }
    return Chart(
        name=chart.name,
        initial=_find_first(chart, near, centre),
        states=states,
        description=chart.description,
        expect=chart.expect,
    )


def _list_near(chart: Chart, centre: str, size: int) -> dict[str, int]:
    around: dict[str, list[str]] = defaultdict(list)
    for name, state in chart.states.items():
        for item in state.transitions:
            around[name].append(item.target)
            around[item.target].append(name)
    near, waiting = {centre: 0}, deque([centre])
    while waiting:
        here = waiting.popleft()
        for name in around[here] if here == centre or len(around[here]) <= HUB else ():
            if len(near) == size:
                return near
            if name not in near:
                near[name] = near[here] + 1
                waiting.append(name)
    return near


def _find_first(chart: Chart, near: dict[str, int], centre: str) -> str:
    """The state that the picture starts with: the chart's own start, else the farthest one that leads to `centre`."""
    sources: dict[str, list[str]] = defaultdict(list)
    for name in near:
        for item in chart.states[name].transitions:
            sources[item.target].append(name)
    first, seen, waiting = centre, {centre}, deque([centre])
    while waiting:
        first = waiting.popleft()
        for name in sources[first] if len(sources[first]) <= HUB else ():
            if name not in seen:
                seen.add(name)
                waiting.append(name)
    return chart.initial if chart.initial in seen else first


# What is drawn whole; of a larger chart an SVG shows the states around the current one.
MAX_STATES = 1500
MAX_ARROWS = 4000
WINDOW = 60


class Form(StrEnum):
    """The forms of a picture."""

    SVG = "svg"
    DOT = "dot"
    MERMAID = "mermaid"


def draw(
    chart: Chart,
    snapshot: Snapshot | None = None,
    form: Form = Form.SVG,
    theme: Theme = LIGHT,
    max_states: int = MAX_STATES,
) -> str:
    """The picture of a chart, with the state in which it stands marked. DOT and Mermaid always have all of it."""
    if form is Form.DOT:
        return draw_dot(chart, snapshot)
    if form is Form.MERMAID:
        return draw_mermaid(chart, snapshot)
    if not is_large(chart, max_states):
        return draw_svg(chart, snapshot, theme)
    centre = snapshot.state if snapshot is not None else chart.initial
    note = f"{len(chart.states)} states; shown are those around {centre}"
    return draw_svg(cut_window(chart, centre, WINDOW), snapshot, theme, chart, note)


def is_large(chart: Chart, max_states: int = MAX_STATES) -> bool:
    """True for a chart of which an SVG shows a part only."""
    arrows = sum(len(state.transitions) for state in chart.states.values())
    return len(chart.states) > max_states or arrows > MAX_ARROWS
