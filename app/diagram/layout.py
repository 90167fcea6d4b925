"""Lays a chart out: first in columns and lanes, then the gaps between the columns, then everything in pixels.

The main path runs along lane 0. Failures are placed below it and deadlines above it, and arrows that go back run along
tracks below everything.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise
from math import inf

from app.core.chart import Chart, Guard
from app.core.plan import find_main_path, follow_plan


class Way(Enum):
    """How an arrow runs to its target."""

    STRAIGHT = "to the next column on the same lane"
    LANE = "down or up to the target's lane, then along it"
    ROUND = "along a track below everything"


@dataclass(frozen=True, slots=True)
class Place:
    """A state's column and lane; lanes count downwards, the main path is lane 0."""

    column: int
    lane: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """All transitions from one state to another, drawn as one arrow; `track` numbers the tracks below everything."""

    source: str
    target: str
    guards: tuple[Guard, ...]
    is_clock: bool
    way: Way
    track: int = 0


@dataclass(slots=True)
class Layout:
    """Where each state is, the arrows between them, and the number of tracks."""

    places: dict[str, Place]
    arrows: list[Arrow]
    tracks: int


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The columns of a lane that are taken by a path of states and by the arrow that leads to its first state."""

    first: int
    last: int
    head: str


@dataclass(slots=True, kw_only=True)
class _Placing:
    """The states of a chart while they are being given columns and lanes.

    `taken` are the states on a path already, `sources` has the states that lead to each state, and `clocked` are the
    states to which only the clock leads.
    """

    chart: Chart
    places: dict[str, Place] = field(default_factory=dict)
    lanes: dict[int, list[_Stretch]] = field(default_factory=lambda: defaultdict(list))
    taken: set[str] = field(default_factory=set)
    sources: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    clocked: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Place the main path, then the paths that branch off, nearest first."""
        counted = set()
        for name, state in self.chart.states.items():
            for item in state.transitions:
                self.sources[item.target].append(name)
                if not item.guard.is_clock:
                    counted.add(item.target)
        self.clocked = set(self.chart.states) - counted
        main = find_main_path(self.chart)
        self.taken.update(main)
        self.put(main, 0, 0, 0)
        waiting = deque(main)
        while waiting:
            for item in self.chart.states[waiting.popleft()].transitions:
                if item.target not in self.taken:
                    waiting.extend(self.put_path(item.target))
        # In a part of a chart there may be states that cannot be reached from its first one.
        for name in self.chart.states:
            if name not in self.taken:
                self.put_path(name)

    def put_path(self, head: str) -> list[str]:
        """Place the planned path that begins at `head`; return its states."""
        columns = [self.places[name].column for name in self.sources[head] if name in self.places] or [-1]
        path = follow_plan(self.chart, head, self.taken)
        first, column = min(columns) + 1, max(columns) + 1
        self.put(path, column, self.find_lane(first, column + len(path) - 1, head), first)
        return path

    def put(self, path: list[str], column: int, lane: int, first: int) -> None:
        """Place the states of `path` side by side on a lane, and take the lane from column `first` on."""
        for offset, name in enumerate(path):
            self.places[name] = Place(column + offset, lane)
        self.lanes[lane].append(_Stretch(first, column + len(path) - 1, path[0]))

    def find_lane(self, first: int, last: int, head: str) -> int:
        """Return the nearest free lane: above the main path if only the clock leads to `head`, else below it."""
        step = -1 if head in self.clocked else 1
        lane = step
        while any(taken.first <= last and first <= taken.last for taken in self.lanes[lane]):
            lane += step
        return lane

    def find_way(self, source: str, target: str) -> Way:
        """Return how an arrow runs between two states that have been placed."""
        here, there = self.places[source], self.places[target]
        if there.column == here.column + 1:
            return Way.STRAIGHT if there.lane == here.lane else Way.LANE
        if there.column <= here.column or there.lane == here.lane:
            return Way.ROUND
        first, last = here.column + 1, there.column - 1
        blocked = any(
            taken.head != target and taken.first <= last and first <= taken.last for taken in self.lanes[there.lane]
        )
        return Way.ROUND if blocked else Way.LANE


def lay_out(chart: Chart) -> Layout:
    """Give each state a place, and each pair of states with a transition one arrow."""
    placing = _Placing(chart=chart)
    placing.run()
    arrows = []
    for name, state in chart.states.items():
        grouped: dict[str, list[Guard]] = defaultdict(list)
        counted = {item.target for item in state.transitions if not item.guard.is_clock}
        for item in state.transitions:
            grouped[item.target].append(item.guard)
        for target, guards in grouped.items():
            way = placing.find_way(name, target)
            arrows.append(
                Arrow(source=name, target=target, guards=tuple(guards), is_clock=target not in counted, way=way)
            )
    tracks = _find_tracks(placing.places, arrows)
    placed = [
        Arrow(
            source=item.source,
            target=item.target,
            guards=item.guards,
            is_clock=item.is_clock,
            way=item.way,
            track=tracks.get(item.target, 0),
        )
        for item in arrows
    ]
    return Layout(placing.places, placed, max(tracks.values(), default=-1) + 1)


