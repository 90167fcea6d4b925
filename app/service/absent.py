"""The machines that take part in a state and have not reported there, page by page: a roster may have a million."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from app import store
from app.core.chart import Chart
from app.core.errors import BadRequestError
from app.core.expect import Expect, FromRoster, Listed, Reporters
from app.core.position import Position
from app.db import Connection
from app.service.crowds import Knowledge
from app.store.machines import MachineFilter

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
