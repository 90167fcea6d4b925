"""Many simulated runs of a chart: how they end, when, and how many machines are down and have begun by then.

The runs are shared out over the processors. Run number N depends on the seed and on N alone, so the same command gives
the same figures on any machine.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

from app.core.chart import Chart
from app.core.errors import BadRequestError
from app.core.log import format_instant
from app.core.plan import list_failed_endings
from app.diagram.plots import Curve
from app.lab.fleet import MAX_VISITS, PATIENCE, Assumptions, Ending, OutOfTimeError, live
from app.lab.world import need_rosters

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
