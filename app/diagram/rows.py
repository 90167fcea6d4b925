"""Wraps a chart that is wider than a page into rows, as text is wrapped into lines.

Each row is laid out like a chart of its own. An arrow to a state of another row ends in a stub, a small box that names
the state; the planned arrow from the end of a row to the start of the next one is drawn through.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from app.core.chart import Chart, State
from app.diagram.layout import BOX_HEIGHT, MARGIN, Geometry, Layout, Line, Point, lay_out
from app.diagram.texts import say_guards, shorten

# A row is at most this wide: a page in a window of 1,280 px has room for it.
ROW_WIDTH = 1134.0
# Between two rows; the arrow from one to the next runs in the middle.
ROW_GAP = 40.0
LABEL_LIMIT = 44


@dataclass(frozen=True, slots=True)
class Row:
    """A row in pixels, its first state, and the states of other rows for which it has a stub."""

    geometry: Geometry
    first: str
    stubs: frozenset[str]


class Rows:
    """A chart in pixels, in one row or in several."""

    def __init__(self, chart: Chart, box_width: float) -> None:
        self.box_width = box_width
        self._rows = _wrap(chart, box_width)
        self._row_of = {
            name: number
            for number, row in enumerate(self._rows)
            for name in row.geometry.names
            if name not in row.stubs
        }
        # On the right, the arrow to the next row needs room to turn.
        self.width = max(row.geometry.width for row in self._rows) + (MARGIN if len(self._rows) > 1 else 0)
        self.height = self._rows[-1].geometry.height

    def box(self, name: str) -> Point:
        """Return the upper left corner of a state's box."""
        return self._rows[self._row_of[name]].geometry.box(name)

    def middle(self, name: str) -> float:
        """Return the height at which straight arrows meet a state's box."""
        return self.box(name)[1] + BOX_HEIGHT / 2

    def list_lines(self) -> Iterator[Line]:
        """Return every arrow with its corners and its label."""
        for number, row in enumerate(self._rows):
            for line in row.geometry.list_lines():
                yield self._lead_on(line, number) if self._is_led_on(line.arrow.target, number) else line

    def list_stubs(self) -> list[tuple[str, Point]]:
        """Return the stubs: the state that each one names, and the upper left corner of its box."""
        return [
            (name, row.geometry.box(name))
            for number, row in enumerate(self._rows)
            for name in sorted(row.stubs)
            if not self._is_led_on(name, number)
        ]

    def _is_led_on(self, target: str, number: int) -> bool:
        """Whether arrows of a row to `target` run on to the next row: the row's straight line leads there."""
        row, after = self._rows[number], self._rows[number + 1 : number + 2]
        return target in row.stubs and row.geometry.is_last(target) and any(one.first == target for one in after)

    def _lead_on(self, line: Line, number: int) -> Line:
        """Return the line on its way to the start of the next row, round the right edge and between the rows."""
        after = self._rows[number + 1].geometry
        left, middle = after.box(line.arrow.target)[0], after.middle(line.arrow.target)
        right, between = self.width - MARGIN, after.top - ROW_GAP / 2
        *before, (_, y) = line.corners
        turns = ((right, y), (right, between), (MARGIN + 2, between), (MARGIN + 2, middle), (left, middle))
        return replace(line, corners=(*before, *turns))


def _wrap(chart: Chart, box_width: float) -> list[Row]:
    """Lay out the chart in as few rows as have room."""
    layout = lay_out(chart)
    whole = _measure(layout, box_width, MARGIN)
    columns = max(place.column for place in layout.places.values()) + 1
    if whole.width <= ROW_WIDTH or columns == 1:
        return [Row(whole, chart.initial, frozenset())]
    # A row has a column more than its states, for its stubs.
    size = max(int(ROW_WIDTH / (whole.width / columns)) - 1, 1)
    rows = _build(chart, layout, box_width, size)
    while size > 1 and max(row.geometry.width for row in rows) > ROW_WIDTH - MARGIN:
        size -= 1
        rows = _build(chart, layout, box_width, size)
    return rows


def _build(chart: Chart, layout: Layout, box_width: float, size: int) -> list[Row]:
    """Return rows of `size` columns."""
    parts: dict[int, list[str]] = defaultdict(list)
    for name in chart.states:
        parts[layout.places[name].column // size].append(name)
    rows: list[Row] = []
    top = MARGIN
    for _, names in sorted(parts.items()):
        first = min(names, key=lambda name: (layout.places[name].lane != 0, layout.places[name].column))
        part, stubs = _cut(chart, names, first)
        geometry = _measure(lay_out(part), box_width, top)
        rows.append(Row(geometry, first, stubs))
        top = geometry.height - MARGIN + ROW_GAP
    return rows


def _cut(chart: Chart, names: list[str], first: str) -> tuple[Chart, frozenset[str]]:
    """Return the part of a chart with these states, and the other states that it leads to, which are endings in it."""
    states = {name: chart.states[name] for name in names}
    targets = {item.target: None for state in states.values() for item in state.transitions}
    stubs = [name for name in targets if name not in states]
    part = Chart(name=chart.name, initial=first, states={**states, **{name: State(name=name) for name in stubs}})
    return part, frozenset(stubs)


def _measure(layout: Layout, box_width: float, top: float) -> Geometry:
    labels = [shorten(say_guards(arrow.guards), LABEL_LIMIT) for arrow in layout.arrows]
    return Geometry(layout, labels, box_width, top)
