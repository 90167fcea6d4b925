"""Two ways to keep a chart in a simulation: by `step` itself, and by counting alone, which is much faster.

`StepEngine` asks the core. `Tally` counts what the core would count, for charts that use nothing but counts, deadlines,
slots and leases; a test lets both live through random lives and compares them after each event. Instants are whole
microseconds since the chart's import.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from dataclasses import MISSING, fields
from datetime import datetime, timedelta
from typing import Protocol

from app.core.chart import (
    FAILED_KEY,
    Chart,
    ClockGuard,
    CountGuard,
    ElapsedGuard,
    OnExpire,
    SlotRule,
    State,
    Transition,
    compare,
)
from app.core.decision import MOVES_PER_STEP
from app.core.errors import StateServiceError
from app.core.log import MICROSECOND
from app.core.memory import Lists
from app.core.position import Kind, Position, Step, Tick, Verdict
from app.core.window import find_fitting, judge
from app.lab.world import MOVES, World

# What `Tally` knows of each class of a definition. A chart with anything else in it is left to `step`.
KNOWN: dict[type, frozenset[str]] = {
    # Who imported the file, its checksum and its promises move no chart.
    Chart: frozenset({"name", "initial", "states", "description", "expect", "roster", "require_machine"})
    | {"importer", "sha256", "promises"},
    State: frozenset({"name", "func", "attributes", "transitions", "slots", "description"}),
    SlotRule: frozenset({"stages", "written", "lease", "lease_written", "on_expire"}),
    CountGuard: frozenset({"key", "op", "threshold", "written"}),
    ElapsedGuard: frozenset({"age", "written"}),
    ClockGuard: frozenset({"instant", "written"}),
}


class Engine(Protocol):
    """A chart in a simulation.

    `due` is when its clock acts next. `left_down` is how many machines were down when a counting state was left last.
    """

    state: str
    visit: int
    due: int | None
    left_down: int

    def has_room(self) -> bool:
        """Return whether the state has a free slot."""

    def opens_at(self, now: int) -> int | None:
        """Return the first instant from `now` on at which no window refuses a machine; None if none is known."""

    def find_idle(self, machines: Collection[str]) -> Collection[str] | None:
        """Return those of `machines` that take part in this visit, and were not counted as it began; None for all."""

    def claim(self, machine: str, now: int) -> bool:
        """Claim a slot of the current state; return whether the machine holds one then."""

    def report(self, machine: str, state: str, key: str, now: int) -> bool:
        """Report on `state`; return whether the report was accepted."""

    def tick(self, now: int) -> None:
        """Let the clock act."""


def make_engine(chart: Chart, start: datetime, rosters: Lists | None = None) -> Engine:
    """Return the fastest engine that keeps this chart as `step` does."""
    return Tally(chart, start) if is_plain(chart) else StepEngine(chart, start, rosters)


def is_plain(chart: Chart) -> bool:
    """Return whether the chart uses nothing but what `Tally` knows."""
    states = list(chart.states.values())
    guards = [transition.guard for state in states for transition in state.transitions]
    rules = [state.slots for state in states if state.slots is not None]
    return all(_is_known(item) for item in (chart, *states, *guards, *rules))


def _is_known(item: object) -> bool:
    known = KNOWN.get(type(item))
    if known is None:
        return False
    for field in fields(item):  # type: ignore[arg-type]  # each of them is a dataclass
        if field.init and field.name not in known:
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            if getattr(item, field.name) != default:
                return False
    return True


class StepEngine:
    """The core itself."""

    def __init__(self, chart: Chart, start: datetime, rosters: Lists | None = None) -> None:
        self._start = start
        self._world = World(chart, start, rosters)
        self.left_down = 0
        # The opening that was looked up last; it holds for one visit.
        self._open_from = self._open_until = 0
        self._follow()

    def has_room(self) -> bool:
        """Return whether the state has a free slot."""
        here = self._world.position
        rule = self._world.chart.state_at(here).slots
        return rule is not None and len(here.slots) < rule.limit(here.succeeded)

    def opens_at(self, now: int) -> int | None:
        """Return the first instant from `now` on at which no window refuses a machine; None if none is known."""
        schedule = self._world.chart.find_schedule(self.state)
        if schedule is None or self._open_from <= now < self._open_until:
            return now
        hours, at = self._world.position.hours, self._start + now * MICROSECOND
        rule = self._world.chart.states[self.state].slots
        length = rule.lease if rule is not None and schedule.fit else None
        opens = find_fitting(schedule, hours, at, length or MICROSECOND)
        if opens is None:
            return None
        closes = judge(schedule, hours, opens).closes_at
        if closes is not None:
            self._open_from = (opens - self._start) // MICROSECOND
            self._open_until = (closes - (length or timedelta(0)) - self._start) // MICROSECOND
        return (opens - self._start) // MICROSECOND

    def find_idle(self, machines: Collection[str]) -> Collection[str] | None:
        """Return those of `machines` that take part in this visit, and were not counted as it began; None for all."""
        expect, here = self._world.chart.expect_of(self.state), self._world.position
        counted = self._world.reports
        if (expect is None or not expect.names_machines) and not counted:
            return None
        kept = machines if expect is None else expect.keep(machines, here, self._world.memory)
        return {name for name in kept if name not in counted}

    def claim(self, machine: str, now: int) -> bool:
        """Claim a slot of the current state; return whether the machine holds one then."""
        step = self._at(now, lambda: self._world.claim(self.state, machine))
        return step is not None and step.verdict is Verdict.ACCEPTED

    def report(self, machine: str, state: str, key: str, now: int) -> bool:
        """Report on `state`; return whether the report was accepted."""
        step = self._at(now, lambda: self._world.put(state, machine, key))
        return step is not None and step.verdict is Verdict.ACCEPTED

    def tick(self, now: int) -> None:
        """Let the clock act."""
        self._at(now, lambda: self._world.do(Tick()))

    def _at(self, now: int, act: Callable[[], Step | None]) -> Step | None:
        world = self._world
        world.now = self._start + now * MICROSECOND
        before, reports, moves = world.position, dict(world.reports), len(world.moves)
        try:
            step = act()
        except StateServiceError:
            return None
        for number, move in enumerate(world.moves[moves:]):
            self._open_from = self._open_until = 0
            if step is not None and world.chart.states[move.from_state].is_counting:
                # A state that is entered and left in one step has at most the report that ends it.
                left = before.visit + number
                failed = sum(report.visit == left and report.key == FAILED_KEY for report in step.reports)
                self.left_down = failed if number else _count_down(before, reports, step)
        self._follow()
        return step

    def _follow(self) -> None:
        here, due = self._world.position, self._world.due_at
        self.state, self.visit = here.state, here.visit
        self.due = None if due is None else (due - self._start) // MICROSECOND


def _count_down(before: Position, reports: dict[str, str | None], step: Step) -> int:
    """Return how many machines were down when the step left its first state."""
    held = set(before.slots)
    first = next(number for number, entry in enumerate(step.entries) if entry.kind in MOVES)
    last = {step.entries[first].machine} if step.entries[first].machine is not None else set()
    said = {entry.machine for entry in step.entries[:first]} | last
    held -= {entry.machine or "" for entry in step.entries[:first] if entry.reason == OnExpire.FREE}
    # What a machine says after the state was left comes last.
    is_late = any(entry.kind is Kind.LATE for entry in step.entries[first:])
    for report in step.reports[:-1] if is_late else step.reports:
        if report.visit == before.visit and report.machine in said:
            reports[report.machine] = report.key
            held.discard(report.machine)
    return len(held | {name for name, key in reports.items() if key == FAILED_KEY})


class Tally:
    """The counts of a plain chart, kept as `step` keeps them."""

    def __init__(self, chart: Chart, start: datetime) -> None:
        self._chart = chart
        self._start = start
        self._fence = 0
        self._clock_moves = 0
        self._enter(chart.initial, 0)
        self.visit = 1
        self.left_down = 0
        self._begin(0)

    def _enter(self, name: str, now: int) -> None:
        state = self._chart.states[name]
        self._state, self.state = state, name
        self._rule = state.slots
        self._lease = None if state.slots is None or state.slots.lease is None else state.slots.lease // MICROSECOND
        self.values = state.initial_values()
        self._reports: dict[str, str] = {}
        self._succeeded = 0
        # Each holder's end of lease, None for never, and its fence; and the leases in the order of their ends.
        self.held: dict[str, tuple[int | None, int]] = {}
        self._leases: list[tuple[int, int, str]] = []
        # In the order of the file: when it comes due, or None; what must hold, or None; where it leads.
        self._moves = [self._read(transition, now) for transition in state.transitions]
        self._clock = min((due for due, _, _ in self._moves if due is not None), default=None)
        self._find_due()

    def _read(self, transition: Transition, now: int) -> tuple[int | None, CountGuard | None, str]:
        guard = transition.guard
        if isinstance(guard, CountGuard):
            return None, guard, transition.target
        if isinstance(guard, ElapsedGuard):
            return now + guard.age // MICROSECOND, None, transition.target
        return (guard.instant - self._start) // MICROSECOND, None, transition.target

    def has_room(self) -> bool:
        """Return whether the state has a free slot."""
        return self._rule is not None and len(self.held) < self._rule.limit(self._succeeded)

    def opens_at(self, now: int) -> int | None:
        """Return `now`: a plain chart has no windows."""
        return now

    def find_idle(self, machines: Collection[str]) -> Collection[str] | None:
        """Return None: every machine of a plain chart takes part in each of its states."""
        return None

    def claim(self, machine: str, now: int) -> bool:
        """Claim a slot of the current state; return whether the machine holds one then."""
        state = self.state
        self._begin(now)
        if self._rule is None or self.state != state or not self._chart.is_on_roster(machine):
            return False
        held = self.held.get(machine)
        if held is None:
            if self._reports.get(machine) == self._state.default_key or not self.has_room():
                return False
            self._fence += 1
        fence = self._fence if held is None else held[1]
        expires = None if self._lease is None else now + self._lease
        self.held[machine] = (expires, fence)
        if expires is not None:
            heapq.heappush(self._leases, (expires, fence, machine))
            self._find_due()
        return True

    def report(self, machine: str, state: str, key: str, now: int) -> bool:
        """Report on `state`; return whether the report was accepted."""
        self._begin(now)
        if state != self.state or not self._state.is_counting:
            return False
        if self._reports.get(machine) == key:
            self.held.pop(machine, None)
            self._find_due()
            return True
        if not self._chart.is_on_roster(machine) or (self._rule is not None and machine not in self.held):
            return False
        self._count(machine, key)
        if self._take_first_that_holds(now):
            self._run_clock(now)
        elif self._lease is not None:
            self._find_due()
        return True

    def tick(self, now: int) -> None:
        """Let the clock act."""
        self._begin(now)

    def _begin(self, now: int) -> None:
        """Begin a step: the clock goes first."""
        self._clock_moves = 0
        self._run_clock(now)

    def _count(self, machine: str, key: str) -> None:
        func, first = self._state.func, self._state.default_key
        assert func is not None  # a final state counts nothing
        moved_from = self._reports.get(machine)
        if moved_from is not None:
            self.values[moved_from] = func.undo(moved_from, self.values[moved_from])
        self.values[key] = func.apply(key, self.values[key])
        self._reports[machine] = key
        self._succeeded += (key == first) - (moved_from == first)
        self.held.pop(machine, None)

    def _take_first_that_holds(self, now: int) -> bool:
        for due, guard, target in self._moves:
            if due <= now if due is not None else guard is not None and self._holds(guard):
                self._move(target, now)
                return True
        return False

    def _holds(self, guard: CountGuard) -> bool:
        return compare(guard.op, self.values[guard.key], guard.threshold)

    def _move(self, target: str, now: int) -> None:
        if self._state.is_counting:
            failed = {name for name, key in self._reports.items() if key == FAILED_KEY}
            self.left_down = len(failed.union(self.held))
        self._enter(target, now)
        self.visit += 1

    def _run_clock(self, now: int) -> None:
        while self.due is not None and self.due <= now and self._clock_moves < MOVES_PER_STEP:
            if self._clock is not None and self._clock <= now:
                target = next(target for due, _, target in self._moves if due is not None and due <= now)
                self._move(target, now)
                self._clock_moves += 1
            else:
                self._end_lease(now)

    def _end_lease(self, now: int) -> None:
        """End the lease that ran out first, as the state's `on_expire` says."""
        _, fence, machine = heapq.heappop(self._leases)
        assert self._rule is not None  # it has leases
        if self._rule.on_expire is OnExpire.HOLD:
            # It is held on, and its end is past: no other end comes before the machine claims again.
            self.held[machine] = (None, fence)
        elif self._rule.on_expire is OnExpire.FREE or self._reports.get(machine) == FAILED_KEY:
            del self.held[machine]
        else:
            self._count(machine, FAILED_KEY)
        if self._rule.on_expire is OnExpire.FAIL and self._take_first_that_holds(now):
            return
        self._find_due()

    def _find_due(self) -> None:
        leases, held = self._leases, self.held
        while leases and held.get(leases[0][2]) != leases[0][:2]:
            heapq.heappop(leases)
        ends = leases[0][0] if leases else None
        self.due = min(ends, self._clock) if ends is not None and self._clock is not None else ends or self._clock
