"""What can happen to a chart at worst: which transitions can be taken, and how many machines are down or have begun.

`Counts` knows one visit; here the visits are put together to runs. A new visit starts with no reports and no slots, so
what a visit can do does not depend on the visits before it. Not modelled, because a person decides it: what operators
do (pause, goto, reset, evict, upgrade). Time is modelled as "any deadline may pass at any moment".
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from app.core.chart import Chart, ClockGuard, CountGuard, ElapsedGuard, OnExpire, State
from app.core.counts import UNLIMITED, Budget, Counts, Peak
from app.core.expect import FromRoster, Listed, Reporters
from app.core.memory import Crowd, Lists
from app.core.window import NO_HOURS, find_fitting
from app.core.witness import BEGINNING, MAX_ACTS, MOMENT, Act, Said, Stage, Story, StoryTooLongError, play


class Measure(StrEnum):
    """What is counted: machines that hold a slot or stand at `failed`, or machines that were given a slot."""

    DOWN = "down"
    BEGUN = "begun"


@dataclass(frozen=True, slots=True)
class Leg:
    """One visit on the way through a chart: the state, and how it is left."""

    state: str
    peak: Peak

    @property
    def move(self) -> int:
        """The number of the transition that is taken."""
        return self.peak.move


@dataclass(frozen=True, slots=True)
class Way:
    """The visits on a way through a chart, the last one first: a chart may have 10,000 states, and as many ways."""

    before: Way | None
    leg: Leg

    def list_legs(self) -> tuple[Leg, ...]:
        """Return the visits in their order."""
        legs, here = [self.leg], self.before
        while here is not None:
            legs.append(here.leg)
            here = here.before
        return tuple(reversed(legs))


def _legs(way: Way | None) -> tuple[Leg, ...]:
    return () if way is None else way.list_legs()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The most machines of a measure; `most` is None if nothing limits them, and `because` says why.

    `legs` is a way on which so many are reached. `with_releases` is the most if machines also give back slots without
    a report: then the next machine begins.
    """

    most: int | None
    because: str = ""
    legs: tuple[Leg, ...] = ()
    with_releases: int | None = None


@dataclass(frozen=True, slots=True)
class _Best:
    """The most so far on the ways to a state; `value` is None before any state with slots, `free` names one without."""

    value: int | None = None
    way: Way | None = None
    free: str | None = None

    @property
    def rank(self) -> tuple[int, int]:
        """What makes one better than another: a state without slots, then the number."""
        return (2, 0) if self.free is not None else (0, 0) if self.value is None else (1, self.value)


