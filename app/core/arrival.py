"""What follows from who takes part when a visit begins, or when its set of machines changes.

Decisions and replays share these functions, so that a replay rebuilds what no row of the log says by itself: the size
of the set, the machines that are counted from earlier states, and the groups of the machines that are down.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from app.core.chart import FAILED_KEY, Chart, CountGuard, SlotRule, State, Transition
from app.core.expect import (
    ALL_UP,
    FromRoster,
    Group,
    Known,
    Labels,
    PastReport,
    Rosters,
    Where,
    find_full_group,
    last_words,
    list_groups,
    put_down,
)
from app.core.position import Position, Report

# How the reason of a row ends by which a state is left on entry.
_ON_ENTRY = re.compile(r": ([0-9]+) counted on entry$")
# The reason of a row `roster`.
_TAKEN_OVER = re.compile(r"(.+) version (?:([0-9]+) to )?([0-9]+)")


class Recalled:
    """What was known before, and on top of it the reports that were made or withdrawn since, in the run `run`.

    `states` has the state of each visit that these reports are of.
    """

    def __init__(
        self,
        known: Known,
        run: int,
        states: Mapping[int, str],
        reports: Sequence[Report],
        withdrawn: Sequence[Report] = (),
    ) -> None:
        self._known = known
        self._run = run
        self._states = states
        self._reports = reports
        self._withdrawn = withdrawn

    def find_labels(self, roster: str, version: int, machines: Collection[str]) -> Mapping[str, Labels]:
        """Return the labels of those of `machines` that are on the roster."""
        return self._known.find_labels(roster, version, machines)

    def count_machines(self, roster: str, version: int, where: Where) -> int:
        """Return how many machines of the roster have the labels `where`."""
        return self._known.count_machines(roster, version, where)

    def count_groups(self, roster: str, version: int, where: Where, label: str) -> Mapping[str, int]:
        """Return how many of these machines have each value of `label`."""
        return self._known.count_groups(roster, version, where, label)

    def list_reports(
        self, run: int, states: Collection[str], machines: Collection[str] | None = None
    ) -> Sequence[PastReport]:
        """Return the standing reports in the run's visits of `states`, the earliest visit first."""
        found = {(item.visit, item.machine): item for item in self._known.list_reports(run, states, machines)}
        if run != self._run:
            return list(found.values())
        for report in self._withdrawn:
            found.pop((report.visit, report.machine), None)
        for report in self._reports:
            state = self._states[report.visit]
            if state in states and (machines is None or report.machine in machines):
                found[report.visit, report.machine] = PastReport(report.visit, state, report.machine, report.key)
        return sorted(found.values(), key=lambda item: item.visit)


def measure(chart: Chart, position: Position, known: Known) -> Position:
    """Return the position with the size of the current state's set, if that is looked up."""
    expect = chart.expect_of(position.state)
    if expect is None or expect.is_fixed:
        return position if position.expected is None else replace(position, expected=None)
    if isinstance(expect, FromRoster):
        # A replay reads the version from the row after the import.
        has_version = expect.roster in position.rosters
        return replace(position, expected=expect.count(position, known, ()) if has_version else None)
    return replace(position, expected=expect.count(position, known, _list_earlier(position, known, expect.states)))


def begin(chart: Chart, position: Position, known: Known) -> tuple[Position, list[str]]:
    """Return the position at the start of the visit that it is in, and the machines that are counted on entry."""
    position = measure(chart, position, known)
    state = chart.states[position.state]
    if not state.including or state.func is None or state.default_key is None:
        return position, []
    machines = _list_included(chart, position, known)
    key = state.default_key
    value = position.values[key]
    for _ in machines:
        value = state.func.apply(key, value)
    values = {**position.values, key: value}
    return replace(position, values=values, succeeded=position.succeeded + len(machines)), machines


def _list_included(chart: Chart, position: Position, known: Known) -> list[str]:
    including = chart.states[position.state].including
    # An upgrade may leave visits whose state the chart no longer has.
    first_keys = {name: chart.states[name].default_key for name in including if name in chart.states}
    words = last_words(_list_earlier(position, known, including))
    counted = {
        machine
        for machine, report in words.items()
        if report.key is not None and report.key == first_keys.get(report.state)
    }
    expect = chart.expect_of(position.state)
    return sorted(counted if expect is None else expect.keep(counted, position, known))


def _list_earlier(position: Position, known: Known, states: Collection[str]) -> list[PastReport]:
    return [report for report in known.list_reports(position.run, states) if report.visit < position.visit]


