"""The counts that a state can have, and how many machines can be down when it is left: the heart of `chart prove`.

Machines are alike, so where a visit stands is said by counts: how many machines' reports stand on each attribute, and
how many machines hold a slot. Each guard reads one attribute, and the visit ends with the first report after which a
guard holds. So, as long as the visit lasts, every attribute's count stays in an interval of its own (`Track`), and all
combinations of the intervals are reached as far as there are machines. The visit is left where one count passes the
end of its interval (`Exit`). A maximum over so many combinations lies at a corner, or where a stage of the slots
begins or ends; so 5,000 machines cost no more than 5.

Time is not modelled: a transition by the clock may be taken at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from app.core.chart import FAILED_KEY, CountGuard, SlotRule, State, compare
from app.core.errors import StateServiceError

# Stands for "any number of machines" if nothing limits how many come.
UNLIMITED = 10**12
# How many combinations of counts are looked at before a proof is given up.
BUDGET = 500_000


class TooManyCountsError(StateServiceError):
    """The chart has so many states, stages and guards that the proof was given up."""


class Budget:
    """How many combinations of counts may still be looked at."""

    def __init__(self, left: int = BUDGET) -> None:
        self.left = self.most = left

    def spend(self, number: int = 1) -> None:
        """Take `number` away. Raises TooManyCountsError once nothing is left."""
        self.left -= number
        if self.left < 0:
            raise TooManyCountsError(f"not proved: over {self.most} combinations of counts")


@dataclass(frozen=True, slots=True)
class Track:
    """The counts of one attribute during a visit: from `low` to `high`, with no guard that holds.

    At `high` + 1 the transition number `up` is taken; None if no report leads out. `high` is then as many as come.
    """

    key: str
    low: int
    high: int
    up: int | None


@dataclass(frozen=True, slots=True)
class Exit:
    """One way in which a report ends a visit: the report on `key`, by a machine whose report stood on `moved_from`.

    `exact` are the counts that are fixed just before it. `move` is the number of the transition that it takes.
    """

    move: int
    key: str
    tracks: tuple[Track, ...]
    moved_from: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The most machines of one measure when a visit is left, and the counts just before that lead to it.

    `counts` are the machines whose reports stand on each attribute. `held` is how many slots are held, of which
    `leftover_from` tells: the count of the first attribute at which they were claimed. `exit` is None if the clock
    ends the visit.
    """

    value: int
    counts: dict[str, int]
    held: int
    leftover_from: int
    move: int
    exit: Exit | None

    @property
    def size(self) -> tuple[int, int]:
        """How long its story is: the reports, and the slots that are held at the end."""
        return sum(self.counts.values()), self.held


