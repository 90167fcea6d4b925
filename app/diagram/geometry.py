"""A layout in pixels: where the boxes are, and the corners of every arrow."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from app.diagram.gaps import HEAD, TURN_STEP, Gap, measure_gaps
from app.diagram.layout import Arrow, Layout, Way

BOX_HEIGHT = 54.0
LANE_GAP = 36.0
MARGIN = 14.0
TRACK_STEP = 22.0
START_ROOM = 34.0
# How far from the middle an arrow comes in where a straight one is there already, and one from a track.
SIDE, LOW = 13.0, 16.0

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """An arrow's corners, and where its label is; `anchor` says of which end that is, as in SVG."""

    arrow: Arrow
    corners: tuple[Point, ...]
    label: str
    label_at: Point
    anchor: str


class Geometry:
    """Where everything of a layout is. `labels` are the arrows' texts, in the order of the layout's arrows."""

    def __init__(self, layout: Layout, labels: list[str], box_width: float) -> None:
        self.box_width = box_width
        self._layout = layout
        self._places = layout.places
        self._labels = labels
        self._gaps = measure_gaps(layout, labels)
        lanes = [place.lane for place in layout.places.values()]
        self._top_lane = min(lanes)
        self._lefts = self._find_lefts()
        self.bottom = MARGIN + (max(lanes) - self._top_lane + 1) * (BOX_HEIGHT + LANE_GAP) - LANE_GAP
        self.width = self._lefts[-1] + MARGIN
        self.height = self.bottom + (12 + layout.tracks * TRACK_STEP if layout.tracks else 0) + MARGIN
        self._straight_into = {arrow.target for arrow in layout.arrows if arrow.way is Way.STRAIGHT}
        self._starts = self._find_starts()

    def box(self, name: str) -> Point:
        """The upper left corner of a state's box."""
        place = self._places[name]
        return self._lefts[place.column], MARGIN + (place.lane - self._top_lane) * (BOX_HEIGHT + LANE_GAP)

    def middle(self, name: str) -> float:
        """The height at which straight arrows meet a state's box."""
        return self.box(name)[1] + BOX_HEIGHT / 2

    def list_lines(self) -> list[Line]:
        """Every arrow with its corners and label."""
        stacked: dict[Point, int] = defaultdict(int)
        return [self._line(number, arrow, stacked) for number, arrow in enumerate(self._layout.arrows)]

    def _find_lefts(self) -> list[float]:
        """The left edge of each column, and last the right edge of all."""
        columns = max(place.column for place in self._places.values()) + 1
        before = self._gaps.get(-1, Gap())
        lefts = [MARGIN + START_ROOM + TURN_STEP * len(before.entries)]
        for column in range(columns):
            gap = self._gaps.get(column)
            lefts.append(
                lefts[-1] + self.box_width + (gap.width if gap else 0 if column == columns - 1 else Gap().width)
            )
        return lefts

    def _find_starts(self) -> dict[int, float]:
        """How far from the middle each arrow that turns leaves its box; the farthest outermost."""
        sides: dict[tuple[str, int], list[int]] = defaultdict(list)
        for gap in self._gaps.values():
            for number in reversed(gap.turns):
                arrow = self._layout.arrows[number]
                sides[arrow.source, -1 if self._goes_up(arrow) else 1].append(number)
        starts: dict[int, float] = {}
        for (_, side), numbers in sides.items():
            step = min(9.0, (BOX_HEIGHT / 2 - 6) / len(numbers))
            starts |= {number: side * step * place for place, number in enumerate(numbers, 1)}
        return starts

    def _goes_up(self, arrow: Arrow) -> bool:
        return arrow.way is Way.LANE and self._places[arrow.target].lane < self._places[arrow.source].lane

    def _line(self, number: int, arrow: Arrow, stacked: dict[Point, int]) -> Line:
        column = self._places[arrow.source].column
        gap = self._gaps[column]
        right = self._lefts[column] + self.box_width
        start = (right, self.middle(arrow.source) + self._starts.get(number, 0.0))
        label = self._labels[number]
        if arrow.way is Way.STRAIGHT:
            centre = (right + gap.before_label + self._lefts[column + 1] - gap.after_label) / 2
            return Line(arrow, (start, (self._lefts[column + 1], start[1])), label, (centre, start[1] - 7), "middle")
        turn = right + TURN_STEP * (gap.turns.index(number) + 1)
        if arrow.way is Way.ROUND:
            return self._round_line(arrow, label, start, turn)
        return self._lane_line(arrow, label, start, turn, right + gap.before_label, stacked)

    def _lane_line(
        self, arrow: Arrow, label: str, start: Point, turn: float, room: float, stacked: dict[Point, int]
    ) -> Line:
        shift = 0.0
        if arrow.target in self._straight_into:
            shift = SIDE if self._goes_up(arrow) else -SIDE
        end = (self._lefts[self._places[arrow.target].column], self.middle(arrow.target) + shift)
        at = (room, end[1] + 14 if shift > 0 else end[1] - 7)
        label_at = (room, at[1] - 13 * stacked[at])
        stacked[at] += 1
        return Line(arrow, (start, (turn, start[1]), (turn, end[1]), end), label, label_at, "start")

    def _round_line(self, arrow: Arrow, label: str, start: Point, turn: float) -> Line:
        column = self._places[arrow.target].column
        end = (self._lefts[column], self.middle(arrow.target) + LOW)
        track = self.bottom + 24 + arrow.track * TRACK_STEP
        entry = end[0] - HEAD - 4 - TURN_STEP * (self._gaps[column - 1].entries.index(arrow.target) + 1)
        corners = (start, (turn, start[1]), (turn, track), (entry, track), (entry, end[1]), end)
        side, anchor = (-10, "end") if entry < turn else (10, "start")
        return Line(arrow, corners, label, (turn + side, track - 6), anchor)
