"""Where states and arrows go: columns from left to right, the main path straight on lane 0.

A state off the main path gets the first free lane below it, or above where only the clock leads there; the arrows
that come in share one line along that lane. Arrows that go back, or have something in their way, run along tracks
below everything, one track for each state they lead to.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import Enum

from app.core.chart import Chart, Guard
from app.diagram.plan import find_main_path, follow_plan, is_clock


class Way(Enum):
    """How an arrow gets to its target."""

    STRAIGHT = "to the next column on the same lane"
    LANE = "down or up to the target's lane, then along it"
    ROUND = "along a track below everything"


@dataclass(frozen=True, slots=True)
class Place:
    """A state's column and lane; lanes count downwards, the main path is lane 0."""

    column: int
    lane: int


@dataclass(frozen=True, slots=True)
class Arrow:
    """All transitions between two states, drawn as one; `track` numbers the lines below everything."""

    source: str
    target: str
    guards: tuple[Guard, ...]
    is_clock: bool
    way: Way
    track: int = 0


@dataclass(slots=True)
class Layout:
    """A chart laid out."""

    places: dict[str, Place]
    arrows: list[Arrow]
    tracks: int


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The columns of a lane that a path of states, and the line that leads to its head, take up."""

    first: int
    last: int
    head: str


@dataclass(slots=True)
class _Placing:
    chart: Chart
    places: dict[str, Place] = field(default_factory=dict)
    lanes: dict[int, list[_Stretch]] = field(default_factory=lambda: defaultdict(list))
    taken: set[str] = field(default_factory=set)
    sources: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    clocked: set[str] = field(default_factory=set)

    def run(self) -> None:
        counted = set()
        for name, state in self.chart.states.items():
            for item in state.transitions:
                self.sources[item.target].append(name)
                if not is_clock(item):
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
        # In a part of a chart there may be states that its first one does not lead to.
        for name in self.chart.states:
            if name not in self.taken:
                self.put_path(name)

    def put_path(self, head: str) -> list[str]:
        columns = [self.places[name].column for name in self.sources[head] if name in self.places] or [-1]
        path = follow_plan(self.chart, head, self.taken)
        first, column = min(columns) + 1, max(columns) + 1
        self.put(path, column, self.find_lane(first, column + len(path) - 1, head), first)
        return path

    def put(self, path: list[str], column: int, lane: int, first: int) -> None:
        for offset, name in enumerate(path):
            self.places[name] = Place(column + offset, lane)
        self.lanes[lane].append(_Stretch(first, column + len(path) - 1, path[0]))

    def find_lane(self, first: int, last: int, head: str) -> int:
        step = -1 if head in self.clocked else 1
        lane = step
        while any(taken.first <= last and first <= taken.last for taken in self.lanes[lane]):
            lane += step
        return lane

    def find_way(self, source: str, target: str) -> Way:
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
    """Give every state a place and every pair of states one arrow."""
    placing = _Placing(chart)
    placing.run()
    arrows = []
    for name, state in chart.states.items():
        grouped: dict[str, list[Guard]] = defaultdict(list)
        counted = {item.target for item in state.transitions if not is_clock(item)}
        for item in state.transitions:
            grouped[item.target].append(item.guard)
        for target, guards in grouped.items():
            way = placing.find_way(name, target)
            arrows.append(Arrow(name, target, tuple(guards), target not in counted, way))
    tracks = _find_tracks(placing.places, arrows)
    placed = [
        Arrow(item.source, item.target, item.guards, item.is_clock, item.way, tracks.get(item.target, 0))
        for item in arrows
    ]
    return Layout(placing.places, placed, max(tracks.values(), default=-1) + 1)


def _find_tracks(places: dict[str, Place], arrows: list[Arrow]) -> dict[str, int]:
    """Give each target of arrows that go round a track; the shortest run nearest to the states."""
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
