"""Simulated runs of a chart: machines that poll, work and report, on a clock that jumps; and how many runs end.

No poll is simulated that is bound to be refused. Machines that wait are kept in the order of their polls, so the next
one to ask after an instant is found at once, and a run costs as many events as there is work.

Many runs are shared out over the processors. Run number N depends on the seed and on N alone, so the same command gives
the same figures on any machine.
"""

from __future__ import annotations

import bisect
import heapq
import multiprocessing
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from app.core.chart import FAILED_KEY, Chart, State
from app.core.errors import BadRequestError, StateServiceError
from app.core.expect import Listed
from app.core.log import MICROSECOND, format_instant
from app.core.memory import Lists
from app.core.plan import list_failed_endings
from app.diagram.plots import Curve
from app.lab.tally import make_engine
from app.lab.world import need_rosters

# One run

# A run in which the machines have had so much time, or which has had so many visits, is taken never to end.
PATIENCE = timedelta(days=90)
MAX_VISITS = 1000
# People who approve.
APPROVERS = 10
# Events after which a run looks at the time that it may take.
EVENTS_PER_LOOK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What a simulation takes for granted.

    Each machine asks every `poll`, works for a time between `shortest` and `longest`, or as long as one of `spans` if
    there are any, fails with the chance `fail`, and is never heard of again with the chance `lost`. With `retries` a
    machine that failed tries again at its next poll. `start` is when the chart is imported. In a state of approvers,
    people approve when `approve` has passed. `rosters` has the lines of the rosters that the chart goes by; then
    `machines` are as many as these have together.
    """

    start: datetime
    machines: int
    fail: float = 0.0
    lost: float = 0.0
    shortest: timedelta = timedelta(minutes=10)
    longest: timedelta = timedelta(minutes=40)
    poll: timedelta = timedelta(minutes=30)
    retries: bool = False
    approve: timedelta = timedelta(hours=1)
    spans: Sequence[timedelta] = ()
    rosters: Lists = field(default_factory=dict)

    def list_machines(self, chart: Chart) -> Sequence[str]:
        """Return the machines that live in a run of the chart."""
        if chart.roster is not None:
            return chart.roster
        if chart.rosters:
            return sorted({name for roster in chart.rosters for name in self.rosters[roster]})
        listed = {
            name
            for state in chart.states.values()
            if isinstance(state.expect, Listed)
            for name in state.expect.machines
        }
        return [*sorted(listed), *(f"m{n:06}" for n in range(1, self.machines - len(listed) + 1))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended: in `state`, reached from `origin`, `after` so long; None stands for a run that never ends.

    `down` held a slot or stood at `failed` when the last counting state was left, `at_work` had begun and not reported,
    and `begun` had begun in this run, whatever became of them.
    """

    state: str | None
    origin: str
    after: timedelta
    down: int
    at_work: int
    begun: int


class OutOfTimeError(StateServiceError):
    """A run took longer to simulate than it may."""


def live(chart: Chart, assumed: Assumptions, chance: Random, until: float | None = None) -> Ending:
    """Return how one run ends; the same `chance` gives the same run.

    Raises OutOfTimeError if it is not simulated by `until` (time.thread_time).
    """
    return _Fleet(chart, assumed, chance).live(until)


