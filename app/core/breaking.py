"""Whether a chart can break what it promises with `never:` and `always:`.

A chart file is refused if its chart can break a promise. So the check runs at every lint, import and upgrade.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.core.chart import Chart, ClockGuard, ElapsedGuard, State
from app.core.counts import UNLIMITED, TooManyCountsError
from app.core.memory import Lists, count_machines
from app.core.promises import Always, Never
from app.core.proof import Leg, Measure, Proof, list_clock_moves
from app.core.telling import show, show_most
from app.core.witness import MOMENT, Act, Story, StoryTooLongError, Waited, play, write_file, write_tale

# For ever, as a length of time.
ENDLESS = timedelta.max
# How often the population is doubled in the search for a short story.
DOUBLINGS = 40


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that the chart can break: which one, how, and a story in which it happens (empty if it is too long)."""

    promise: Never | Always
    because: str
    story: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What the check of all promises found; `doubtful` are promises that hold only if no slot is given back unused."""

    broken: tuple[Broken, ...] = ()
    doubtful: tuple[Broken, ...] = ()


def check_promises(chart: Chart, now: datetime | None = None, rosters: Lists | None = None) -> Checked:
    """Return which promises of the chart can be broken. A run that begins at `now` is the one that is timed.

    `rosters` has the lines of each roster that the chart goes by.
    """
    promises = chart.promises
    if not promises:
        return Checked()
    try:
        counted = count_machines(chart, rosters or {})
        machines = UNLIMITED if counted is None else counted
        proof = Proof(chart, machines, rosters=rosters)
        found = [item for never in promises.never for item in _check_never(proof, never)]
        broken = [item for item, is_sure in found if is_sure]
        broken += [item for always in promises.always for item in _check_always(proof, always, now)]
    except TooManyCountsError as error:
        first: Never | Always = promises.never[0] if promises.never else promises.always[0]
        return Checked((Broken(first, f"{error}; make the chart smaller, or leave the promise out"),))
    return Checked(tuple(broken), tuple(item for item, is_sure in found if not is_sure))


# Never


def _check_never(proof: Proof, never: Never) -> Iterator[tuple[Broken, bool]]:
    """Yield how the promise can be broken, and whether it surely can."""
    measure, most = Measure(never.measure), never.most(proof.machines)
    find = proof.find_bound_within if never.is_while else proof.find_bound
    bound = find(measure, never.state)
    if bound.most is None:
        story = _write_story(proof, show(proof, bound.legs), f"any machine may act in {never.state}")
        yield Broken(never, f"{_say(never)} cannot be kept: {bound.because}", story), True
    elif bound.most > most:
        verb = "be down" if measure is Measure.DOWN else "have begun"
        because = f"{_say(never)} can be broken: {bound.most} machines can {verb}"
        yield Broken(never, because, _tell_shortest(proof, never, measure, most)), True
    elif bound.with_releases is not None and bound.with_releases > most and never.state in proof.shortest:
        because = (
            f"{_say(never)} holds if every machine that is given a slot reports; if machines give slots back with"
            f" DELETE after they began, {min(bound.with_releases, proof.machines)} can have begun"
        )
        yield Broken(never, because), False


def _say(never: Never) -> str:
    return f"never {never.text}"


def _tell_shortest(proof: Proof, never: Never, measure: Measure, most: int) -> str:
    """Return the story in which the promise is broken with the fewest machines; empty if there is none to show."""
    find = proof.find_bound_within if never.is_while else proof.find_bound
    if proof.chart.looks_up or proof.chart.has_own_sets:
        # A smaller number of machines would be another roster.
        bound = find(measure, never.state)
        story, shown = show_most(proof, bound.legs, measure, bound.most or 0)
        return "" if shown <= most else _write_story(proof, story, _title(shown, measure))
    for doubling in range(DOUBLINGS):
        machines = min((most + 1) << doubling, proof.machines)
        smaller = Proof(proof.chart, machines, proof.budget)
        find = smaller.find_bound_within if never.is_while else smaller.find_bound
        bound = find(measure, never.state)
        if bound.most is not None and bound.most > most:
            return _write_story(proof, smaller.show(bound.legs, measure, bound.most), _title(bound.most, measure))
        if machines == proof.machines:
            break
    return ""


def _title(machines: int, measure: Measure) -> str:
    return f"{machines} machines {'are down' if measure is Measure.DOWN else 'have begun'}"


def _write_story(proof: Proof, story: Story | None, title: str) -> str:
    course = None if story is None else play(proof.chart, story, proof.crowd.rosters)
    if story is None or course is None:
        return ""
    return _write(proof, title, story, course.position.state)


def _write(proof: Proof, title: str, story: Story, expect: str) -> str:
    return write_file(f"{proof.chart.name}.yaml", write_tale(proof.chart, title, story, expect, proof.crowd.rosters))


# Always


def _check_always(proof: Proof, always: Always, now: datetime | None) -> Iterator[Broken]:
    for name in proof.list_endings():
        if name not in always.ends:
            story = show(proof, proof.way_to(name))
            told = "" if story is None else _write(proof, f"it ends in {name}", story, name)
            yield Broken(always, f"always {always.text} can be broken: it can end in {name!r}", told)
    times = Times(proof, now)
    endless = next((state for state in times.list_endless()), None)
    if endless is not None:
        yield _describe_endless(proof, always, endless)
    elif always.within is not None and times.longest > always.within:
        yield _describe_slow(proof, always, times)


def _describe_endless(proof: Proof, always: Always, state: State) -> Broken:
    name = state.name
    deadlines = [state.transitions[number].guard for number in list_clock_moves(state)[0]]
    if deadlines and all(isinstance(guard, ElapsedGuard) and guard.schedule is not None for guard in deadlines):
        because = f"the deadline of {name!r} counts open time alone, so a proof cannot say when it passes"
    elif deadlines:
        because = f"it can go round through {name!r} for ever"
    else:
        because = f"no deadline ends {name!r}, so it can be there for ever"
    wait = (Waited(timedelta(days=1) if always.within is None else always.within),)
    story = show(proof, proof.way_to(name))
    told = ""
    if story is not None and not list_clock_moves(state)[0]:
        story = Story((*story.acts, *wait), story.start)
        told = _write(proof, f"{name} is not left", story, name)
    return Broken(always, f"always {always.text} can be broken: {because}", told)


def _describe_slow(proof: Proof, always: Always, times: Times) -> Broken:
    assert always.within is not None
    because = f"always {always.text} can be broken: it can take {format_length(times.longest)}"
    story = times.tell_slowest(always.within)
    course = None if story is None else play(proof.chart, story, proof.crowd.rosters)
    if story is None or course is None or course.position.state in always.ends:
        return Broken(always, because)
    told = _write(proof, f"not ended after {always.within_written}", story, course.position.state)
    return Broken(always, because, told)


def format_length(span: timedelta) -> str:
    """Return a length of time as people read it: `1d 2h`."""
    seconds, parts = int(span.total_seconds()), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size:
            parts.append(f"{seconds // size}{unit}")
            seconds %= size
    return " ".join(parts[:2]) or "no time"


class Times:
    """The longest that a run can take to enter each state, by the deadlines of the states before it.

    `now` is when the run begins; without it, the instants of `clock` guards count as past.
    """

    def __init__(self, proof: Proof, now: datetime | None) -> None:
        self.proof = proof
        self.now = now
        self.entered: dict[str, timedelta] = {proof.chart.initial: timedelta(0)}
        self._before: dict[str, tuple[str, int]] = {}
        self._endless: set[str] = set()
        self._walk()

    @property
    def longest(self) -> timedelta:
        """The longest that a run can take to end."""
        return max((self.entered.get(name, timedelta(0)) for name in self.proof.list_endings()), default=timedelta(0))

    def list_endless(self) -> list[State]:
        """Return the states that a run may never get out of, in the order of the chart file."""
        return [state for name, state in self.proof.chart.states.items() if name in self._endless]

    def left(self, state: State) -> timedelta:
        """Return the latest time at which a run leaves the state, which it entered as late as it can."""
        here, latest = self.entered[state.name], ENDLESS
        clock, _ = list_clock_moves(state)
        for number, item in enumerate(state.transitions):
            if number not in clock:
                continue
            if isinstance(item.guard, ElapsedGuard) and item.guard.schedule is not None:
                # How long that takes depends on when it is open; this deadline limits nothing that can be said.
                continue
            if isinstance(item.guard, ElapsedGuard):
                latest = min(latest, here + item.guard.age if here < ENDLESS - item.guard.age else ENDLESS)
            elif isinstance(item.guard, ClockGuard):
                latest = min(latest, here if self.now is None else max(here, item.guard.instant - self.now))
        return latest

    def _walk(self) -> None:
        """Go over all transitions, in rounds, until nothing takes longer: what still grows then goes round for ever."""
        rounds = len(self.proof.moves) + 1
        for number in range(rounds):
            grown = False
            for name, moves in self.proof.moves.items():
                self.proof.budget.spend()
                if name in self.entered and moves:
                    grown |= self._pass_on(name, is_last=number == rounds - 1)
            if not grown:
                break
        for name, state in self.proof.chart.states.items():
            if name in self.entered and not state.is_final and self.left(state) == ENDLESS:
                self._endless.add(name)

    def _pass_on(self, name: str, *, is_last: bool) -> bool:
        state, grown = self.proof.chart.states[name], False
        latest = self.left(state)
        if latest == ENDLESS:
            return False
        for move in self.proof.moves[name]:
            target = state.transitions[move].target
            if target in self.entered and self.entered[target] >= latest:
                continue
            grown = True
            if is_last:
                self._endless.add(name)
            self.entered[target] = latest
            self._before[target] = (name, move)
        return grown

    def tell_slowest(self, within: timedelta) -> Story | None:
        """Return the story of a run that has not ended after `within`; None if it would be too long."""
        name = max(self.proof.list_endings(), key=lambda ending: self.entered.get(ending, timedelta(0)))
        legs: list[tuple[str, int]] = []
        while name in self._before:
            name, move = self._before[name]
            legs.append((name, move))
        acts: list[Act] = []
        spent = timedelta(0)
        for name, move in reversed(legs):
            state = self.proof.chart.states[name]
            stay = self.left(state) - self.entered[name]
            if spent + stay > within:
                break
            is_clock = state.transitions[move].guard.is_clock
            wait = stay if is_clock else max(stay - MOMENT, timedelta(0))
            acts.append(Waited(wait))
            spent += wait
            if not is_clock:
                try:
                    acts += self.proof.tell((Leg(name, self.proof.moves[name][move]),))
                except StoryTooLongError:
                    return None
        told = Story((*acts, Waited(within - spent)))
        return told if self.now is None else replace(told, start=self.now.replace(microsecond=0))
