"""Draws a chart as SVG, Graphviz DOT or Mermaid; an SVG of a large chart shows the states near the current one."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from app.core.chart import Chart
from app.diagram.ladder import NarrowPicture
from app.diagram.svg import LIGHT, Frame, Picture, Theme
from app.diagram.texts import Snapshot, draw_dot, draw_mermaid

# A state with more arrows than this is drawn, but its neighbours are not followed. Such a state, for instance one that
# every other state can abort to, is close to everything.
HUB = 12


def cut_window(chart: Chart, centre: str, size: int) -> Chart:
    """Return the part of a chart with the `size` states nearest to `centre`, without the transitions that leave it.

    Arrows are followed in both directions.
    """
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
    """Return where the picture starts: the initial state if it leads to `centre`, else the farthest state that does."""
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


# A chart of at most this size is drawn whole; of a larger one, an SVG shows WINDOW states around the current one.
MAX_STATES = 1500
MAX_ARROWS = 4000
WINDOW = 60


class Form(StrEnum):
    """The format of a picture."""

    SVG = "svg"
    DOT = "dot"
    MERMAID = "mermaid"


def draw(
    chart: Chart,
    snapshot: Snapshot | None = None,
    form: Form = Form.SVG,
    theme: Theme = LIGHT,
    max_states: int = MAX_STATES,
    link: Callable[[str], str] | None = None,
    *,
    is_narrow: bool = False,
) -> str:
    """Return a picture of a chart; `snapshot`, if given, tells which state to mark as current.

    DOT and Mermaid always show the whole chart. An SVG of a chart with more than `max_states` states, or with very
    many arrows, shows a part of it. There, a state that the run has been in links to what `link` returns for it.
    An SVG that `is_narrow` has all states below each other, for a phone.
    """
    if form is Form.DOT:
        return draw_dot(chart, snapshot)
    if form is Form.MERMAID:
        return draw_mermaid(chart, snapshot)
    picture = NarrowPicture if is_narrow else Picture
    if not is_large(chart, max_states):
        return picture(chart, snapshot, Frame(theme, link=link), chart).draw()
    centre = snapshot.state if snapshot is not None else chart.initial
    note = f"{len(chart.states)} states; shown are those around {centre}"
    return picture(cut_window(chart, centre, WINDOW), snapshot, Frame(theme, note, link), chart).draw()


def is_large(chart: Chart, max_states: int = MAX_STATES) -> bool:
    """Return whether an SVG shows only a part of the chart."""
    arrows = sum(len(state.transitions) for state in chart.states.values())
    return len(chart.states) > max_states or arrows > MAX_ARROWS
