"""Stories of charts whose machines differ: each act is tried by `step` before it is told.

`Stage` (app/core/witness.py) writes the acts of a visit from counts alone, as if machines were alike. They are not if a
roster says who takes part, if limits of groups refuse a claim, or if machines are counted on entry. Then a `Teller`
plays: it asks machine after machine, passes over those that are refused, and tells what happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product

from app.core.chart import FAILED_KEY, ClockGuard, ElapsedGuard, State
from app.core.counts import Counts, Exit, Peak, TooManyCountsError
from app.core.errors import StateServiceError
from app.core.position import Verdict
from app.core.proof import Leg, Measure, Proof
from app.core.witness import BEGINNING, MAX_ACTS, MOMENT, Act, Course, Said, Story, Waited, begin

# Acts that one story may try; those that are refused are among them.
MAX_TRIES = 20_000
# Acts that all stories of a proof may try together, half a minute's: after that, the numbers have no stories.
MAX_TRIES_IN_ALL = 200_000


class _StuckError(StateServiceError):
    """The story cannot go on as planned."""


def show(proof: Proof, legs: Sequence[Leg]) -> Story | None:
    """Return a story of the visits, of which the last one ends, or stays, as its leg says; None if none is found."""
    story = proof.show(legs)
    if story is not None or not differ(proof):
        return story
    for way in _list_ways(proof, legs):
        told = _tell(proof, way, None, is_full=False)
        if told is not None and _is_as_planned(told[1], legs):
            return Story(tuple(told[0]), told[2])
    return None


def show_most(proof: Proof, legs: Sequence[Leg], measure: Measure, value: int) -> tuple[Story | None, int]:
    """Return the story that was found with the most machines of `measure`, up to `value`, and how many it shows."""
    story = proof.show(legs, measure, value)
    if story is not None:
        return story, value
    best: tuple[Story | None, int] = (None, 0)
    if not differ(proof):
        return best
    has_left = bool(legs) and legs[-1].move >= 0
    for way, is_full in product(_list_ways(proof, legs), (False, True)):
        told = _tell(proof, way, measure, is_full=is_full)
        if told is None:
            continue
        acts, course, start = told
        found = len(course.begun) if measure is Measure.BEGUN else course.find_down(has_left)
        if best[1] < found <= value:
            best = Story(tuple(acts), start), found
    return best


def differ(proof: Proof) -> bool:
    """Return whether the chart says which machines take part, so that they are not alike."""
    return proof.chart.looks_up or proof.chart.has_own_sets


def _is_as_planned(course: Course, legs: Sequence[Leg]) -> bool:
    if not legs or legs[-1].move >= 0:
        return True
    wanted, here = legs[-1].peak, course.position
    failed = sum(report.key == FAILED_KEY for report in course.reports.values())
    return len(here.slots) == wanted.held and failed == wanted.counts.get(FAILED_KEY, 0)


def _list_ways(proof: Proof, legs: Sequence[Leg]) -> Iterator[Sequence[Leg]]:
    """Yield the visits, and, if the last one is for machines that reported before, ways on which more of them did."""
    yield legs
    if len(legs) > 1:
        try:
            most = proof.find_bound(Measure.BEGUN, legs[-1].state).legs
        except TooManyCountsError:
            return
        if most and [leg.state for leg in most] != [leg.state for leg in legs[:-1]]:
            yield (*most, legs[-1])


def _tell(
    proof: Proof, legs: Sequence[Leg], measure: Measure | None, *, is_full: bool
) -> tuple[list[Act], Course, datetime] | None:
    """Return the acts, the chart after them, and when the story begins; None if the chart does not go this way."""
    states = proof.chart.states
    # Who was down when the last state was left in which machines work.
    last = max((number for number, leg in enumerate(legs) if states[leg.state].is_counting), default=-1)
    starts = [BEGINNING]
    starts += [
        guard.instant - timedelta(hours=1)
        for leg in legs
        if leg.move >= 0 and isinstance(guard := states[leg.state].transitions[leg.move].guard, ClockGuard)
    ]
    for start in starts:
        teller = Teller(proof, start)
        try:
            for number, leg in enumerate(legs):
                is_measured = number == last or measure is Measure.BEGUN
                teller.visit(leg, measure if is_measured else None, is_full=is_full)
        except (_StuckError, TooManyCountsError):
            continue
        return teller.acts, teller.course, start
    return None


class Teller:
    """A story while it is played."""

    def __init__(self, proof: Proof, start: datetime) -> None:
        self._proof = proof
        self._tries = 0
        self.acts: list[Act] = []
        self.course = begin(proof.chart, start, proof.crowd.rosters)

    def visit(self, leg: Leg, measure: Measure | None, *, is_full: bool) -> None:
        """Play one visit, and leave it as `leg` says.

        With `measure` as many machines of it as can be are down, or have begun, when the visit ends. With `is_full` as
        many machines as can report before it ends.
        """
        if self.course.position.state != leg.state:
            raise _StuckError(f"it is in {self.course.position.state}")
        state = self._proof.chart.states[leg.state]
        visit = self.course.position.visit
        if state.is_for_machines:
            _Visit(self, state, leg).play(measure, is_full=is_full)
        else:
            self._play_plainly(state, leg)
        if leg.move >= 0 and self.course.position.visit == visit:
            raise _StuckError("it is not left")

    def _play_plainly(self, state: State, leg: Leg) -> None:
        """Let the clock, or the people who approve, end the visit."""
        if leg.move < 0:
            return
        self.wait(state, leg.move)
        end = leg.peak.exit
        if end is not None:
            for number in range(leg.peak.counts[end.key] + 1):
                self.do(Said("put", f"person-{number + 1}", end.key))

    def wait(self, state: State, move: int, *, is_early: bool = False) -> None:
        """Let time pass until the deadline of a transition by the clock, or a moment less."""
        guard, course = state.transitions[move].guard, self.course
        if isinstance(guard, ElapsedGuard):
            until = course.position.entered_at + guard.age
        elif isinstance(guard, ClockGuard):
            until = guard.instant
        else:
            return
        span = until - (MOMENT if is_early else timedelta(0)) - course.now
        if span > timedelta(0):
            self.do(Waited(span))

    def do(self, act: Act) -> None:
        """Let an act happen that must not be refused."""
        if not self.tries(act):
            raise _StuckError(f"{act} is refused")

    def tries(self, act: Act) -> bool:
        """Let an act happen; return whether it was accepted. An act that is refused is not told."""
        self._tries += 1
        self._proof.tries += 1
        is_over = self._tries > MAX_TRIES or self._proof.tries > MAX_TRIES_IN_ALL
        if is_over or len(self.acts) >= MAX_ACTS:
            raise _StuckError("the story would be too long")
        try:
            step = self.course.do(act)
        except StateServiceError:
            return False
        if step.verdict is Verdict.REFUSED:
            return False
        self.acts.append(act)
        return True


class _Visit:
    """One visit of a counting state while it is played."""

    def __init__(self, teller: Teller, state: State, leg: Leg) -> None:
        proof, position = teller._proof, teller.course.position
        size = proof.crowd.find_most(state.name) if position.expected is None else position.expected
        self._teller, self._course = teller, teller.course
        self._state, self._leg = state, leg
        self._number = position.visit
        self._has_slots = state.slots is not None
        self._counts = Counts(proof.crowd.find_state(state.name, size), size)
        self._first = state.default_key or ""
        expect = proof.chart.expect_of(state.name)
        members = proof.crowd.order(state.name) or list(proof.chart.roster or ())
        if expect is not None and expect.names_machines:
            kept = expect.keep(members, position, self._course.memory)
            members = [name for name in members if name in kept]
        elif not members:
            members = [f"m{number + 1}" for number in range(size)]
        # Those in front are of different groups: they are to be down. Those that succeed come from the back.
        self._fresh = [name for name in members if name not in self._course.reports]

    def play(self, measure: Measure | None, *, is_full: bool) -> None:
        """Play the visit up to its end."""
        move = self._leg.move
        peak = self._plan(measure, is_full=is_full)
        if move >= 0:
            self._teller.wait(self._state, move, is_early=True)
        last = None
        for key in self._in_order(peak.counts):
            number = peak.counts[key]
            if move < 0 and key != FAILED_KEY:
                # Those that are to fail are left over.
                number = min(number, max(len(self._fresh) - peak.counts.get(FAILED_KEY, 0), 0))
            self._report(key, number, must=measure is None and not is_full)
        if peak.exit is not None:
            last = self._find_last(peak.exit)
        held = peak.held if measure is not None or move < 0 else 0
        self._hold(held - (last is not None and self._has_slots))
        if peak.exit is not None and last is not None:
            self._teller.do(Said("put", last, peak.exit.key))
        elif move >= 0:
            self._teller.wait(self._state, move)

    def _plan(self, measure: Measure | None, *, is_full: bool) -> Peak:
        """Return the counts just before the end, in the set that there really is."""
        move, found = self._leg.move, None
        if move < 0:
            return self._leg.peak
        if measure is not None and self._has_slots and not is_full:
            found = self._counts.find_peak(move, begun=measure is Measure.BEGUN)
        elif is_full or measure is not None:
            found = self._counts.find_fullest(move, FAILED_KEY if measure is Measure.DOWN else self._first)
            # As many as the slots and the groups allow.
            found = None if found is None else replace(found, held=self._counts.machines)
        found = found or self._counts.find_shortest(move)
        if found is None:
            raise _StuckError("the set is too small")
        return found

    def _in_order(self, counts: dict[str, int]) -> list[str]:
        """Return the attributes: one whose guard holds from the start comes first, and failures last."""
        return sorted(counts, key=lambda key: (self._counts.find_move(key, 0) is None, key == FAILED_KEY))

    def _report(self, key: str, number: int, *, must: bool) -> None:
        """Let so many machines stand on `key`, as far as they may."""
        missing = number - sum(report.key == key for report in self._course.reports.values())
        while missing > 0:
            name = self._begin_one(is_front=key == FAILED_KEY)
            if name is None:
                if must:
                    raise _StuckError(f"no machine is left for {key}")
                return
            self._teller.do(Said("put", name, key))
            self._stay()
            missing -= 1

    def _begin_one(self, *, is_front: bool) -> str | None:
        """Let a fresh machine begin, which is the first that may; return its name."""
        for name in list(self._fresh) if is_front else list(reversed(self._fresh)):
            if not self._has_slots or self._teller.tries(Said("claim", name)):
                self._fresh.remove(name)
                return name
        return None

    def _find_last(self, end: Exit) -> str:
        """Return the machine whose report ends the visit; it holds a slot, if the state has any."""
        if end.moved_from is None:
            name = self._begin_one(is_front=end.key == FAILED_KEY)
            if name is not None:
                return name
        else:
            for name, report in self._course.reports.items():
                if report.key == end.moved_from and (not self._has_slots or self._claims_again(name)):
                    return name
        raise _StuckError("no machine is left to end the visit")

    def _hold(self, number: int) -> None:
        """Let machines claim until so many more hold a slot: fresh ones first, those that have failed last."""
        reported = self._course.reports
        others = sorted(reported, key=lambda name: reported[name].key == FAILED_KEY)
        for name in (*self._fresh, *others) if self._has_slots else ():
            if number <= 0:
                return
            if name not in self._course.position.slots:
                number -= self._claims_again(name)

    def _claims_again(self, name: str) -> bool:
        report = self._course.reports.get(name)
        return self._teller.tries(Said("claim", name, again=report is not None and report.key == self._first))

    def _stay(self) -> None:
        if self._course.position.visit != self._number:
            raise _StuckError("the visit ended too early")
