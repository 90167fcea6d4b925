"""Draws a chart as SVG, Graphviz DOT or Mermaid; an SVG of a large chart shows the states near the current one.

For a phone the states are drawn below each other, in one column. The main path comes first. The arrow from a state to
the one below it runs along the left edge. Every other arrow is short and ends at a line of text below its state, which
names where it leads and when.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from app.core.chart import Chart
from app.diagram.layout import BOX_HEIGHT, MARGIN, Arrow, Line, Point, lay_out
from app.diagram.svg import LIGHT, Frame, Picture, Placed, Theme, clean, tag
from app.diagram.texts import Snapshot, draw_dot, draw_mermaid, say_guards, shorten

# For a phone

# A phone of 360 px has room for this width.
WIDTH = 300.0
LEFT, RAIL = 40.0, 22.0
BOX_WIDTH = WIDTH - LEFT - 4
# Below a box: the room for a short arrow with one line of text, for a second line, and for the arrow to the next box.
EXIT, SECOND_LINE, NEXT, APART = 22.0, 15.0, 26.0, 20.0
# How far apart the short arrows of one state leave its box, and the most room that they take together.
STEP, MOST = 9.0, 40.0
# A line of text has at most so many characters.
TEXT_LIMIT, LABEL_LIMIT = 30, 40


@dataclass(frozen=True, slots=True)
class Exit:
    """A short arrow and its text: the state where it leads, and when; `at` is where the text begins."""

    arrow: Arrow
    at: Point

    @property
    def when(self) -> str:
        """The guards, as far as a line has room for them."""
        return shorten(say_guards(self.arrow.guards), TEXT_LIMIT)

    @property
    def is_long(self) -> bool:
        """Whether the guards need a line of their own."""
        return len(self.arrow.target) + len(self.when) + 1 > TEXT_LIMIT


class Ladder:
    """A chart in pixels, in one column."""

    def __init__(self, chart: Chart) -> None:
        self.box_width, self.width = BOX_WIDTH, WIDTH
        layout = lay_out(chart)
        places = layout.places
        self._order = sorted(places, key=lambda name: (abs(places[name].lane), places[name].lane, places[name].column))
        self._below = dict(zip(self._order, self._order[1:], strict=False))
        self._arrows: dict[str, list[Arrow]] = defaultdict(list)
        for arrow in layout.arrows:
            self._arrows[arrow.source].append(arrow)
        self._tops: dict[str, float] = {}
        self._exits: dict[str, list[Exit]] = {}
        y = MARGIN
        for name in self._order:
            self._tops[name] = y
            y = self._put_exits(name, y + BOX_HEIGHT)
        self.height = y - APART + MARGIN

    def box(self, name: str) -> Point:
        """Return the upper left corner of a state's box."""
        return LEFT, self._tops[name]

    def middle(self, name: str) -> float:
        """Return the height at which arrows meet a state's box."""
        return self._tops[name] + BOX_HEIGHT / 2

    def list_exits(self) -> Iterator[Exit]:
        """Return every arrow that does not lead to the state below its own, with the place of its text."""
        for exits in self._exits.values():
            yield from exits

    def list_lines(self) -> Iterator[Line]:
        """Return every arrow with its corners; the arrow to the state below has a label."""
        for name in self._order:
            for arrow in self._arrows[name]:
                if arrow.target == self._below.get(name):
                    yield self._lead_down(arrow)
            yield from self._leave(name)

    def _put_exits(self, name: str, bottom: float) -> float:
        """Place the texts below a state's box, and return where the next box begins."""
        others = [arrow for arrow in self._arrows[name] if arrow.target != self._below.get(name)]
        text_at = LEFT + 14 + self._step(len(others)) * len(others) + 14
        exits, y = [], bottom + 4
        for arrow in others:
            one = Exit(arrow, (text_at, y + EXIT / 2))
            exits.append(one)
            y += EXIT + (SECOND_LINE if one.is_long else 0)
        self._exits[name] = exits
        leads_down = len(others) < len(self._arrows[name])
        return (y if others else bottom) + (NEXT if leads_down else APART)

    def _step(self, count: int) -> float:
        return min(STEP, MOST / max(count, 1))

    def _lead_down(self, arrow: Arrow) -> Line:
        start, end = self.middle(arrow.source) + 13, self.middle(arrow.target)
        corners = ((LEFT, start), (RAIL, start), (RAIL, end), (LEFT, end))
        label_at = (LEFT + 4, self._tops[arrow.target] - 9)
        label = shorten(say_guards(arrow.guards), LABEL_LIMIT)
        return Line(arrow=arrow, corners=corners, label=label, label_at=label_at, anchor="start")

    def _leave(self, name: str) -> Iterator[Line]:
        """The lowest of the short arrows leaves the box leftmost, so that none crosses another."""
        exits, bottom = self._exits[name], self._tops[name] + BOX_HEIGHT
        for number, one in enumerate(exits):
            x, (tip, y) = LEFT + 14 + self._step(len(exits)) * (len(exits) - 1 - number), one.at
            corners = ((x, bottom), (x, y), (tip - 4, y))
            yield Line(arrow=one.arrow, corners=corners, label="", label_at=(tip, y), anchor="start")


class NarrowPicture(Picture):
    """The picture of a chart in one column."""

    def lay_out(self) -> Placed:
        """Return the chart in pixels: here in one column."""
        self.ladder = Ladder(self.chart)
        return self.ladder

    def draw_stubs(self) -> str:
        """Return the texts at the ends of the short arrows."""
        return "".join(self._draw_exit(one) for one in self.ladder.list_exits())

    def _draw_exit(self, one: Exit) -> str:
        (x, y), target = one.at, one.arrow.target
        is_bad = target in self.failed
        look = {"class_": "d-bad" if is_bad else "d-name", "fill": self.theme.failed if is_bad else self.theme.ink}
        name = tag("tspan", clean(shorten(target, TEXT_LIMIT)), font_weight=600, **look)
        place = {"x": x, "dy": SECOND_LINE} if one.is_long else {}
        when = tag("tspan", clean(one.when), class_="d-count", fill=self.theme.quiet, **place)
        between = "" if one.is_long else " "
        title = tag("title", clean(f"{target}: {say_guards(one.arrow.guards)}"))
        text = tag("text", title + name + between + when, x=x, y=y + 4, text_anchor="start")
        is_linked = self.link is not None and self.kind_of(self.chart.states[target]) != "ahead"
        return tag("a", text, href=self.link(target)) if is_linked and self.link is not None else text


# The part of a large chart around its current state

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


# All forms

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