class Proof:
    """The worst cases of a chart if `machines` take part.

    For each state that can be entered: its `counts`, the `moves` by which it can be left, and the `shortest` way to it.
    `crowd` says who takes part in each state; `rosters` has the lines of each roster that the chart goes by.
    """

    def __init__(self, chart: Chart, machines: int, budget: Budget | None = None, rosters: Lists | None = None) -> None:
        self.chart = chart
        self.machines = machines
        self.crowd = Crowd(chart, machines, rosters or {})
        self.budget = Budget() if budget is None else budget
        self.counts: dict[str, Counts] = {}
        # One for each size that the state's set can have; `counts` has the largest.
        self._sized: dict[str, list[Counts]] = {}
        self.moves: dict[str, dict[int, Peak]] = {}
        self.shortest: dict[str, Way | None] = {}
        self._peaks: dict[tuple[str, int, Measure], Peak | None] = {}
        # Acts that were tried for stories, by app/core/telling.py.
        self.tries = 0
        self._walk()

    # Which transitions can be taken

    def _walk(self) -> None:
        """Find the shortest way to every state that can be entered (Dijkstra's algorithm, by the number of acts)."""
        ahead: list[tuple[int, int, str, Way | None]] = [(0, 0, self.chart.initial, None)]
        number = 0
        while ahead:
            cost, _, name, way = heapq.heappop(ahead)
            if name in self.shortest:
                continue
            self.shortest[name] = way
            self.moves[name] = self._find_moves(self.chart.states[name])
            for peak in self.moves[name].values():
                number += 1
                self.budget.spend()
                target = self.chart.states[name].transitions[peak.move].target
                heapq.heappush(ahead, (cost + 1 + sum(peak.size), number, target, Way(way, Leg(name, peak))))

    def _find_moves(self, state: State) -> dict[int, Peak]:
        """Return the transitions by which the state can be left, each with its shortest way out."""
        sized = self._sized[state.name] = [
            Counts(self.crowd.find_state(state.name, size), self._population(state, size), self.budget)
            for size in self.crowd.list_sizes(state.name)
        ]
        self.counts[state.name] = sized[0]
        clock, is_passed_through = list_clock_moves(state)
        numbers = [
            number
            for number, item in enumerate(state.transitions)
            if (number in clock if item.guard.is_clock else not is_passed_through)
        ]
        moves: dict[int, Peak] = {}
        for number in numbers:
            found = (counts.find_shortest(number) for counts in sized)
            peak = min((one for one in found if one is not None), key=lambda one: one.size, default=None)
            if peak is not None:
                moves[number] = peak
        return moves | self._find_moves_of_nobody(state, moves)

    def _find_moves_of_nobody(self, state: State, moves: Mapping[int, Peak]) -> dict[int, Peak]:
        """Return the transition by which the state is left at once if its set is empty, unless it is known."""
        if not state.is_counting or 0 not in self.crowd.list_sizes(state.name):
            return {}
        for number, item in enumerate(state.transitions):
            guard = item.guard
            if isinstance(guard, CountGuard) and guard.is_percentage and guard.key == state.default_key:
                none = dict.fromkeys((attribute.key for attribute in state.attributes), 0)
                peak = Peak(value=0, counts=none, held=0, leftover_from=0, move=number, exit=None)
                return {} if number in moves else {number: peak}
        return {}

    def way_to(self, name: str) -> tuple[Leg, ...]:
        """Return the visits on the shortest way to the state."""
        return _legs(self.shortest[name])

    def population(self, state: State) -> int:
        """Return how many machines may report in the state: any number if reports need no machine id."""
        return self._population(state, self.crowd.find_most(state.name))

    def _population(self, state: State, size: int) -> int:
        expect = self.chart.expect_of(state.name)
        if state.approvers is not None:
            # People report there, and the chart does not say how many there are.
            return UNLIMITED
        if isinstance(expect, Reporters) and expect.key is not None:
            # Late reports may bring machines to a set of which the size is counted on entry.
            size = self.crowd.find_most(state.name)
        return size if state.slots is not None or self.chart.needs_machine_in(state.name) else UNLIMITED

    # The measures

    def find_bound(self, measure: Measure, at: str) -> Bound:
        """Return the most machines of `measure` when the state `at` is entered, whichever way leads there."""
        best = self._find_best(measure).get(at)
        if best is None:
            return Bound(most=0)
        if best.free is not None:
            return Bound(most=None, because=_say_no_slots(best.free), legs=_legs(best.way))
        if best.value is None:
            return Bound(most=None, because="no state on the way there has slots", legs=_legs(best.way))
        return self._limit(Bound(most=best.value, legs=_legs(best.way)), measure)

    def find_bound_within(self, measure: Measure, name: str) -> Bound:
        """Return the most machines of `measure` at any moment of a visit of the state `name`."""
        if name not in self.shortest:
            return Bound(most=0)
        state, way = self.chart.states[name], self.way_to(name)
        if not state.is_for_machines:
            return Bound(most=0, legs=way)
        if state.slots is None:
            most = self.crowd.find_limit(name)
            because = _say_no_slots(name) if most is None else ""
            return Bound(most=most, because=because, legs=way)
        is_begun = measure is Measure.BEGUN
        found = [counts.find_peak_within(begun=is_begun) for counts in self._sized[name]]
        peak = self._cap(name, max(found, key=lambda one: one.value), measure)
        return self._limit(Bound(most=peak.value, legs=(*way, Leg(name, peak))), measure)

    def _limit(self, bound: Bound, measure: Measure) -> Bound:
        """Return the bound with what releases add to it."""
        most, releases = bound.most, bound.with_releases
        if measure is Measure.BEGUN:
            releases = self.machines
            gives_free = any(self._frees(leg.state) for leg in bound.legs)
            most = self.machines if gives_free else most
        if most is not None and most >= UNLIMITED:
            why = "nothing limits how many machines take part; say it with 'expect'"
            return Bound(most=None, because=why, legs=bound.legs)
        return Bound(most=most, legs=bound.legs, with_releases=releases)

    def _frees(self, name: str) -> bool:
        slots = self.chart.states[name].slots
        return slots is not None and slots.on_expire is OnExpire.FREE

    def find_peak(self, name: str, move: int, measure: Measure) -> Peak | None:
        """Return the most machines of `measure` as the state with slots is left by the transition."""
        wanted = (name, move, measure)
        if wanted not in self._peaks and list_clock_moves(self.chart.states[name])[1]:
            # The state is left in the moment in which it is entered.
            self._peaks[wanted] = self.moves[name][move]
        elif wanted not in self._peaks:
            is_begun = measure is Measure.BEGUN
            found = (counts.find_peak(move, begun=is_begun) for counts in self._sized[name])
            peak = max((one for one in found if one is not None), key=lambda one: one.value, default=None)
            self._peaks[wanted] = None if peak is None else self._cap(name, peak, measure)
        return self._peaks[wanted]

    def _cap(self, name: str, peak: Peak, measure: Measure) -> Peak:
        """Return the peak with no more machines down than the limits of groups allow."""
        most = self.crowd.find_most_down(name) if measure is Measure.DOWN else None
        return peak if most is None or peak.value <= most else replace(peak, value=most)

    def _find_best(self, measure: Measure) -> dict[str, _Best]:
        """Return the most on the ways to each state, by rounds over all transitions until nothing grows.

        What still grows after as many rounds as there are states grows in a circle: then it is as many as there are.
        """
        best = {self.chart.initial: _Best()}
        for number in range(2 * len(self.moves) + 1):
            grown = False
            for name, move, target in self._list_taken():
                self.budget.spend()
                if name not in best:
                    continue
                found = self._pass_on(best[name], name, move, measure, is_circle=number > len(self.moves))
                if target not in best or found.rank > best[target].rank:
                    best[target], grown = found, True
            if not grown:
                break
        return best

    def _list_taken(self) -> Iterator[tuple[str, int, str]]:
        for name, moves in self.moves.items():
            for move in moves:
                yield name, move, self.chart.states[name].transitions[move].target

    def _pass_on(self, best: _Best, name: str, move: int, measure: Measure, *, is_circle: bool) -> _Best:
        """Return the most after the visit of the state `name` that ends with the transition `move`."""
        state = self.chart.states[name]
        plain = Leg(name, self.moves[name][move])
        if not state.is_for_machines:
            # No machine works here, so those that were down before still are.
            return _Best(best.value, Way(best.way, plain), best.free)
        is_begun = measure is Measure.BEGUN
        if state.slots is None:
            most = self.crowd.find_limit(name)
            if most is None:
                return _Best(None, Way(best.way, plain), name)
            if is_begun and best.free is not None:
                return _Best(None, Way(best.way, plain), best.free)
            more = min(self.machines, most + (best.value or 0)) if is_begun else most
            return _Best(more, Way(best.way, plain))
        if is_begun and best.free is not None:
            return _Best(None, Way(best.way, plain), best.free)
        peak = self.find_peak(name, move, measure)
        if peak is None or not is_begun:
            leg = plain if peak is None else Leg(name, peak)
            return _Best(0 if peak is None else peak.value, Way(self.shortest[name], leg))
        total = self.machines if is_circle else min(self.machines, (best.value or 0) + peak.value)
        return _Best(total, Way(best.way, Leg(name, peak)))

    # How long it takes

    def list_endings(self) -> list[str]:
        """Return the final states that can be reached, in the order of the chart file."""
        return [name for name, state in self.chart.states.items() if state.is_final and name in self.shortest]

    # Stories

    def tell(self, legs: Sequence[Leg]) -> list[Act]:
        """Return the acts of the visits. Raises StoryTooLongError."""
        acts: list[Act] = []
        used, spoken = 0, dict[tuple[str, str], str | None]()
        for leg in legs:
            stage = Stage(
                counts=self.counts[leg.state],
                name_of=self._names(leg.state, used, spoken),
                included=self._list_included(leg.state, spoken),
            )
            told = stage.write(leg.peak)
            acts += told
            spoken |= {(leg.state, name): stage.counts.keys[0] for name in stage.included}
            spoken |= {(leg.state, act.machine): act.key for act in told if isinstance(act, Said) and act.verb == "put"}
            used += stage.used
            if len(acts) > MAX_ACTS:
                raise StoryTooLongError(f"its story would have over {MAX_ACTS} acts")
        return acts

    def _list_included(self, state: str, spoken: Mapping[tuple[str, str], str | None]) -> list[str]:
        """Return the machines that are counted on entry to the state, if the visits before it were as told."""
        including = self.chart.states[state].including
        firsts = {name: self.chart.states[name].default_key for name in including}
        words = {name: (where, key) for (where, name), key in spoken.items() if where in firsts}
        members = self.crowd.find_members(state)
        counted = (name for name, (where, key) in words.items() if key == firsts[where])
        return [name for name in counted if members is None or name in members]

    def _names(self, state: str, shift: int, spoken: Mapping[tuple[str, str], str | None]) -> Callable[[int], str]:
        """Return how the machines of a visit are called; `spoken` are those that have reported before, and where."""
        expect, included = self.chart.expect_of(state), set(self._list_included(state, spoken))
        if isinstance(expect, Reporters):
            names = dict.fromkeys(name for where, name in spoken if where in expect.states)
            return _call([name for name in names if name not in included])
        if isinstance(expect, FromRoster) or (isinstance(expect, Listed) and self.chart.roster is None):
            return _call([name for name in self.crowd.order(state) if name not in included])
        roster = self.chart.roster
        if roster is None:
            return lambda number: f"m{(shift + number) % self.machines + 1}"
        return lambda number: roster[(shift + number) % len(roster)]

    def show(self, legs: Sequence[Leg], measure: Measure | None = None, value: int = 0) -> Story | None:
        """Return the story of the visits if it, played, leads to `value` machines of `measure`; None if it does not."""
        try:
            story = Story(tuple(self.tell(legs)))
        except StoryTooLongError:
            return None
        told = (story, story.late(), *(replace(story, start=at) for at in self._list_openings(legs)))
        return next((one for one in told if self._is_true(one, legs, measure, value)), None)

    def _list_openings(self, legs: Sequence[Leg]) -> Iterator[datetime]:
        """Yield for each visit when its windows first let a machine claim, from the usual beginning of a story on."""
        for leg in legs:
            schedule, slots = self.chart.find_schedule(leg.state), self.chart.states[leg.state].slots
            if schedule is not None:
                lease = slots.lease if slots is not None and schedule.fit else None
                opens = find_fitting(schedule, NO_HOURS, BEGINNING, lease or MOMENT)
                if opens is not None:
                    yield opens

    def _is_true(self, story: Story, legs: Sequence[Leg], measure: Measure | None, value: int) -> bool:
        course = play(self.chart, story, self.crowd.rosters)
        if course is None:
            return False
        has_left = bool(legs) and legs[-1].move >= 0
        if has_left and self.chart.states[legs[-1].state].transitions[legs[-1].move].target not in course.entered:
            return False
        found = {Measure.BEGUN: len(course.begun), Measure.DOWN: course.find_down(has_left)}
        return measure is None or found[measure] == value


