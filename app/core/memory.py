"""Machines without a database: rosters and reports in memory, and how many machines take part in each state.

Stories, simulations and proofs decide over these. The numbers of a proof come from the chart's own numbers and lists,
and from the lines of rosters. A state may have a set of its own. How many machines reported earlier in the run is not
known before the run, so such a set has every size from 0 to the most.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from app.core.chart import Chart, CountGuard, Func, Op, State
from app.core.expect import (
    Book,
    Expect,
    FromRoster,
    GroupLimit,
    Labels,
    Listed,
    Number,
    PastReport,
    Reporters,
    Where,
    matches,
)
from app.core.position import Report, Step

# Rosters by name, each with the labels of its machines.
Lists = Mapping[str, Mapping[str, Labels]]


class Memory(Book):
    """What a decision may ask about machines: the rosters in their versions, and the reports of the run so far."""

    def __init__(self, rosters: Lists) -> None:
        versions: dict[str, dict[int, Mapping[str, Labels]]] = {name: {1: lines} for name, lines in rosters.items()}
        super().__init__(versions)
        self._versions = versions
        self._counted: dict[tuple[str, int, Where, str | None], Mapping[str, int]] = {}
        self.run = 1
        # The state of each visit of the run, and the reports in it.
        self.states: dict[int, str] = {}
        self.reports: dict[int, dict[str, Report]] = {}

    def add(self, roster: str, lines: Mapping[str, Labels]) -> int:
        """Keep the lines as the roster's next version; return its number."""
        versions = self._versions.setdefault(roster, {})
        versions[len(versions) + 1] = lines
        return len(versions)

    @property
    def newest(self) -> dict[str, int]:
        """The newest version of each roster."""
        return {name: len(versions) for name, versions in self._versions.items()}

    def count_machines(self, roster: str, version: int, where: Where) -> int:
        """Return how many machines of the roster have the labels `where`."""
        key = (roster, version, where, None)
        if key not in self._counted:
            self._counted[key] = {"": super().count_machines(roster, version, where)}
        return self._counted[key][""]

    def count_groups(self, roster: str, version: int, where: Where, label: str) -> Mapping[str, int]:
        """Return how many of these machines have each value of `label`."""
        key = (roster, version, where, label)
        if key not in self._counted:
            self._counted[key] = super().count_groups(roster, version, where, label)
        return self._counted[key]

    def take(self, step: Step) -> None:
        """Keep what was decided: the visits that began, and the reports that stand."""
        self.run = step.position.run
        for report in step.withdrawn:
            self.reports.get(report.visit, {}).pop(report.machine, None)
        for report in step.reports:
            self.reports.setdefault(report.visit, {})[report.machine] = report
        for visit in step.visits:
            self.states[visit.visit] = visit.state

    def list_reports(
        self, run: int, states: Collection[str], machines: Collection[str] | None = None
    ) -> Sequence[PastReport]:
        """Return the standing reports in the run's visits of `states`, the earliest visit first."""
        if run != self.run:
            return ()
        return [
            PastReport(visit, self.states[visit], name, reports[name].key)
            for visit, reports in sorted(self.reports.items())
            if self.states[visit] in states
            for name in (reports if machines is None else machines)
            if name in reports
        ]


# How many machines take part