class _Fleet:
    def __init__(self, chart: Chart, assumed: Assumptions, chance: Random) -> None:
        self._chart, self._assumed, self._chance = chart, assumed, chance
        self._engine = make_engine(chart, assumed.start, assumed.rosters)
        self._poll = max(assumed.poll // MICROSECOND, 1)
        self._shortest = assumed.shortest // MICROSECOND
        self._more = (assumed.longest - assumed.shortest) // MICROSECOND + 1
        # Below it, the luck of a machine that begins is a failure, or worse.
        self._unlucky = assumed.lost + assumed.fail * (1 - assumed.lost)
        self._spans = [span // MICROSECOND for span in assumed.spans]
        names = assumed.list_machines(chart)
        # Each machine's poll comes at its phase, again and again.
        self._polls = sorted((int(chance.random() * self._poll), name) for name in names)
        self._waiting: list[tuple[int, str]] = []
        # The machines that may act in this visit, if they are not all there are.
        self._idle: Collection[str] | None = None
        self._phases = {name: phase for phase, name in self._polls}
        self._working: list[tuple[int, str, str, str]] = []
        self._busy: set[str] = set()
        self._begun: set[str] = set()
        self._now = 0
        # Polls up to this instant have been answered.
        self._asked = 0
        self._visit = 0
        self._origin = ""
        self._state: State
        self._poll_at: int | None = None
        self._place = 0
        self._is_stale = True

    def live(self, until: float | None) -> Ending:
        patience, events = PATIENCE // MICROSECOND, 0
        self._follow()
        while not self._state.is_final and self._engine.visit < MAX_VISITS:
            events += 1
            if until is not None and not events % EVENTS_PER_LOOK and time.thread_time() > until:
                raise OutOfTimeError("the run is not over")
            if self._is_stale or self._has_slots:
                self._find_next_poll()
            poll = self._poll_at if self._now < patience else None
            report = self._working[0][0] if self._working and self._now < patience else None
            due = self._engine.due
            known = [instant for instant in (poll, report, due) if instant is not None]
            if not known:
                break
            self._now = max(min(known), self._now)
            if due is not None and due <= self._now:
                self._engine.tick(self._now)
            elif report is not None and report <= self._now:
                self._report()
            else:
                self._ask()
            if self._engine.visit != self._visit:
                self._follow()
        return Ending(
            state=self._state.name if self._state.is_final else None,
            origin=self._origin if self._state.is_final else self._state.name,
            after=timedelta(microseconds=self._now),
            down=self._engine.left_down,
            at_work=len(self._busy),
            begun=len(self._begun),
        )

    def _follow(self) -> None:
        """Take note of a new visit: every machine that is not busy may act in it."""
        if self._visit:
            self._origin = self._state.name
        self._visit, self._state = self._engine.visit, self._chart.states[self._engine.state]
        self._asked = self._now
        self._has_slots = self._state.slots is not None
        self._keys = frozenset(self._state.initial_values())
        self._first = self._state.default_key or ""
        self._is_stale = True
        if self._state.approvers is not None:
            self._waiting = []
            ready = self._now + self._assumed.approve // MICROSECOND
            for number in range(APPROVERS):
                heapq.heappush(self._working, (ready, f"approver {number}", self._state.name, self._first))
            return
        self._waiting = []
        if self._state.is_counting:
            busy, idle = self._busy, self._engine.find_idle(self._phases)
            self._idle = idle
            self._waiting = [item for item in self._polls if item[1] not in busy and (idle is None or item[1] in idle)]

    def _find_next_poll(self) -> None:
        """Find out which machine asks next of those that may get a yes, and when."""
        self._is_stale = False
        self._poll_at = None
        waiting = self._waiting
        if not waiting or (self._has_slots and not self._engine.has_room()):
            return
        since = self._engine.opens_at(self._asked if self._asked > self._now else self._now)
        if since is None:
            return
        self._place = bisect.bisect_left(waiting, (since % self._poll, ""))
        if self._place == len(waiting):
            self._place = 0
        self._poll_at = since + (waiting[self._place][0] - since) % self._poll

    def _ask(self) -> None:
        """Let the machine whose poll it is ask, and begin if it may."""
        self._is_stale = True
        phase, name = self._waiting.pop(self._place)
        if self._has_slots and not self._engine.claim(name, self._now):
            # It asks again after its interval; the next one asks at once.
            bisect.insort(self._waiting, (phase, name))
            self._asked = self._now + 1
            return
        self._begun.add(name)
        self._busy.add(name)
        assumed, chance = self._assumed, self._chance
        luck = chance.random()
        if luck < assumed.lost:
            return
        key = FAILED_KEY if luck < self._unlucky else self._first
        if key not in self._keys:
            # The state counts no failures, so a machine that fails says nothing.
            return
        span = chance.choice(self._spans) if self._spans else self._shortest + int(chance.random() * self._more)
        heapq.heappush(self._working, (self._now + span, name, self._state.name, key))

    def _report(self) -> None:
        """Let the machine that is ready first report."""
        _, name, state, key = heapq.heappop(self._working)
        self._busy.discard(name)
        is_counted = self._engine.report(name, state, key, self._now)
        if self._engine.visit != self._visit:
            return
        if name not in self._phases or not self._state.is_counting or self._state.approvers is not None:
            return
        if self._idle is not None and name not in self._idle:
            return
        has_done_its_part = is_counted and state == self._state.name
        if not has_done_its_part or (key == FAILED_KEY and self._assumed.retries):
            bisect.insort(self._waiting, (self._phases[name], name))
            self._is_stale = True


# Many runs

# Runs that a process does before it reports.
CHUNK = 10
PERCENTILES = (5, 50, 90, 95)
# Called now and then with the runs that are done, and the runs there are in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Spread:
    """The percentiles of a number over the runs, by PERCENTILES, and the largest."""

    percentiles: tuple[float, ...]
    most: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        """Return the spread of at least one number: a percentile is the smallest that so many do not exceed."""
        found = sorted(numbers)
        return cls(tuple(found[max(-(-len(found) * share // 100) - 1, 0)] for share in PERCENTILES), found[-1])

    def as_json(self) -> dict[str, float]:
        """Return the spread as `--json` shows it."""
        found = {f"p{share}": value for share, value in zip(PERCENTILES, self.percentiles, strict=True)}
        return {**found, "most": self.most}


@dataclass(frozen=True, slots=True)
class Group:
    """The runs that ended in `state`, reached from `origin`; None stands for runs that never end, stuck in `origin`."""

    state: str | None
    origin: str
    endings: Sequence[Ending]

    @property
    def name(self) -> str:
        """The ending as people read it."""
        return f"{self.state} (from {self.origin})" if self.state is not None else f"never ends (in {self.origin})"

    @property
    def after(self) -> Spread:
        """When the runs ended, in seconds."""
        return Spread.of([item.after.total_seconds() for item in self.endings])

    @property
    def down(self) -> Spread:
        """How many machines were down."""
        return Spread.of([item.down for item in self.endings])

    @property
    def at_work(self) -> Spread:
        """How many machines had begun and not reported."""
        return Spread.of([item.at_work for item in self.endings])

    @property
    def begun(self) -> Spread:
        """How many machines had begun."""
        return Spread.of([item.begun for item in self.endings])


@dataclass(frozen=True, slots=True)
class Simulation:
    """What came out of a number of runs."""

    chart: str
    seed: int
    assumed: Assumptions
    endings: Sequence[Ending]

    def list_groups(self) -> list[Group]:
        """Return the endings, the most frequent first."""
        groups: dict[tuple[str | None, str], list[Ending]] = {}
        for ending in self.endings:
            groups.setdefault((ending.state, ending.origin), []).append(ending)
        found = [Group(state, origin, endings) for (state, origin), endings in groups.items()]
        return sorted(found, key=lambda group: (-len(group.endings), group.name))

    def as_json(self) -> dict[str, Any]:
        """Return the result as `--json` shows it; lengths of time are in seconds."""
        assumed = self.assumed
        return {
            "chart": self.chart,
            "runs": len(self.endings),
            "seed": self.seed,
            "assumed": {
                "start": format_instant(assumed.start),
                "machines": assumed.machines,
                "fail": assumed.fail,
                "lost": assumed.lost,
                "work": [assumed.shortest.total_seconds(), assumed.longest.total_seconds()],
                "learned": len(assumed.spans),
                "poll": assumed.poll.total_seconds(),
                "retry": assumed.retries,
                "approve": assumed.approve.total_seconds(),
                "sentences": list_assumptions(assumed),
            },
            "endings": [
                {
                    "state": group.state,
                    "from": group.origin,
                    "runs": len(group.endings),
                    "share": len(group.endings) / len(self.endings),
                    "after": group.after.as_json(),
                    "down": group.down.as_json(),
                    "at_work": group.at_work.as_json(),
                    "begun": group.begun.as_json(),
                }
                for group in self.list_groups()
            ],
        }


def list_assumptions(assumed: Assumptions) -> list[str]:
    """Return what the figures take for granted, in sentences."""
    work = (
        f"as long as one of {len(assumed.spans)} pieces of work of an earlier run"
        if assumed.spans
        else say_range(assumed.shortest, assumed.longest)
    )
    again = "tries again at its next poll" if assumed.retries else "does not try again in that state"
    return [
        f"{assumed.machines:,} machines ask every {say_time(assumed.poll)}, each at a time of its own",
        f"each works {work}, any length as likely as another, and then reports",
        f"{_percent(assumed.fail)} of the tries fail; a machine that failed reports it and {again}",
        f"{_percent(assumed.lost)} of the machines that begin are never heard of again",
        "a machine whose report comes after the state was left does its work again in the next one",
        f"people approve after {say_time(assumed.approve)}; no calendar closes a window, and no operator acts",
        f"the run begins at {format_instant(assumed.start)}",
        f"machines act for {say_time(PATIENCE)} at most, and a run of {MAX_VISITS} visits never ends",
    ]


def say_range(shortest: timedelta, longest: timedelta) -> str:
    """Return two lengths of time as people read them."""
    return say_time(shortest) if shortest == longest else f"{say_time(shortest)} to {say_time(longest)}"


def say_time(span: timedelta) -> str:
    """Return a length of time in its two largest units: `2 h 5 min`."""
    left, said = round(span.total_seconds()), list[str]()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if left >= size and len(said) < 2:
            said.append(f"{left // size} {unit}")
        left %= size
    return " ".join(said) or "0 s"


def _percent(share: float) -> str:
    return f"{share * 100:g} %"


# Running


def simulate(
    chart: Chart,
    assumed: Assumptions,
    runs: int,
    *,
    seed: int = 1,
    jobs: int = 1,
    progress: Progress = lambda done, of: None,
) -> Simulation:
    """Let `runs` fleets live, in `jobs` processes; 1 means in this one. Raises BadRequestError."""
    need_rosters(chart, assumed.rosters)
    chunks = [range(first, min(first + CHUNK, runs)) for first in range(0, runs, CHUNK)]
    endings: dict[int, Ending] = {}
    for found in _run_chunks(chart, assumed, chunks, seed, jobs):
        endings.update(found)
        progress(len(endings), runs)
    return Simulation(chart.name, seed, assumed, [endings[number] for number in range(runs)])


def simulate_within(chart: Chart, assumed: Assumptions, runs: int, seconds: float, *, seed: int = 1) -> Simulation:
    """Let `runs` fleets live in this thread, or as many as `seconds` of its processor time suffice for.

    Raises BadRequestError if they do not suffice for one.
    """
    need_rosters(chart, assumed.rosters)
    until = time.thread_time() + seconds
    endings: list[Ending] = []
    try:
        while len(endings) < runs:
            endings.append(live(chart, assumed, Random(f"{seed}:{len(endings)}"), until))
    except OutOfTimeError:
        if not endings:
            raise BadRequestError(
                f"one run of {assumed.machines:,} machines takes more than {seconds:g} s of computing: assume fewer"
                " machines, or use chart simulate on the command line"
            ) from None
    return Simulation(chart.name, seed, assumed, endings)


def _run_chunks(
    chart: Chart, assumed: Assumptions, chunks: Sequence[range], seed: int, jobs: int
) -> Iterator[dict[int, Ending]]:
    if jobs <= 1:
        yield from (_live_all(chart, assumed, chunk, seed) for chunk in chunks)
        return
    # A forked child has the chart already: it need not be sent.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), _take, (chart, assumed, seed))
    try:
        for future in as_completed([pool.submit(_live_chunk, chunk) for chunk in chunks]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _live_all(chart: Chart, assumed: Assumptions, numbers: range, seed: int) -> dict[int, Ending]:
    return {number: live(chart, assumed, Random(f"{seed}:{number}")) for number in numbers}


# What a child process simulates.
_GIVEN: list[tuple[Chart, Assumptions, int]] = []


def _take(chart: Chart, assumed: Assumptions, seed: int) -> None:
    _GIVEN[:] = [(chart, assumed, seed)]


def _live_chunk(numbers: range) -> dict[int, Ending]:
    chart, assumed, seed = _GIVEN[0]
    return _live_all(chart, assumed, numbers, seed)


def list_curves(found: Simulation, chart: Chart) -> list[Curve]:
    """Return the endings of the simulated `chart` for a picture, the most frequent first."""
    failed = {None, *list_failed_endings(chart)}
    return [
        Curve(group.name, [item.after.total_seconds() for item in group.endings], group.state in failed)
        for group in found.list_groups()
    ]
