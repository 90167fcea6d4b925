"""No row of a log at which a group has more machines down than it may: the log alone is read, and the rosters' lines.

`find_excess` shares nothing with the service's own groups or replay. `live` lets machines claim, report, fail and
oversleep while the roster changes; `DEFECTS` makes the service wrong on purpose, to see that `find_excess` sees it.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import app.core.arrival
import app.core.machine
import app.service.context
from app.core.errors import StateServiceError
from app.core.expect import GroupLimit
from app.core.log import LogRow
from app.core.position import Kind
from app.service.context import Service
from app.service.operate import reset
from app.service.put import Put
from app.service.rosters import RosterRequest, import_roster, list_versions, read_lines, read_list
from tests.service.support import NOBODY, Clock, import_text, rows
from tests.support.requests import claim, release, update

# Labels of each machine of a roster's version, and how many machines of each group may be down: a number or a share.
Lines = Mapping[str, Mapping[str, Sequence[str]]]
Limits = Mapping[str, int | Fraction]
Group = tuple[str, str]
# Rows that begin a visit.
ENTERING = frozenset({Kind.IMPORT, Kind.TRANSITION, Kind.TIMEOUT, Kind.RESET, Kind.GOTO})
# Rows after which a group may be over its limit although no claim took it there: other labels, other limits.
CHANGING = frozenset({Kind.ROSTER, Kind.UPGRADE})


@dataclass(slots=True)
class Ledger:
    """Who is down, row by row; `versions` has the lines of each version of the chart's roster."""

    versions: Mapping[int, Lines]
    limits: Mapping[str, Limits]
    version: int = 0
    state: str = ""
    held: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    # How many were down in a group when a roster or a version brought it over its limit.
    excused: dict[Group, int] = field(default_factory=dict)
    # The sizes of all groups in each version: rosters may be large.
    sizes: dict[int, Counter[Group]] = field(default_factory=dict)

    def take(self, row: LogRow) -> list[str]:
        """Take in a row; return each group that is over its limit after it."""
        self._follow(row)
        found = []
        counts = self._count_down()
        sizes = self._count_sizes()
        if row.kind in CHANGING:
            self.excused = dict(counts)
        for group, down in sorted(counts.items()):
            limit = self.limits.get(self.state, {}).get(group[0])
            if limit is None:
                continue
            most = limit if isinstance(limit, int) else max(1, math.ceil(sizes[group] * limit))
            # It comes down from what the change left, and may not rise again.
            self.excused[group] = min(self.excused.get(group, 0), down)
            if down > max(most, self.excused[group]):
                found.append(f"seq {row.seq}: {down} machines of {group[0]}={group[1]} are down, and {most} may be")
        return found

    def _follow(self, row: LogRow) -> None:
        machine = row.machine or ""
        match row.kind:
            case Kind.CLAIM:
                self.held.add(machine)
            case Kind.RELEASE | Kind.EVICT:
                self.held.discard(machine)
            case Kind.EXPIRE if row.reason != "hold":
                self.held.discard(machine)
                self.failed |= {machine} if row.reason == "fail" else set()
            case Kind.UPDATE:
                self.held.discard(machine)
                self.failed.discard(machine)
                self.failed |= {machine} if row.key == "failed" else set()
            case Kind.WITHDRAW:
                self.failed.discard(machine)
            case Kind.ROSTER:
                self.version = int((row.reason or "").rpartition(" ")[2])
        if row.kind != Kind.LATE:
            # A late report is about a state that the chart has left.
            self.state = row.to_state
        if row.kind in ENTERING:
            self.held, self.failed, self.excused = set(), set(), {}

    def _count_down(self) -> Counter[Group]:
        lines = self.versions.get(self.version, {})
        return Counter(group for name in self.held | self.failed for group in _list_groups(lines.get(name, {})))

    def _count_sizes(self) -> Counter[Group]:
        if self.version not in self.sizes:
            lines = self.versions.get(self.version, {}).values()
            self.sizes[self.version] = Counter(group for labels in lines for group in _list_groups(labels))
        return self.sizes[self.version]


def _list_groups(labels: Mapping[str, Sequence[str]]) -> Iterator[Group]:
    for label, values in labels.items():
        yield from ((label, value) for value in values)


def find_excess(log: Sequence[LogRow], versions: Mapping[int, Lines], limits: Mapping[str, Limits]) -> list[str]:
    """Return every row at which a group is over its limit."""
    ledger = Ledger(versions, limits)
    return [found for row in log for found in ledger.take(row)]


# A life under which groups fill up

LEASE = 60
CHART = f"""\
chart: groups
current_state: work
expect: {{roster: groups}}
states:
  - name: work
    func: increment
    slots: {{total: 15, per: {{rack: 1, shard: 2, zone: "25%"}}}}
    lease: {LEASE}s
    on_expire: fail
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target: {{name: done, when: {{key: count, value: 1000000}}}}
  - name: done
"""
LIMITS: Mapping[str, Limits] = {"work": {"rack": 1, "shard": 2, "zone": Fraction(1, 4)}}
MACHINES = 40
# What a machine does next, and how often.
DEEDS = {"claim": 60, "report": 14, "fail": 6, "give back": 6}
# Turns of each thread, between which the roster or the clock may change.
TURNS = 25
THREADS = 4