def _call(names: Sequence[str]) -> Callable[[int], str]:
    # A story that needs more machines than there are is not true, and is not shown.
    return lambda number: names[number % len(names)] if names else "no machine"


def list_clock_moves(state: State) -> tuple[set[int], bool]:
    """Return which transitions the clock may take, and whether one of them is due as soon as the state is entered.

    A deadline is never met if one that is listed before it always comes first.
    """
    moves: set[int] = set()
    before: list[ClockGuard | ElapsedGuard] = []
    for number, item in enumerate(state.transitions):
        guard = item.guard
        if not guard.is_clock:
            continue
        if not any(_comes_first(earlier, guard) for earlier in before):
            moves.add(number)
        before.append(guard)
        if isinstance(guard, ElapsedGuard) and guard.age <= timedelta(0):
            return {one for one in moves if one == number or isinstance(state.transitions[one].guard, ClockGuard)}, True
    return moves, False


def _comes_first(earlier: ClockGuard | ElapsedGuard, later: ClockGuard | ElapsedGuard) -> bool:
    if isinstance(earlier, ElapsedGuard) and isinstance(later, ElapsedGuard):
        # Open time is never longer than the time that has passed.
        is_alike = earlier.schedule is None or earlier.schedule == later.schedule
        return is_alike and earlier.age <= later.age
    if isinstance(earlier, ClockGuard) and isinstance(later, ClockGuard):
        return earlier.instant <= later.instant
    return False


def _say_no_slots(name: str) -> str:
    return f"state {name!r} has no slots, so any number of machines may act while it is current"