def find_entry_move(state: State, position: Position, counted: int, now: datetime) -> Transition | None:
    """Return the first transition that holds for `counted` machines that are counted on entry, or as the set is empty.

    Return None if no transition holds, or if a guard of the clock is the first that holds.
    """
    for transition in state.transitions:
        guard = transition.guard
        if guard.is_clock:
            if guard.holds(position, now):
                return None
            continue
        is_vacuous = position.expected == 0 and guard.is_percentage and guard.key == state.default_key
        if is_vacuous or (counted and guard.holds(position, now)):
            return transition
    return None


def write_counted_on_entry(guard: CountGuard, counted: int) -> str:
    """Return the reason of the row by which a state is left on entry."""
    return f"{guard.log_text}: {counted} counted on entry"


def read_counted_on_entry(reason: str | None) -> int | None:
    """Return how many machines were counted on entry, if a row's reason says so."""
    match = _ON_ENTRY.search(reason or "")
    return None if match is None else int(match[1])


def find_labels(chart: Chart, position: Position, rosters: Rosters, machines: Collection[str]) -> Mapping[str, Labels]:
    """Return the labels of `machines` in the current state; a machine that is on no roster has none."""
    roster = chart.find_label_roster(position.state)
    # A replay reads the version from the row after an import or an upgrade.
    version = None if roster is None else position.rosters.get(roster)
    found = {} if roster is None or version is None else rosters.find_labels(roster, version, machines)
    return {machine: found[machine] if machine in found else {} for machine in machines}  # noqa: SIM401


def regroup(chart: Chart, position: Position, rosters: Rosters) -> Position:
    """Return the position with the groups of the machines that are down, as their labels say now."""
    rule = chart.states[position.state].slots
    if rule is None or not rule.per:
        return position
    labels = find_labels(chart, position, rosters, position.failed | position.slots.keys())
    return replace(position, down=put_down(labels, rule.per))


def find_failed(chart: Chart, position: Position, reports: Mapping[str, str | None]) -> Position:
    """Return the position with the machines that stand at `failed`, if the state limits groups."""
    state = chart.states[position.state]
    if state.slots is None or not state.slots.per:
        return position if not position.failed else replace(position, failed=frozenset(), down=ALL_UP)
    failed = (machine for machine, key in reports.items() if key == FAILED_KEY and key in position.values)
    return replace(position, failed=frozenset(failed))


def groups_of(
    chart: Chart, position: Position, rosters: Rosters, rule: SlotRule, machine: str
) -> Sequence[Group] | None:
    """Return those groups of `machine` that have a limit; None if the state limits no groups."""
    if not rule.per:
        return None
    return list_groups(rule.per, find_labels(chart, position, rosters, [machine])[machine])


def find_full(chart: Chart, position: Position, known: Known, rule: SlotRule, machine: str) -> Group | None:
    """Return the first group of `machine` in which as many machines are down as may be; None if no group is full."""
    labels = find_labels(chart, position, known, [machine])[machine]
    return find_full_group(
        machine, labels, rule.per, position.down, lambda group: count_group(chart, position, known, group)
    )


def list_full(chart: Chart, position: Position, known: Known) -> list[tuple[Group, int, list[str]]]:
    """Return each group in which as many machines are down as may be, with that limit and these machines."""
    rule = chart.states[position.state].slots
    found = []
    for limit in () if rule is None else rule.per:
        for group, count in sorted(position.down.counts.items()):
            if group[0] == limit.label and count:
                most = limit.of(0 if limit.share is None else count_group(chart, position, known, group))
                if count >= most:
                    found.append((group, most, position.down.list_machines(group)))
    return found


def count_group(chart: Chart, position: Position, known: Known, group: Group) -> int:
    """Return how many machines of the current state's set are in a group."""
    label, value = group
    expect = chart.expect_of(position.state)
    if isinstance(expect, FromRoster):
        version = position.rosters[expect.roster]
        return known.count_groups(expect.roster, version, expect.where, label).get(value, 0)
    if expect is None or expect.is_fixed:
        members: Collection[str] = getattr(expect, "machines", ())
    else:
        earlier = {report.machine for report in _list_earlier(position, known, expect.states)}
        members = expect.keep(earlier, position, known)
    labels = find_labels(chart, position, known, members)
    return sum(value in labels[machine].get(label, ()) for machine in members)


def write_taken_over(roster: str, before: int | None, after: int) -> str:
    """Return the reason of the row by which a chart goes from one version of a roster to another."""
    return f"{roster} version {after}" if before is None else f"{roster} version {before} to {after}"


def read_taken_over(reason: str | None) -> tuple[str, int | None, int] | None:
    """Return what `write_taken_over` was given; None if the text is not one of its."""
    match = _TAKEN_OVER.fullmatch(reason or "")
    if match is None:
        return None
    return match[1], None if match[2] is None else int(match[2]), int(match[3])
