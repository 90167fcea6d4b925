"""Who takes part: what a decision on a chart asks about machines, and which of them have not reported.

A version of a roster never changes, so whatever was looked up in it is kept. Only the machines that were asked about
are kept, never a whole roster, which may have a million. For the same reason absent machines are listed page by page.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

from cachetools import LRUCache

from app import store
from app.core.chart import Chart
from app.core.errors import BadRequestError
from app.core.expect import Expect, FromRoster, Labels, Listed, PastReport, Reporters, Where
from app.core.position import Position
from app.db import Connection
from app.store.machines import MachineFilter

# Machines whose labels a process keeps, over all rosters.
MAX_MACHINES = 200_000
# Counts that a process keeps. A count of groups has an entry for each of them.
MAX_COUNTS = 2_000

# The SQLite file (None on PostgreSQL), and the roster's id.
RosterKey = tuple[tuple[int, int] | None, int]
# A roster's version, the labels that its machines must have, and the label by whose values they are counted.
CountKey = tuple[RosterKey, int, Where, str | None]


class UncountedGroupsError(Exception):
    """The sizes of a roster's groups are needed while charts are locked, and were not counted before."""

    def __init__(self, key: RosterKey, version: int, where: Where, labels: Collection[str]) -> None:
        super().__init__(key, version, where, labels)
        self._entry, self._labels = (key, version, where), labels

    def count(self, cache: RosterCache, connection: Connection) -> Mapping[str, Mapping[str, int]]:
        """Count the groups of every label with one reading of the roster, and keep what was found."""
        (_, roster_id), version, where = self._entry
        found = store.rosters.count_groups(connection, roster_id, version, where, self._labels)
        with cache.lock:
            cache.counts.update({(*self._entry, label): sizes for label, sizes in found.items()})
        return found


@dataclass(slots=True)
class RosterCache:
    """What was looked up in versions of rosters; threads share it."""

    ids: dict[tuple[tuple[int, int] | None, str], int] = field(default_factory=dict)
    counts: LRUCache[CountKey, Mapping[str, int]] = field(default_factory=lambda: LRUCache(MAX_COUNTS))
    _lines: dict[tuple[RosterKey, int], dict[str, Labels | None]] = field(default_factory=dict)
    _size: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def lines(self, key: RosterKey, version: int) -> dict[str, Labels | None]:
        """Return what is kept of a version: the labels of machines, and None for machines that it does not list."""
        return self._lines.setdefault((key, version), {})

    def keep(self, key: RosterKey, version: int, found: Mapping[str, Labels | None]) -> None:
        """Keep what was looked up in a version."""
        with self.lock:
            if self._size + len(found) > MAX_MACHINES:
                self._lines.clear()
                self._size = 0
            self._size += len(found)
            self._lines.setdefault((key, version), {}).update(found)


@dataclass(slots=True, eq=False)
class Knowledge:
    """What is known of machines, in one transaction on one chart; `row` is None for a chart that is not there yet.

    `machines` are those whom the transaction is about: what is asked of one of them is looked up for all at once.
    `limited` are the labels whose groups the transaction may ask for while it locks charts. A roster may be so large
    that counting takes seconds, so it is not done then; None if no chart is locked, or only by an operator's act.
    """

    cache: RosterCache
    connection: Connection
    row: store.charts.ChartRow | None
    _: KW_ONLY
    machines: frozenset[str] = frozenset()
    limited: Collection[str] | None = None
    _past: dict[tuple[int, frozenset[str]], Mapping[str, Sequence[PastReport]]] = field(default_factory=dict)

    def about(self, machines: Collection[str], limited: Collection[str] | None = None) -> Knowledge:
        """Return the same, for a transaction that is about `machines`, with groups of the labels `limited`."""
        return Knowledge(self.cache, self.connection, self.row, machines=frozenset(machines), limited=limited)

    def find_labels(self, roster: str, version: int, machines: Collection[str]) -> Mapping[str, Labels]:
        """Return the labels of those of `machines` that are on the roster."""
        key = self._find_key(roster)
        kept: Mapping[str, Labels | None] = self.cache.lines(key, version)
        # A claim asks for each machine that is down. So nothing here calls a function for each of them.
        if [machine for machine in machines if machine not in kept]:
            wanted = {machine for machine in (*machines, *self.machines) if machine not in kept}
            found = store.rosters.find_labels(self.connection, key[1], version, wanted)
            looked_up = {machine: found.get(machine) for machine in wanted}
            self.cache.keep(key, version, looked_up)
            kept = {**{machine: kept.get(machine) for machine in machines}, **looked_up}
        return {machine: labels for machine in machines if (labels := kept[machine]) is not None}

    def count_machines(self, roster: str, version: int, where: Where) -> int:
        """Return how many machines of the roster have the labels `where`."""
        key = self._find_key(roster)

        def count() -> Mapping[str, int]:
            if where:
                return {"": store.rosters.count_lines(self.connection, key[1], version, where)}
            found = store.rosters.find_version(self.connection, key[1], version)
            assert found is not None  # a chart goes by a version that there is
            return {"": found.machines}

        return self._counted((key, version, where, None), count)[""]

    def count_groups(self, roster: str, version: int, where: Where, label: str) -> Mapping[str, int]:
        """Return how many of these machines have each value of `label`.

        Raises UncountedGroupsError if that would have to be counted while charts are locked.
        """
        key = self._find_key(roster)

        def count() -> Mapping[str, int]:
            uncounted = UncountedGroupsError(key, version, where, {label, *(self.limited or ())})
            if self.limited is not None:
                raise uncounted
            return uncounted.count(self.cache, self.connection)[label]

        return self._counted((key, version, where, label), count)

    def count_without(self, roster: str, version: int, where: Where, label: str) -> int:
        """Return how many of these machines lack `label`."""
        return store.rosters.count_lines(self.connection, self._find_key(roster)[1], version, where, without=label)

    def _counted(self, entry: CountKey, count: Callable[[], Mapping[str, int]]) -> Mapping[str, int]:
        with self.cache.lock:
            found = self.cache.counts.get(entry)
        if found is None:
            found = count()
            with self.cache.lock:
                self.cache.counts[entry] = found
        return found

    def list_reports(
        self, run: int, states: Collection[str], machines: Collection[str] | None = None
    ) -> Sequence[PastReport]:
        """Return the standing reports in the run's visits of `states`, the earliest visit first."""
        if self.row is None or run != self.row.run:
            return ()
        if machines is None:
            return store.machines.list_past_reports(self.connection, self.row, states)
        if not self.machines.issuperset(machines):
            return store.machines.list_past_reports(self.connection, self.row, states, machines)
        key = (run, frozenset(states))
        if key not in self._past:
            found: dict[str, list[PastReport]] = {}
            for report in store.machines.list_past_reports(self.connection, self.row, states, self.machines):
                found.setdefault(report.machine, []).append(report)
            self._past[key] = found
        reports = [report for machine in machines for report in self._past[key].get(machine, ())]
        return sorted(reports, key=lambda report: report.visit)

    def _find_key(self, roster: str) -> RosterKey:
        identity = self.connection.info.get("identity")
        roster_id = self.cache.ids.get((identity, roster))
        if roster_id is None:
            row = store.rosters.find_roster(self.connection, roster)
            if row is None:
                raise BadRequestError(f"there is no roster {roster!r}")
            roster_id = self.cache.ids[identity, roster] = row.id
        return identity, roster_id