def _find_tracks(places: dict[str, Place], arrows: list[Arrow]) -> dict[str, int]:
    """Give a track to each target of arrows that go round; the shortest arrows run nearest to the states."""
    spans: dict[str, tuple[int, int]] = {}
    for item in arrows:
        if item.way is Way.ROUND:
            ends = (places[item.source].column, places[item.target].column - 1)
            first, last = spans.get(item.target, (min(ends), max(ends)))
            spans[item.target] = (min(first, *ends), max(last, *ends))
    tracks: dict[str, int] = {}
    taken: list[list[tuple[int, int]]] = []
    for target, (first, last) in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):
        track = next(
            (number for number, row in enumerate(taken) if all(last < left or right < first for left, right in row)),
            len(taken),
        )
        if track == len(taken):
            taken.append([])
        taken[track].append((first, last))
        tracks[target] = track
    return tracks


TURN_STEP = 10.0
HEAD = 9.0
MIN_WIDTH = 46.0
# Pixels for one character of a label; system fonts are at most about this wide.
LABEL_EM = 6.3


@dataclass(slots=True)
class Gap:
    """The gap to the right of a column: which arrows turn in it, and to which targets a track leads up in it."""

    turns: list[int] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)
    label: float = 0.0

    @property
    def before_label(self) -> float:
        """The room to the left of the labels, in pixels."""
        return TURN_STEP * (len(self.turns) + 1) + 5 if self.turns else 8.0

    @property
    def after_label(self) -> float:
        """The room to the right of the labels, in pixels."""
        return HEAD + 8 + TURN_STEP * len(self.entries)

    @property
    def width(self) -> float:
        """The width of the gap, in pixels."""
        return max(MIN_WIDTH, self.before_label + self.label + self.after_label)


def measure_gaps(layout: Layout, labels: list[str]) -> dict[int, Gap]:
    """Return the gaps of a layout by the column to their left; the gap before the first column is number -1."""
    gaps: dict[int, Gap] = defaultdict(Gap)
    for number, arrow in enumerate(layout.arrows):
        gap = gaps[layout.places[arrow.source].column]
        if arrow.way is not Way.STRAIGHT:
            gap.turns.append(number)
        if arrow.way is Way.ROUND:
            entered = gaps[layout.places[arrow.target].column - 1]
            if arrow.target not in entered.entries:
                entered.entries.append(arrow.target)
        else:
            gap.label = max(gap.label, len(labels[number]) * LABEL_EM)
    for gap in gaps.values():
        # The arrow that goes farthest turns first, so that no other arrow crosses it where they start.
        gap.turns.sort(key=lambda number: -_distance(layout, layout.arrows[number]))
    return gaps


def _distance(layout: Layout, arrow: Arrow) -> int:
    if arrow.way is Way.ROUND:
        return 1_000_000 + arrow.track
    return abs(layout.places[arrow.target].lane - layout.places[arrow.source].lane)


