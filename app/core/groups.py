"""Groups of machines: how many of each may be down at a time, and which are down now.

A group is a value of a label: `rack=r12`. A machine is *down* if it holds a slot or stands at `failed` in this visit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from app.core.expect import Labels

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


def list_groups(limits: Iterable[GroupLimit], labels: Labels) -> tuple[Group, ...]:
    """Return the groups of a machine with these labels: each value of each label that has a limit."""
    return tuple((limit.label, value) for limit in limits for value in labels.get(limit.label, ()))


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


# Nobody is down.
ALL_UP = Down()


def put_down(machines: Mapping[str, Labels], limits: Sequence[GroupLimit]) -> Down:
    """Return `machines`, with their labels, as the machines that are down."""
    groups: dict[str, Sequence[Group]] = {}
    counts: dict[Group, int] = {}
    for machine, labels in machines.items():
        groups[machine] = list_groups(limits, labels)
        for group in groups[machine]:
            counts[group] = counts.get(group, 0) + 1
    return Down(groups, counts)


def find_full_group(
    machine: str, labels: Labels, limits: Sequence[GroupLimit], down: Down, size_of: Callable[[Group], int]
) -> Group | None:
    """Return the first group of `machine` that has its limit of other machines down; None if no group has.

    A machine that is down already does not stand in its own way: it adds nobody. `size_of` counts a group's machines.
    """
    for limit in limits:
        for value in labels.get(limit.label, ()):
            group = (limit.label, value)
            others = down.count_others(group, machine)
            if others and others >= limit.of(0 if limit.share is None else size_of(group)):
                return group
    return None