class Counts:
    """What the counts of a visit of one counting state can be if `machines` take part."""

    def __init__(self, state: State, machines: int, budget: Budget | None = None) -> None:
        self.state = state
        self.machines = machines
        self.budget = Budget() if budget is None else budget
        self.keys = [attribute.key for attribute in state.attributes]
        self._step = 0 if state.func is None or not state.is_counting else state.func.apply("", 0)
        # What an exported chart says was reported before counts as reported in this visit.
        before = {key: len(names) for key, names in state.reported}
        self._start = {
            attribute.key: attribute.value - self._step * before.get(attribute.key, 0) for attribute in state.attributes
        }
        self._guards: dict[str, list[tuple[int, CountGuard]]] = {key: [] for key in self.keys}
        for number, transition in enumerate(state.transitions):
            if isinstance(transition.guard, CountGuard):
                self._guards[transition.guard.key].append((number, transition.guard))
        self._holding = [key for key in self.keys if self.find_move(key, 0) is not None]
        self._tracks = self._find_tracks()
        self.exits = tuple(self._list_exits())

    def value_at(self, key: str, count: int) -> int:
        """Return the value of attribute `key` once `count` reports stand on it."""
        return self._start[key] + self._step * count

    def find_move(self, key: str, count: int) -> int | None:
        """Return the first transition whose guard holds if `count` reports stand on `key`; None if no guard does."""
        value = self.value_at(key, count)
        for number, guard in self._guards[key]:
            if compare(guard.op, value, guard.threshold):
                return number
        return None

    def _find_end(self, key: str, low: int) -> tuple[int, int | None]:
        """Return the last count from `low` on at which no guard holds, and the transition that the next one takes."""
        self.budget.spend(1 + len(self._guards[key]))
        ahead = {low + 1}
        for _, guard in self._guards[key]:
            met = abs(guard.threshold - self._start[key])
            ahead |= {count for count in (met - 1, met, met + 1) if count > low}
        for count in sorted(ahead):
            move = self.find_move(key, count)
            if move is not None:
                return count - 1, move
        return self.machines, None

    def _track(self, key: str, low: int) -> Track:
        high, up = self._find_end(key, low)
        return Track(key, low, high, up)

    def _find_tracks(self) -> tuple[Track, ...] | None:
        """Return each attribute's counts after the first report; None if the first report always ends the visit."""
        if not self._holding:
            return tuple(self._track(key, 0) for key in self.keys)
        # The guard of one attribute holds from the start. Only a report on that attribute may end this.
        only = self._holding[0]
        if len(self._holding) > 1 or self.find_move(only, 1) is not None:
            return None
        return tuple(self._track(key, 1 if key == only else 0) for key in self.keys)

    def _start_tracks(self) -> tuple[Track, ...]:
        """Return the counts before the first report."""
        return tuple(Track(key, 0, 0, None) for key in self.keys)

    def _list_boxes(self) -> list[tuple[Track, ...]]:
        """Return every set of counts in which the clock may find the visit."""
        if self._tracks is None:
            return [self._start_tracks()]
        return [self._start_tracks(), self._tracks] if self._holding else [self._tracks]

    def _list_exits(self) -> Iterator[Exit]:
        if self._holding:
            yield from self._list_first_exits()
        tracks = self._tracks
        if tracks is None:
            return
        for number, track in enumerate(tracks):
            if track.up is None:
                continue
            self.budget.spend(len(tracks) ** 2)
            before = _with(tracks, number, Track(track.key, track.high, track.high, None))
            yield Exit(track.up, track.key, before)
            yield from self._list_moved_exits(before, number, track.up)
        if self._holding:
            yield from self._list_falling_exits(tracks)

    def _list_moved_exits(self, before: tuple[Track, ...], number: int, move: int) -> Iterator[Exit]:
        """Yield the exits by a machine whose report moves to attribute `number` from another one."""
        for other, track in enumerate(before):
            if other == number:
                continue
            # One report stays behind where the guard would hold without any.
            low = max(track.low, 2 if track.key in self._holding else 1)
            yield Exit(move, before[number].key, _with(before, other, replace(track, low=low)), track.key)

    def _list_first_exits(self) -> Iterator[Exit]:
        """Yield the exits by the first report of a visit that begins with a guard that holds."""
        for key in self.keys:
            after = [self.find_move(other, 1 if other == key else 0) for other in self.keys]
            moves = [move for move in after if move is not None]
            if moves:
                yield Exit(min(moves), key, self._start_tracks())

    def _list_falling_exits(self, tracks: tuple[Track, ...]) -> Iterator[Exit]:
        """Yield the exits by which the last report leaves the attribute whose guard holds at the start."""
        only = self._holding[0]
        low = self.find_move(only, 0)
        assert low is not None
        at = self.keys.index(only)
        fixed = _with(tracks, at, Track(only, 1, 1, None))
        for number, track in enumerate(tracks):
            if track.key == only:
                continue
            # The report that moves away is the one that stands on `only`.
            if track.high > track.low:
                yield Exit(
                    low, track.key, _with(fixed, number, Track(track.key, track.low, track.high - 1, None)), only
                )
            last = _with(fixed, number, Track(track.key, track.high, track.high, None))
            yield Exit(low if track.up is None else min(low, track.up), track.key, last, only)

    # The most machines

    def find_peak(self, move: int, *, begun: bool = False) -> Peak | None:
        """Return when the most machines are down, or have begun, as the visit is left by transition `move`.

        The state has slots. None if the transition is never taken. Of equal peaks it is the one with the shortest
        story.
        """
        if self.state.transitions[move].guard.is_clock:
            found = [peak for box in self._list_boxes() for peak in self._list_peaks(move, box, None, begun)]
        else:
            exits = [one for one in self.exits if one.move == move]
            found = [peak for one in exits for peak in self._list_peaks(move, one.tracks, one, begun)]
        return max(found, key=_rank, default=None)

    def find_peak_within(self, *, begun: bool = False) -> Peak:
        """Return when the most machines are down, or have begun, at any moment of a visit; its `move` is -1."""
        found = [peak for box in self._list_boxes() for peak in self._list_peaks(-1, box, None, begun)]
        return max(found, key=_rank)

    def _list_peaks(self, move: int, box: tuple[Track, ...], end: Exit | None, begun: bool) -> Iterator[Peak]:
        rule = self.state.slots
        assert rule is not None
        for counts in self._list_corners(box, end, rule):
            self.budget.spend(1 + len(rule.stages))
            yield self._measure(move, counts, self._find_held(counts, rule), end, begun=begun)

    def _measure(
        self, move: int, counts: dict[str, int], most: tuple[int, int], end: Exit | None, *, begun: bool
    ) -> Peak:
        """Return the peak at these counts: the holders are those that add to the measure, as far as there are any."""
        after = dict(counts)
        if end is not None:
            after[end.key] += 1
            if end.moved_from is not None:
                after[end.moved_from] -= 1
        marked = sum(after.values()) if begun else after.get(FAILED_KEY, 0)
        # The machine whose report ends the visit gives its slot back, so it holds none.
        is_reporter_apart = end is not None and not begun and end.key != FAILED_KEY
        others = self.machines - marked - is_reporter_apart
        held, source = most
        holders = min(held - (end is not None), others)
        total = holders + (end is not None)
        return Peak(value=marked + holders, counts=counts, held=total, leftover_from=source, move=move, exit=end)

    def _list_corners(self, box: tuple[Track, ...], end: Exit | None, rule: SlotRule) -> Iterator[dict[str, int]]:
        """Yield the counts before the end at which a measure may be greatest."""
        room, low, high = self._find_limits(box, end)
        if any(low[key] > high[key] for key in low) or sum(low.values()) > room:
            return
        first, rest = self.keys[0], self.keys[1:]
        failing, other = [key for key in rest if key == FAILED_KEY], [key for key in rest if key != FAILED_KEY]
        least = sum(low[key] for key in rest)
        for count in self._list_turns(low, high, room, rule):
            for filled in ([], failing, other, failing + other):
                counts, spare = {**low, first: count}, room - count - least
                for key in filled:
                    more = min(high[key] - low[key], spare)
                    counts[key], spare = low[key] + more, spare - more
                yield counts

    def _find_limits(self, box: tuple[Track, ...], end: Exit | None) -> tuple[int, dict[str, int], dict[str, int]]:
        """Return how many machines may have reported before the end, and the least and most on each attribute."""
        low = {track.key: track.low for track in box}
        high = {track.key: min(track.high, self.machines) for track in box}
        if end is None:
            return self.machines, low, high
        if end.moved_from is None:
            # The machine that ends the visit has not reported before.
            return self.machines - 1, low, high
        return self.machines, low, high

    def _list_turns(self, low: dict[str, int], high: dict[str, int], room: int, rule: SlotRule) -> list[int]:
        """Return the counts of the first attribute at which the most of something may lie."""
        first, rest = self.keys[0], self.keys[1:]
        last = min(high[first], room - sum(low[key] for key in rest))
        sums = {0}
        for group in ([key for key in rest if key == FAILED_KEY], [key for key in rest if key != FAILED_KEY]):
            ends = {sum(low[key] for key in group), sum(high[key] for key in group)}
            sums |= {total + end for total in sums for end in ends}
        around = {low[first], last}
        around |= {edge - total for edge in _list_edges(rule) for total in sums}
        around |= {room - total for total in sums}
        near = {count + shift for count in around for shift in (-1, 0, 1)}
        return sorted(count for count in near if low[first] <= count <= last)

    def _find_held(self, counts: dict[str, int], rule: SlotRule) -> tuple[int, int]:
        """Return the most slots that can be held at `counts`, and the first attribute's count when they were claimed.

        Slots that were claimed when more were allowed are held on; each report since then has given one back.
        """
        here = counts[self.keys[0]]
        best, source = min(rule.limit(here), self.machines), here
        if not any(counts.values()):
            return best, source
        moved = sum(counts.values()) - here
        last = self._tracks[0].high if self._tracks is not None else 0
        for edge in _list_edges(rule):
            for count in (edge - 1, edge):
                away = abs(here - count)
                if not 0 <= count <= last or (count > here and away > moved):
                    continue
                held = min(rule.limit(count), self.machines) - away
                if held > best:
                    best, source = held, count
        return best, source

    def find_most(self, key: str) -> int:
        """Return how many reports can stand on `key` while the visit lasts; 0 without such an attribute."""
        tracks = self._tracks or ()
        return next((min(track.high, self.machines) for track in tracks if track.key == key), 0)

    def find_spare(self, end: Exit, key: str) -> int:
        """Return how many machines may stand on `key` for good when the visit ends like this; -1 if it cannot."""
        room, low, high = self._find_limits(end.tracks, end)
        if any(low[name] > high[name] for name in low):
            return -1
        return min(high[key], room - sum(low.values()) + low[key])

    def find_shortest(self, move: int) -> Peak | None:
        """Return the counts from which the shortest story takes transition `move`; None if it is never taken."""
        if self.state.transitions[move].guard.is_clock:
            none = dict.fromkeys(self.keys, 0)
            return Peak(value=0, counts=none, held=0, leftover_from=0, move=move, exit=None)
        found = []
        for end in self.exits:
            if end.move != move:
                continue
            room, low, high = self._find_limits(end.tracks, end)
            if all(low[key] <= high[key] for key in low) and sum(low.values()) <= room:
                found.append(Peak(value=0, counts=low, held=1, leftover_from=low[self.keys[0]], move=move, exit=end))
        return min(found, key=lambda peak: peak.size, default=None)

    def find_fullest(self, move: int, favourite: str) -> Peak | None:
        """Return the counts from which `move` is taken after as many reports as can be, first of all on `favourite`.

        None if it is never taken.
        """
        found = []
        is_clock = self.state.transitions[move].guard.is_clock
        ends = [(box, None) for box in self._list_boxes()] if is_clock else [(one.tracks, one) for one in self.exits]
        for box, end in ends:
            if end is not None and end.move != move:
                continue
            room, low, high = self._find_limits(box, end)
            if any(low[key] > high[key] for key in low) or sum(low.values()) > room:
                continue
            counts, spare = dict(low), room - sum(low.values())
            for key in sorted(self.keys, key=lambda key: key != favourite):
                more = min(high[key] - low[key], spare)
                counts[key], spare = low[key] + more, spare - more
            found.append(Peak(value=0, counts=counts, held=1, leftover_from=counts[self.keys[0]], move=move, exit=end))
        return max(found, key=lambda peak: sum(peak.counts.values()), default=None)


def _rank(peak: Peak) -> tuple[int, int, int]:
    reports, held = peak.size
    return peak.value, -reports, -held


def _with(tracks: tuple[Track, ...], number: int, track: Track) -> tuple[Track, ...]:
    return (*tracks[:number], track, *tracks[number + 1 :])


def _list_edges(rule: SlotRule) -> list[int]:
    """Return the counts of the first attribute at which another stage of the slots begins."""
    edges, total = [0], 0
    for stage in rule.stages[:-1]:
        total += stage
        edges.append(total)
    return edges