# How guards must compare so that machines which are counted on entry cannot jump over what they wait for.
RISING = {Func.INCREMENT: (Op.GE, Op.GT), Func.DECREMENT: (Op.LE, Op.LT)}


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who takes part: `machines` in all. `rosters` has the lines of each roster that the chart goes by."""

    chart: Chart
    machines: int
    rosters: Lists = field(default_factory=dict)
    _members: dict[str, frozenset[str] | None] = field(init=False, repr=False, default_factory=dict)

    def find_members(self, state: str) -> frozenset[str] | None:
        """Return the machines that can ever be in the state's set; None if only their number is known."""
        if state not in self._members:
            # If sets name each other in a circle, a set that is not known yet adds no machine.
            self._members[state] = frozenset()
            self._members[state] = self._find_members(self.chart.expect_of(state))
        return self._members[state]

    def _find_members(self, expect: Expect | None) -> frozenset[str] | None:
        match expect:
            case Listed(machines):
                return frozenset(machines)
            case FromRoster(roster, where):
                lines = self.rosters.get(roster, {})
                return frozenset(name for name, labels in lines.items() if matches(labels, where))
            case Reporters(states):
                found = [self.find_members(name) for name in states]
                return None if None in found else frozenset().union(*(one for one in found if one is not None))
        return None

    def find_most(self, state: str) -> int:
        """Return the most machines that can take part in the state."""
        expect, members = self.chart.expect_of(state), self.find_members(state)
        if members is not None:
            return len(members)
        return expect.machines if isinstance(expect, Number) else self.machines

    def find_limit(self, state: str) -> int | None:
        """Return the most machines that can act in a state without slots; None if no set of its own names them."""
        expect = self.chart.states[state].expect
        return self.find_most(state) if expect is not None and expect.names_machines else None

    def list_sizes(self, state: str) -> Sequence[int]:
        """Return every size that the state's set can have, the largest first."""
        most = self.find_most(state)
        return range(most, -1, -1) if isinstance(self.chart.expect_of(state), Reporters) else (most,)

    def find_state(self, state: str, size: int) -> State:
        """Return the state as it is if `size` machines take part in it."""
        found = self.chart.states[state]
        expect = self.chart.expect_of(state)
        return found if expect is None or expect.is_fixed else found.sized(size)

    def find_most_down(self, state: str) -> int | None:
        """Return the most machines that the limits of groups let be down in the state; None if they let all be."""
        rule, roster = self.chart.states[state].slots, self.chart.find_label_roster(state)
        members = self.find_members(state)
        if rule is None or roster is None or members is None:
            return None
        return min((self._count_down(limit, members, roster) for limit in rule.per), default=None)

    def _count_down(self, limit: GroupLimit, members: frozenset[str], roster: str) -> int:
        """Return how many of `members` may be down if no other limit binds; those of several groups count in each."""
        sizes: dict[str, int] = {}
        free = 0
        lines = self.rosters.get(roster, {})
        for name in members:
            values = lines.get(name, {}).get(limit.label, ())
            free += not values
            for value in values:
                sizes[value] = sizes.get(value, 0) + 1
        return free + sum(min(size, limit.of(size)) for size in sizes.values())

    def order(self, state: str) -> list[str]:
        """Return the state's machines: those that follow each other are of different groups, as far as that goes."""
        members, rule = sorted(self.find_members(state) or ()), self.chart.states[state].slots
        roster = self.chart.find_label_roster(state)
        if rule is None or not rule.per or roster is None:
            return members
        label, seen, turns = rule.per[0].label, dict[str, int](), dict[str, int]()
        for name in members:
            values = self.rosters.get(roster, {}).get(name, {}).get(label, ())
            turns[name] = max((seen.get(value, 0) for value in values), default=0)
            seen |= {value: seen.get(value, 0) + 1 for value in values}
        return sorted(members, key=lambda name: turns[name])


def count_machines(chart: Chart, rosters: Lists) -> int | None:
    """Return how many machines may take part in the chart in all; None if nothing says it."""
    crowd = Crowd(chart, 0, rosters)
    names: set[str] = set()
    number = 0
    for name, state in chart.states.items():
        if not state.is_for_machines:
            continue
        members, expect = crowd.find_members(name), chart.expect_of(name)
        if expect is None:
            return chart.expect
        if members is not None:
            names |= members
        elif isinstance(expect, Number):
            # Whether they are the same machines as in another state is not said.
            number = number + expect.machines if state.expect is not None else max(number, expect.machines)
    return len(names) + number


def find_uncovered(chart: Chart, rosters: Mapping[str, object] | None = None) -> str | None:
    """Return what of the chart no proof covers, as the end of a sentence; None if it covers everything.

    `rosters` are those whose lines are known.
    """
    missing = [name for name in chart.rosters if name not in (rosters or {})]
    if missing:
        return f"goes by the roster {missing[0]!r}, and its lines are not known here"
    for name, state in chart.states.items():
        guards = [item.guard for item in state.transitions if item.guard.key == state.default_key]
        allowed = RISING.get(state.func, ()) if state.func is not None else ()
        if state.including and any(isinstance(guard, CountGuard) and guard.op not in allowed for guard in guards):
            return f"counts machines on entry to {name!r} ('including'), where a guard waits for a number they may skip"
    return None
