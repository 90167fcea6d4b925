"""Which machines take part: the sets that `expect` can name, groups of machines, and what a decision asks of them.

A number and a list say it themselves (`Number`, `Listed`). The others must be looked up: a roster in the version that
the chart goes by (`FromRoster`), and the machines that reported earlier in the run (`Reporters`). Core does no I/O, so
the caller hands in a `Known` that can answer: the service asks the database, a replay its own rows.

A group is a value of a label: `rack=r12`. It limits how many of its machines may be down at a time. A machine is *down*
if it holds a slot or stands at `failed` in this visit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from typing import ClassVar, Literal, NamedTuple, Protocol

# What a roster says of one machine: the values of each label.
Labels = Mapping[str, tuple[str, ...]]
# Labels that a machine must have: for each label, one of these values.
Where = tuple[tuple[str, tuple[str, ...]], ...]


class PastReport(NamedTuple):
    """A machine's standing report in a visit of the current run; `key` is None if an upgrade dropped the attribute."""

    visit: int
    state: str
    machine: str
    key: str | None


class Rosters(Protocol):
    """Versions of rosters, which never change."""

    def find_labels(self, roster: str, version: int, machines: Collection[str]) -> Mapping[str, Labels]:
        """Return the labels of those of `machines` that are on the roster."""

    def count_machines(self, roster: str, version: int, where: Where) -> int:
        """Return how many machines of the roster have the labels `where`."""

    def count_groups(self, roster: str, version: int, where: Where, label: str) -> Mapping[str, int]:
        """Return how many of these machines have each value of `label`."""


class Known(Rosters, Protocol):
    """What a decision may ask about machines."""

    def list_reports(
        self, run: int, states: Collection[str], machines: Collection[str] | None = None
    ) -> Sequence[PastReport]:
        """Return the standing reports in the run's visits of `states`, the earliest visit first.

        With `machines` only theirs.
        """


class Place(Protocol):
    """What a set reads of a chart's position (`app.core.position.Position`)."""

    @property
    def run(self) -> int:
        """The current run."""

    @property
    def visit(self) -> int:
        """The current visit."""

    @property
    def rosters(self) -> Mapping[str, int]:
        """The version in force of each roster that the chart follows."""


def matches(labels: Labels, where: Where) -> bool:
    """Return whether a machine with these labels has one of the wanted values of every label in `where`."""
    return all(not set(values).isdisjoint(labels.get(label, ())) for label, values in where)


@dataclass(frozen=True, slots=True)
class Number:
    """So many machines, whichever they are."""

    is_fixed: ClassVar[Literal[True]] = True
    names_machines: ClassVar[bool] = False

    machines: int

    @property
    def size(self) -> int:
        """How many machines take part."""
        return self.machines

    def keep(self, machines: Collection[str], place: Place, known: Known) -> Collection[str]:
        """Return those of `machines` that take part: all of them."""
        return machines


@dataclass(frozen=True, slots=True)
class Listed:
    """The machines that the chart file lists."""

    is_fixed: ClassVar[Literal[True]] = True
    names_machines: ClassVar[bool] = True

    machines: tuple[str, ...]
    _set: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_set", frozenset(self.machines))

    @property
    def size(self) -> int:
        """How many machines take part."""
        return len(self.machines)

    def has(self, machine: str) -> bool:
        """Return whether `machine` is listed."""
        return machine in self._set

    def keep(self, machines: Collection[str], place: Place, known: Known) -> Collection[str]:
        """Return those of `machines` that are listed."""
        return self._set.intersection(machines)


@dataclass(frozen=True, slots=True)
class FromRoster:
    """The machines of a roster that have the labels `where`, in the version that the chart goes by."""

    is_fixed: ClassVar[Literal[False]] = False
    names_machines: ClassVar[bool] = True

    roster: str
    where: Where = ()

    def count(self, place: Place, known: Known, earlier: Iterable[PastReport]) -> int:
        """Return how many machines take part."""
        return known.count_machines(self.roster, place.rosters[self.roster], self.where)

    def keep(self, machines: Collection[str], place: Place, known: Known) -> Collection[str]:
        """Return those of `machines` that take part."""
        found = known.find_labels(self.roster, place.rosters[self.roster], machines)
        return {machine for machine, labels in found.items() if matches(labels, self.where)}