# Machines that have not reported

# As many as a sentence names.
FEW = MachineFilter(limit=10)
ALL = MachineFilter(limit=2**31)


@dataclass(frozen=True, slots=True)
class Absent:
    """Machines that have not reported: some of them, and how many there are in all."""

    machines: tuple[str, ...] = ()
    total: int = 0


def takes_part(known: Knowledge, chart: Chart, position: Position, machine: str) -> bool:
    """Return whether a set that names its machines has `machine` in it."""
    expect = chart.expect_of(position.state)
    return expect is not None and expect.names_machines and machine in expect.keep([machine], position, known)


def find_absent(
    known: Knowledge,
    connection: Connection,
    row: store.charts.ChartRow,
    chart: Chart,
    wanted: MachineFilter = FEW,
    *,
    visit: int | None = None,
) -> Absent | None:
    """Return the machines that take part in a visit, the current one if it is None, and have not reported there.

    None if nothing says which machines take part.
    """
    state = chart.states[row.state]
    return find_absent_in(
        known, connection, row, chart, state.name, visit=row.visit if visit is None else visit, wanted=wanted
    )


def find_absent_in(
    known: Knowledge,
    connection: Connection,
    row: store.charts.ChartRow,
    chart: Chart,
    state: str,
    *,
    visit: int | None,
    wanted: MachineFilter,
) -> Absent | None:
    """As `find_absent`, for a state and its latest visit; None for a visit that has not begun."""
    expect = chart.expect_of(state)
    if expect is None or not expect.names_machines or not chart.states[state].attributes:
        return None
    if isinstance(expect, FromRoster):
        roster = store.rosters.find_roster(connection, expect.roster)
        assert roster is not None  # the chart goes by it
        version = store.charts.build_position(row, {}).rosters[expect.roster]
        here = store.rosters.Listing(roster.id, version, expect.where)
        machines, total = store.rosters.list_absent(connection, row, visit, here, wanted)
        return Absent(tuple(machines), total)
    members = _list_members(known, connection, row, expect, visit)
    reported = {} if visit is None else store.machines.read_reports(connection, row._replace(visit=visit))
    absent = [name for name in members if name not in reported and wanted.text in name]
    if wanted.after is not None:
        if wanted.after not in members:
            raise BadRequestError(f"after={wanted.after} is not on the roster of chart {row.name!r}")
        later = list(members)[list(members).index(wanted.after) + 1 :]
        absent = [name for name in later if name not in reported]
    return Absent(tuple(absent[wanted.offset : wanted.offset + wanted.limit]), len(absent))


def count_expected_in(
    known: Knowledge,
    connection: Connection,
    row: store.charts.ChartRow,
    chart: Chart,
    visit: store.machines.VisitRow,
) -> int | None:
    """Return how many machines take part in a visit of the run; None if nothing says it, or the state is gone."""
    position = store.charts.build_position(row, {})
    if visit.visit == row.visit:
        return chart.count_expected(position)
    expect = chart.expect_of(visit.state) if visit.state in chart.states else None
    if expect is None or expect.is_fixed:
        return None if expect is None else expect.size
    if isinstance(expect, FromRoster):
        return expect.count(position, known, ())
    return len(_list_members(known, connection, row, expect, visit.visit))


def _list_members(
    known: Knowledge, connection: Connection, row: store.charts.ChartRow, expect: Expect, visit: int | None
) -> Collection[str]:
    if isinstance(expect, Listed):
        return expect.machines
    assert isinstance(expect, Reporters)  # the other sets were dealt with before
    here = store.charts.build_position(row, {})
    place = replace(here, visit=here.visit + 1 if visit is None else visit)
    reported = {report.machine for report in known.list_reports(row.run, expect.states)}
    return sorted(expect.keep(reported, place, known))