BOX_HEIGHT = 54.0
LANE_GAP = 36.0
MARGIN = 14.0
TRACK_STEP = 22.0
START_ROOM = 34.0
# How far from the middle of a box an arrow ends: if a straight arrow ends there too, and if it comes from a track.
SIDE, LOW = 13.0, 16.0
# The radius of a line's turns.
BEND = 7.0
# Between the clock's line into a state and that of a count, which is not dashed.
APART = 8.0
Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An arrow in pixels: its corners and its label; `anchor` is which end of the label is at `label_at`.

    Arrows that share a way are drawn on top of each other only once: of all but the last to turn into it, `drawn` has
    the corners up to the point at which the line meets the next one.
    """

    arrow: Arrow
    corners: tuple[Point, ...]
    label: str
    label_at: Point
    anchor: str
    drawn: tuple[Point, ...] | None = None


class Geometry:
    """A layout in pixels, from the height `top` downwards.

    `labels` are the arrows' texts, in the order of the layout's arrows.
    """

    def __init__(self, layout: Layout, labels: list[str], box_width: float, top: float = MARGIN) -> None:
        self.box_width = box_width
        self.top = top
        self._layout = layout
        self._places = layout.places
        self._labels = labels
        self._gaps = measure_gaps(layout, labels)
        lanes = [place.lane for place in layout.places.values()]
        self._top_lane = min(lanes)
        self._lefts = self._find_lefts()
        self.bottom = top + (max(lanes) - self._top_lane + 1) * (BOX_HEIGHT + LANE_GAP) - LANE_GAP
        self.width = self._lefts[-1] + MARGIN
        self.height = self.bottom + (12 + layout.tracks * TRACK_STEP if layout.tracks else 0) + MARGIN
        self._mixed = _list_mixed(layout.arrows)
        self._straight_into = {arrow.target for arrow in layout.arrows if arrow.way is Way.STRAIGHT}
        self._starts = self._find_starts()

    @property
    def names(self) -> Collection[str]:
        """The states."""
        return self._places.keys()

    def is_last(self, name: str) -> bool:
        """Return whether a state ends the main path, with nothing to its right."""
        place = self._places[name]
        return place.lane == 0 and place.column == len(self._lefts) - 2

    def box(self, name: str) -> Point:
        """Return the upper left corner of a state's box."""
        place = self._places[name]
        return self._lefts[place.column], self.top + (place.lane - self._top_lane) * (BOX_HEIGHT + LANE_GAP)

    def middle(self, name: str) -> float:
        """Return the height at which straight arrows meet a state's box."""
        return self.box(name)[1] + BOX_HEIGHT / 2

    def list_lines(self) -> list[Line]:
        """Return every arrow with its corners and its label."""
        stacked: dict[Point, int] = defaultdict(int)
        lines = [self._line(number, arrow, stacked) for number, arrow in enumerate(self._layout.arrows)]
        return join_lines(lines)

    def _find_lefts(self) -> list[float]:
        """Return the left edge of each column, followed by the right edge of the last one."""
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
        """Return how far from the middle of its box each turning arrow starts; the longest is outermost."""
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
            end = (self._lefts[column + 1], start[1])
            at = (centre, start[1] - 7)
            return Line(arrow=arrow, corners=(start, end), label=label, label_at=at, anchor="middle")
        turn = right + TURN_STEP * (gap.turns.index(number) + 1)
        if arrow.way is Way.ROUND:
            return self._round_line(arrow, label, start, turn)
        return self._lane_line(arrow, label, start=start, turn=turn, room=right + gap.before_label, stacked=stacked)

    def _lane_line(
        self, arrow: Arrow, label: str, start: Point, turn: float, room: float, stacked: dict[Point, int]
    ) -> Line:
        shift = 0.0
        if arrow.target in self._straight_into:
            shift = SIDE if self._goes_up(arrow) else -SIDE
        if arrow.is_clock and (arrow.target, arrow.way) in self._mixed:
            shift += APART if shift > 0 else -APART
        end = (self._lefts[self._places[arrow.target].column], self.middle(arrow.target) + shift)
        at = (room, end[1] + 14 if shift > 0 else end[1] - 7)
        label_at = (room, at[1] - 13 * stacked[at])
        stacked[at] += 1
        corners = (start, (turn, start[1]), (turn, end[1]), end)
        return Line(arrow=arrow, corners=corners, label=label, label_at=label_at, anchor="start")

    def _round_line(self, arrow: Arrow, label: str, start: Point, turn: float) -> Line:
        column = self._places[arrow.target].column
        apart = APART - 2 if arrow.is_clock and (arrow.target, arrow.way) in self._mixed else 0.0
        end = (self._lefts[column], self.middle(arrow.target) + LOW + apart)
        track = self.bottom + 24 + arrow.track * TRACK_STEP + apart
        entry = end[0] - HEAD - 4 - TURN_STEP * (self._gaps[column - 1].entries.index(arrow.target) + 1)
        corners = (start, (turn, start[1]), (turn, track), (entry, track), (entry, end[1]), end)
        side, anchor = (-10, "end") if entry < turn else (10, "start")
        return Line(arrow=arrow, corners=corners, label=label, label_at=(turn + side, track - 6), anchor=anchor)


def _list_mixed(arrows: list[Arrow]) -> set[tuple[str, Way]]:
    """Return the targets into which both the clock's arrows and others run on the same way."""
    kinds: dict[tuple[str, Way], set[bool]] = defaultdict(set)
    for arrow in arrows:
        if arrow.way is not Way.STRAIGHT:
            kinds[arrow.target, arrow.way].add(arrow.is_clock)
    return {way for way, found in kinds.items() if len(found) == 2}


def join_lines(lines: list[Line]) -> list[Line]:
    """Let each line that shares a lane or a track end where it meets the next one.

    Drawn on top of each other, dashes of several lines would fill each other's gaps.
    """
    shared: dict[tuple[str, bool, Way, float], list[tuple[float, int]]] = defaultdict(list)
    for number, line in enumerate(lines):
        if line.arrow.way is not Way.STRAIGHT:
            key = (line.arrow.target, line.arrow.is_clock, line.arrow.way, line.corners[2][1])
            shared[key].append((line.corners[1][0], number))
    found = list(lines)
    for members in shared.values():
        # A lane is entered from the left; a track from both sides, and is left where it leads up.
        entry = lines[members[0][1]].corners[-2][0] if lines[members[0][1]].arrow.way is Way.ROUND else inf
        for is_left in (True, False):
            side = sorted((one for one in members if (one[0] < entry) is is_left), reverse=not is_left)
            for (_, number), (turn, _) in pairwise(side):
                line = lines[number]
                # The line that it meets is round where it turns.
                end = turn + (BEND if is_left else -BEND)
                found[number] = replace(line, drawn=(*line.corners[:3], (end, line.corners[2][1])))
    return found