@dataclass(frozen=True, slots=True)
class Reporters:
    """The machines whose last report in one of `states` of this run, before the current visit, stands.

    With `key` only those whose report is on that attribute.
    """

    is_fixed: ClassVar[Literal[False]] = False
    names_machines: ClassVar[bool] = True

    states: tuple[str, ...]
    key: str | None = None

    def count(self, place: Place, known: Known, earlier: Iterable[PastReport]) -> int:
        """Return how many machines take part; `earlier` are the reports in `states` before the current visit."""
        return sum(1 for _ in self._select(earlier))

    def keep(self, machines: Collection[str], place: Place, known: Known) -> Collection[str]:
        """Return those of `machines` that take part."""
        reports = known.list_reports(place.run, self.states, machines)
        return set(self._select(report for report in reports if report.visit < place.visit))

    def _select(self, reports: Iterable[PastReport]) -> Iterator[str]:
        for machine, report in last_words(reports).items():
            if self.key is None or report.key == self.key:
                yield machine


# A set that the file alone decides, and any set.
Fixed = Number | Listed
LookedUp = FromRoster | Reporters
Expect = Fixed | LookedUp


def as_people(machines: Expect | None) -> Expect | None:
    """Return what a chart's set says of a state on which people report: their number at most, never who they are."""
    if machines is None or not machines.names_machines:
        return machines
    return Number(machines.size) if isinstance(machines, Listed) else None


def last_words(reports: Iterable[PastReport]) -> dict[str, PastReport]:
    """Return each machine's report in the latest of the visits in which it reported; the earliest visit comes first."""
    return {report.machine: report for report in reports}


class ReadLabels(dict[str, tuple[str, ...]]):
    """Labels as they were read, which never change. `groups` keeps what `list_groups` found in them last."""

    __slots__ = ("groups",)
    groups: tuple[object, list[tuple[str, str]]] | None


@lru_cache(maxsize=20_000)
def read_labels(text: str) -> Labels:
    """Return the labels that are kept as `rack=r12 shard=7 shard=9`: for each label its values."""
    labels = ReadLabels()
    labels.groups = None
    for label, value in split_labels(text):
        labels[label] = (*labels.get(label, ()), value)
    return labels


def split_labels(text: str) -> Iterator[tuple[str, str]]:
    """Yield each label with each of its values, from the text in which labels are kept."""
    for token in text.split():
        label, _, value = token.partition("=")
        yield label, value


class Book:
    """Rosters held in memory: by name and version, the labels of each machine; and no earlier reports."""

    def __init__(self, rosters: Mapping[str, Mapping[int, Mapping[str, Labels]]] | None = None) -> None:
        self.rosters = rosters or {}

    def find_labels(self, roster: str, version: int, machines: Collection[str]) -> Mapping[str, Labels]:
        """Return the labels of those of `machines` that are on the roster."""
        lines = self.rosters[roster][version]
        return {machine: lines[machine] for machine in machines if machine in lines}

    def count_machines(self, roster: str, version: int, where: Where) -> int:
        """Return how many machines of the roster have the labels `where`."""
        return sum(matches(labels, where) for labels in self.rosters[roster][version].values())

    def count_groups(self, roster: str, version: int, where: Where, label: str) -> Mapping[str, int]:
        """Return how many of these machines have each value of `label`."""
        lines = self.rosters[roster][version].values()
        return count_values((labels for labels in lines if matches(labels, where)), label)

    def count_without(self, roster: str, version: int, where: Where, label: str) -> int:
        """Return how many of these machines lack `label`."""
        lines = self.rosters[roster][version].values()
        return sum(label not in labels for labels in lines if matches(labels, where))

    def list_reports(
        self, run: int, states: Collection[str], machines: Collection[str] | None = None
    ) -> Sequence[PastReport]:
        """Return no reports."""
        return ()