@dataclass(frozen=True, slots=True)
class Life:
    """What came of a life: the rows at which a group was over its limit, and what was answered how often."""

    excess: list[str]
    rows: int
    answers: Counter[str]


def live(service: Service, clock: Clock, *, seed: int = 1, rounds: int = 20) -> Life:
    """Let machines live on the service, several threads at a time, and read the log."""
    chance = random.Random(seed)
    _import(service, _roster(chance))
    import_text(service, CHART)
    answers: Counter[str] = Counter()
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(rounds):
            seeds = [chance.random() for _ in range(THREADS)]
            for counted in threads.map(lambda start: _take_turns(service, start), seeds):
                answers += counted
            deed = chance.choice(["roster", "sleep", "sleep", "reset", "nothing"])
            if deed == "roster":
                _import(service, _roster(chance))
            elif deed == "sleep":
                clock.advance(chance.choice([1, LEASE + 1]))
            elif deed == "reset":
                reset(service, "groups", "again", NOBODY)
    lines = {
        number: read_list(service, "groups", number)
        for number in range(1, list_versions(service, "groups")[-1].version + 1)
    }
    log = rows(service, "groups")
    return Life(find_excess(log, lines, LIMITS), len(log), answers)


def _roster(chance: random.Random) -> str:
    """Return the lines of a roster: each machine in a rack of its own choice, in two shards, in one of three zones."""
    lines = []
    for number in range(MACHINES):
        shards = ",".join(map(str, sorted(chance.sample(range(8), 2))))
        lines.append(f"m{number:02} rack=r{chance.randrange(12)} shard={shards} zone={chance.choice('abc')}\n")
    return "".join(lines)


def _import(service: Service, lines: str) -> None:
    request = RosterRequest("groups", read_lines(lines.encode().splitlines()), max_loss=Fraction(1))
    import_roster(service, request, NOBODY)


def _take_turns(service: Service, seed: float) -> Counter[str]:
    chance = random.Random(seed)
    answers: Counter[str] = Counter()
    for _ in range(TURNS):
        name = f"m{chance.randrange(MACHINES):02}"
        deed = chance.choices(list(DEEDS), list(DEEDS.values()))[0]
        try:
            if deed == "claim":
                answer = claim(service, "groups", "work", name)
            elif deed == "give back":
                answer = release(service, "groups", "work", name)
            else:
                key = "failed" if deed == "fail" else "count"
                answer = update(service, "groups", Put("work", name, key))
        except StateServiceError as error:
            answers[type(error).__name__] += 1
        else:
            answers[str(answer.reason)] += 1
    return answers


# Seeded defects

arrival: Any = app.core.arrival
deciding: Any = app.core.machine
context: Any = app.service.context


def no_limit() -> Iterator[None]:
    """No group is ever full."""
    yield from _replaced(deciding, "find_full", lambda original: lambda *arguments: None)


def one_too_many() -> Iterator[None]:
    """A group is full only when one machine more than its limit is down."""
    yield from _replaced(GroupLimit, "of", lambda original: lambda self, size: original(self, size) + 1)


def first_value_alone() -> Iterator[None]:
    """A machine counts in the group of its first value of a label alone."""

    def make(original: Any) -> Any:
        def find_labels(*arguments: Any) -> Any:
            found = original(*arguments)
            return {name: {label: values[:1] for label, values in one.items()} for name, one in found.items()}

        return find_labels

    yield from _replaced(arrival, "find_labels", make)


def first_roster() -> Iterator[None]:
    """The labels are for ever those of the roster's first version."""

    def make(original: Any) -> Any:
        def find_labels(chart: Any, position: Any, rosters: Any, machines: Any) -> Any:
            first = replace(position, rosters=dict.fromkeys(position.rosters, 1))
            return original(chart, first, rosters, machines)

        return find_labels

    yield from _replaced(arrival, "find_labels", make)


def share_of_everybody() -> Iterator[None]:
    """A share is one of all machines, not of the group's."""
    yield from _replaced(arrival, "count_group", lambda original: lambda *arguments: MACHINES)


def failed_are_up() -> Iterator[None]:
    """A machine that stands at `failed` is forgotten by the next transaction."""

    def make(original: Any) -> Any:
        return lambda chart, position, known: original(chart, replace(position, failed=frozenset()), known)

    yield from _replaced(context, "regroup", make)


def _replaced(place: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    original = getattr(place, name)
    setattr(place, name, make(original))
    try:
        yield
    finally:
        setattr(place, name, original)


DEFECTS: dict[str, Callable[[], Iterator[None]]] = {
    "no limit": no_limit,
    "one too many": one_too_many,
    "the first value of a label alone": first_value_alone,
    "the first version of the roster": first_roster,
    "a share of everybody": share_of_everybody,
    "failed machines are up": failed_are_up,
}


@contextmanager
def seeded(defect: str) -> Iterator[None]:
    """Make the service wrong while the block runs."""
    yield from DEFECTS[defect]()