def count_values(lines: Iterable[Labels], label: str) -> dict[str, int]:
    """Return how many of the machines with these labels have each value of `label`."""
    found: dict[str, int] = {}
    for labels in lines:
        for value in labels.get(label, ()):
            found[value] = found.get(value, 0) + 1
    return found


# For charts whose sets need no look-up.
NOTHING = Book()


# Groups

# A label and one of its values.
Group = tuple[str, str]


@dataclass(frozen=True, slots=True)
class GroupLimit:
    """How many machines of each group of `label` may be down: a number, or a share of the group's machines.

    `written` is the file's text.
    """

    label: str
    written: str
    machines: int | None = None
    share: Fraction | None = None

    def of(self, size: int) -> int:
        """Return the limit of a group of `size` machines: a share is rounded up, and at least 1."""
        if self.share is None:
            assert self.machines is not None  # the file says a number or a share
            return self.machines
        return max(1, math.ceil(size * self.share))


def write_group(group: Group) -> str:
    """Return a group as people and programs read it: `rack=r12`."""
    return f"{group[0]}={group[1]}"


def list_groups(limits: Sequence[GroupLimit], labels: Labels) -> list[Group]:
    """Return the groups of a machine with these labels: each value of each label that has a limit."""
    # Each claim asks for the groups of every machine that is down, so they are kept with the labels.
    kept = labels.groups if isinstance(labels, ReadLabels) else None
    if kept is not None and kept[0] is limits:
        return kept[1]
    found = [(limit.label, value) for limit in limits for value in labels.get(limit.label, ())]
    if isinstance(labels, ReadLabels):
        labels.groups = (limits, found)
    return found


@dataclass(frozen=True, slots=True)
class Down:
    """The groups of each machine that is down, and how many machines are down in each group."""

    groups: Mapping[str, Sequence[Group]] = field(default_factory=dict)
    counts: Mapping[Group, int] = field(default_factory=dict)

    def add(self, machine: str, groups: Sequence[Group]) -> Down:
        """Return the same with `machine` down; nothing changes if it is down already."""
        if machine in self.groups:
            return self
        counts = dict(self.counts)
        for group in groups:
            counts[group] = counts.get(group, 0) + 1
        return Down({**self.groups, machine: groups}, counts)

    def drop(self, machine: str) -> Down:
        """Return the same without `machine`."""
        if machine not in self.groups:
            return self
        counts = dict(self.counts)
        for group in self.groups[machine]:
            counts[group] -= 1
        return Down({name: groups for name, groups in self.groups.items() if name != machine}, counts)

    def count_others(self, group: Group, machine: str) -> int:
        """Return how many machines of the group are down, without `machine` itself."""
        return self.counts.get(group, 0) - (group in self.groups.get(machine, ()))

    def list_machines(self, group: Group) -> list[str]:
        """Return the machines of the group that are down, by name."""
        return sorted(machine for machine, groups in self.groups.items() if group in groups)


# No machine is down.
ALL_UP = Down()


def put_down(machines: Mapping[str, Labels], limits: Sequence[GroupLimit]) -> Down:
    """Return `machines`, with their labels, as the machines that are down."""
    groups = {machine: list_groups(limits, labels) for machine, labels in machines.items()}
    return Down(groups, Counter(chain.from_iterable(groups.values())))


def find_full_group(
    machine: str, labels: Labels, limits: Sequence[GroupLimit], down: Down, size_of: Callable[[Group], int]
) -> Group | None:
    """Return the first group of `machine` that has its limit of other machines down; None if no group has.

    A machine that is down already does not stand in its own way: it adds none. `size_of` counts a group's machines.
    """
    for limit in limits:
        for value in labels.get(limit.label, ()):
            group = (limit.label, value)
            others = down.count_others(group, machine)
            if others and others >= limit.of(0 if limit.share is None else size_of(group)):
                return group
    return None
