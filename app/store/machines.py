"""The tables `visits`, `reports` and `slots`: which states a chart was in, and what machines did there."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import starmap
from typing import Any, NamedTuple

from sqlalchemy import and_, bindparam, delete, func, insert, select, union, update

from app.core.chart import FAILED_KEY, Chart
from app.core.expect import PastReport
from app.core.log import format_instant
from app.core.position import Kind, Report, Slot, Visit
from app.db import DIALECTS, Connection, Prepared, among, listed, recordset, upsert
from app.models import charts, reports, slots, transition_log, visits
from app.store.charts import ChartRow

# Reading visits


@dataclass(frozen=True, slots=True)
class VisitRow:
    """A stay in a state; `left_at` is None while it lasts."""

    run: int
    visit: int
    state: str
    entered_at: datetime
    left_at: datetime | None


_OF_RUN = (visits.c.chart_id == bindparam("chart_id"), visits.c.run == bindparam("run"))
_LATEST_VISITS = Prepared(
    {
        dialect: select(
            asked.c.value,
            select(visits.c.visit)
            .where(*_OF_RUN, visits.c.state == asked.c.value)
            .order_by(visits.c.visit.desc())
            .limit(1)
            .scalar_subquery(),
        )
        for dialect, asked in listed("states", visits.c.state).items()
    }
)
_ENTERED = Prepared(select(visits.c.visit).where(*_OF_RUN, visits.c.state == bindparam("state")).limit(1))


def list_latest_visits(connection: Connection, row: ChartRow, states: Collection[str]) -> dict[str, int]:
    """Return the number of the latest visit, in the current run, of each of `states` that the run has entered.

    Used by: PUTs.
    """
    found = _LATEST_VISITS.rows(connection, {"chart_id": row.id, "run": row.run, "states": list(states)})
    return {state: visit for state, visit in found if visit is not None}


def was_entered(connection: Connection, row: ChartRow, state: str) -> bool:
    """True if the chart's current run has entered `state`. Used by: GET /reached."""
    parameters = {"chart_id": row.id, "run": row.run, "state": state}
    return bool(_ENTERED.rows(connection, parameters))


def list_visits(connection: Connection, row: ChartRow, limit: int) -> list[VisitRow]:
    """List the latest visits of the current run, oldest first. Used by: the page of a chart."""
    query = (
        select(*(visits.c[name] for name in VisitRow.__slots__))
        .where(visits.c.chart_id == row.id, visits.c.run == row.run)
        .order_by(visits.c.visit.desc())
        .limit(limit)
    )
    return [VisitRow(*found) for found in reversed(connection.execute(query).all())]


def list_visits_of_runs(connection: Connection, row: ChartRow, first: int, last: int) -> list[VisitRow]:
    """List the visits of the runs from `first` to `last`, oldest first. Used by: the comparison of runs, verify."""
    query = (
        select(*(visits.c[name] for name in VisitRow.__slots__))
        .where(visits.c.chart_id == row.id, visits.c.run.between(first, last))
        .order_by(visits.c.run, visits.c.visit)
    )
    return [VisitRow(*found) for found in connection.execute(query)]


def find_visit(
    connection: Connection, row: ChartRow, run: int, *, state: str | None = None, visit: int | None = None
) -> VisitRow | None:
    """Return the latest visit of a run, of `state` or with the number `visit` if these are given; None without one."""
    query = select(*(visits.c[name] for name in VisitRow.__slots__)).where(
        visits.c.chart_id == row.id, visits.c.run == run
    )
    if state is not None:
        query = query.where(visits.c.state == state)
    if visit is not None:
        query = query.where(visits.c.visit == visit)
    found = connection.execute(query.order_by(visits.c.visit.desc()).limit(1)).one_or_none()
    return None if found is None else VisitRow(*found)


def list_runs(connection: Connection, row: ChartRow) -> list[int]:
    """List the runs of which there are visits or reports. Used by: verify."""
    found = [select(table.c.run).where(table.c.chart_id == row.id) for table in (visits, reports)]
    return sorted(connection.execute(union(*found)).scalars())


# Writing visits


_LEAVE = Prepared(
    update(visits)
    .where(
        visits.c.chart_id == bindparam("b_chart_id"),
        visits.c.run == bindparam("b_run"),
        visits.c.visit == bindparam("b_visit"),
        visits.c.left_at.is_(None),
    )
    .values(left_at=bindparam("b_left_at", type_=visits.c.left_at.type))
)
_ENTER = Prepared(insert(visits).values({item.name: bindparam(item.name) for item in visits.c}))


def write_visits(connection: Connection, entered: Sequence[tuple[ChartRow, Visit]], now: datetime) -> None:
    """Write the visits that begin now, each with the row that its chart had before, in order; the last one lasts.

    The visit that each row says the chart is in ends.
    """
    if not entered:
        return
    last = {row.id: visit for row, visit in entered}
    rows = {row.id: row for row, _ in entered}
    _LEAVE.run_all(connection, [_left(row, now) for row in rows.values()])
    _ENTER.run_all(
        connection,
        [
            {
                "chart_id": row.id,
                "run": visit.run,
                "visit": visit.visit,
                "state": visit.state,
                "entered_at": now,
                "left_at": None if visit is last[row.id] else now,
            }
            for row, visit in entered
        ],
    )


def leave_visit(connection: Connection, row: ChartRow, now: datetime) -> None:
    """End the visit that `row` says the chart is in, unless it has ended already."""
    _LEAVE.run(connection, _left(row, now))


def _left(row: ChartRow, now: datetime) -> dict[str, Any]:
    return {"b_chart_id": row.id, "b_run": row.run, "b_visit": row.visit, "b_left_at": now}


def rename_visits(connection: Connection, row: ChartRow, homes: Mapping[str, str]) -> None:
    """Rename the state of this run's visits: `homes` says for each old name the new one. Used by: upgrades."""
    for old, new in homes.items():
        here = (visits.c.chart_id == row.id, visits.c.run == row.run, visits.c.state == old)
        connection.execute(update(visits).where(*here).values(state=new))


# Reading reports


@dataclass(frozen=True, slots=True)
class MachineReport:
    """A machine's latest report in a visit; `key` is None once an upgrade has dropped the attribute."""

    machine: str
    key: str | None
    reported_at: datetime
    seq: int
    note: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the report as the HTTP interface gives it."""
        return {
            "machine": self.machine,
            "key": self.key,
            "reported_at": format_instant(self.reported_at),
            "seq": self.seq,
            "note": self.note,
        }


class AskedReport(NamedTuple):
    """The report of a machine in one visit of a chart."""

    chart_id: int
    run: int
    visit: int
    machine: str


@dataclass(frozen=True, slots=True)
class VisitReport:
    """A machine's report, and the visit in which it was made."""

    run: int
    visit: int
    state: str
    report: MachineReport

    def as_json(self) -> dict[str, Any]:
        """Return the report as the HTTP interface gives it, without the machine."""
        said = {name: value for name, value in self.report.as_json().items() if name != "machine"}
        return {"run": self.run, "visit": self.visit, "state": self.state, **said}

    def as_text(self) -> str:
        """Return the report in one line."""
        report = self.report
        note = "" if report.note is None else f": {' '.join(report.note.split())}"
        return f"{format_instant(report.reported_at)} {report.key or '-'} in {self.state}, run {self.run}{note}"


@dataclass(frozen=True, slots=True)
class ReportFilter:
    """Which reports of a visit are wanted: on one attribute, of machines whose id is after `after`, `limit` of them."""

    key: str | None = None
    after: str | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class MachineFilter:
    """Which machines of a visit are wanted: those with `text` in their id, on one attribute, and which page of them."""

    text: str = ""
    key: str | None = None
    offset: int = 0
    limit: int = 50
    after: str | None = None


_REPORT_COLUMNS = tuple(reports.c[name] for name in MachineReport.__slots__)
_REPORTS = Prepared(
    {
        dialect: select(reports.c.visit, reports.c.machine, reports.c.key).where(
            reports.c.chart_id == bindparam("chart_id"),
            reports.c.run == bindparam("run"),
            among(reports.c.visit, "visits")[dialect],
            is_asked,
        )
        for dialect, is_asked in among(reports.c.machine, "machines").items()
    }
)
# One read answers the questions of many machines on many charts; `asked` is a JSON array of objects.
_ASKED_COLUMNS = (reports.c.chart_id, reports.c.run, reports.c.visit, reports.c.machine)
_ASKED_ROWS = recordset("asked", *_ASKED_COLUMNS)
_ASKED_ITEMS = func.json_each(bindparam("asked")).table_valued("value")
_STANDING = (reports.c.chart_id, reports.c.run, reports.c.visit, reports.c.machine, reports.c.key)
_STANDING_REPORTS = Prepared(
    {
        # The LIMIT keeps PostgreSQL from joining, for which it would read all reports: it looks each of them up.
        "postgresql": select(
            select(*_STANDING)
            .where(*(item == _ASKED_ROWS.c[item.name] for item in _ASKED_COLUMNS))
            .limit(1)
            .lateral("standing")
        ).select_from(_ASKED_ROWS),
        "sqlite": select(*_STANDING).join(
            _ASKED_ITEMS,
            and_(*(item == func.json_extract(_ASKED_ITEMS.c.value, f"$.{item.name}") for item in _ASKED_COLUMNS)),
        ),
    }
)
# Joins a report to the visit that it was made in.
_OF_ITS_VISIT = and_(
    reports.c.chart_id == visits.c.chart_id, reports.c.run == visits.c.run, reports.c.visit == visits.c.visit
)
_IN_VISIT = and_(
    reports.c.chart_id == bindparam("chart_id"),
    reports.c.run == bindparam("run"),
    reports.c.visit == bindparam("visit"),
)
_PAST = {
    dialect: select(visits.c.visit, visits.c.state, reports.c.machine, reports.c.key)
    .join(reports, _OF_ITS_VISIT)
    .where(*_OF_RUN, is_asked)
    .order_by(visits.c.visit, reports.c.machine)
    for dialect, is_asked in among(visits.c.state, "states").items()
}
_PAST_REPORTS = Prepared(_PAST)
_PAST_REPORTS_OF = Prepared(
    {dialect: _PAST[dialect].where(is_asked) for dialect, is_asked in among(reports.c.machine, "machines").items()}
)
_FAILED = Prepared(select(reports.c.machine).where(_IN_VISIT, reports.c.key == bindparam("failed")))


def find_reports(
    connection: Connection, row: ChartRow, in_visits: Collection[int], machines: Collection[str]
) -> list[Report]:
    """Return the reports of `machines` in the visits numbered `in_visits` of the current run. Used by: PUTs."""
    parameters = {"chart_id": row.id, "run": row.run, "visits": list(in_visits), "machines": list(machines)}
    return list(starmap(Report, _REPORTS.rows(connection, parameters)))


def find_standing_reports(connection: Connection, asked: Collection[AskedReport]) -> dict[AskedReport, str | None]:
    """Return the attribute of each report that is `asked` for and exists. Used by: GET with `machine`."""
    found = _STANDING_REPORTS.rows(connection, {"asked": json.dumps([item._asdict() for item in asked])})
    return {AskedReport(*columns[:-1]): columns[-1] for columns in found}


def list_past_reports(
    connection: Connection, row: ChartRow, states: Collection[str], machines: Collection[str] | None = None
) -> list[PastReport]:
    """List the reports in the current run's visits of `states`, the earliest visit first; with `machines` only theirs.

    Used by: states that go by who reported before.
    """
    parameters = {"chart_id": row.id, "run": row.run, "states": list(states)}
    if machines is None:
        return [PastReport(*found) for found in _PAST_REPORTS.rows(connection, parameters)]
    parameters["machines"] = list(machines)
    return [PastReport(*found) for found in _PAST_REPORTS_OF.rows(connection, parameters)]


def list_failed(connection: Connection, row: ChartRow) -> set[str]:
    """List the machines that stand at `failed` in the current visit. Used by: claims where groups are limited."""
    parameters = {**_current_visit(row), "failed": FAILED_KEY}
    return {machine for (machine,) in _FAILED.rows(connection, parameters)}


def was_failed_by_lease(connection: Connection, row: ChartRow, machine: str) -> bool:
    """True if the machine's report in the current visit was made by the end of its lease. Used by: FleetLock."""
    query = (
        select(transition_log.c.kind)
        .join(reports, reports.c.seq == transition_log.c.seq)
        .where(_IN_VISIT, reports.c.machine == machine, transition_log.c.chart == row.name)
    )
    return connection.execute(query, _current_visit(row)).scalar_one_or_none() == Kind.EXPIRE


def read_reports(connection: Connection, row: ChartRow) -> dict[str, str | None]:
    """Return the attribute that each machine reported on in the current visit, by machine."""
    query = select(reports.c.machine, reports.c.key).where(_IN_VISIT)
    return dict(connection.execute(query, _current_visit(row)).all())


def list_reports_of(
    connection: Connection, row: ChartRow, visit: VisitRow, wanted: ReportFilter
) -> list[MachineReport]:
    """List the reports in a visit of any run that pass the filter `wanted`, by machine."""
    query = select(*_REPORT_COLUMNS).where(
        reports.c.chart_id == row.id, reports.c.run == visit.run, reports.c.visit == visit.visit
    )
    if wanted.key is not None:
        query = query.where(reports.c.key == wanted.key)
    if wanted.after is not None:
        query = query.where(reports.c.machine > wanted.after)
    found = connection.execute(query.order_by(reports.c.machine).limit(wanted.limit))
    return [MachineReport(*columns) for columns in found]


def list_reports_of_machine(connection: Connection, machine: str, limit: int) -> dict[str, list[VisitReport]]:
    """List a machine's latest reports, newest first, by the name of the chart; archived charts are left out.

    Each visit is looked up in the primary key of the reports, which needs no index on the machine.
    """
    query = (
        select(charts.c.name, visits.c.run, visits.c.visit, visits.c.state, *_REPORT_COLUMNS)
        .select_from(charts.join(visits, visits.c.chart_id == charts.c.id))
        .join(
            reports,
            and_(_OF_ITS_VISIT, reports.c.machine == machine),
        )
        .where(charts.c.archived_at.is_(None))
        .order_by(reports.c.reported_at.desc(), reports.c.seq.desc())
        .limit(limit)
    )
    found: dict[str, list[VisitReport]] = defaultdict(list)
    for name, run, visit, state, *columns in connection.execute(query):
        found[name].append(VisitReport(run=run, visit=visit, state=state, report=MachineReport(*columns)))
    return found


def stream_reports_of_run(connection: Connection, row: ChartRow, run: int) -> Iterator[tuple[int, MachineReport]]:
    """Yield every report of a run with the number of its visit, visit by visit. Used by: verify."""
    query = (
        select(reports.c.visit, *_REPORT_COLUMNS)
        .where(reports.c.chart_id == row.id, reports.c.run == run)
        .order_by(reports.c.visit)
    )
    for visit, *found in connection.execute(query):
        yield visit, MachineReport(*found)


def list_reports_page(
    connection: Connection, row: ChartRow, visit: int, wanted: MachineFilter
) -> tuple[list[MachineReport], int]:
    """List a page of the reports in a visit of the current run, latest first, and count the reports on all pages."""
    query = select(*_REPORT_COLUMNS).where(
        reports.c.chart_id == row.id, reports.c.run == row.run, reports.c.visit == visit
    )
    if wanted.text:
        query = query.where(reports.c.machine.contains(wanted.text, autoescape=True))
    if wanted.key is not None:
        query = query.where(reports.c.key == wanted.key)
    total = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
    page = query.order_by(reports.c.seq.desc(), reports.c.machine).offset(wanted.offset).limit(wanted.limit)
    return [MachineReport(*found) for found in connection.execute(page)], total


def count_reports(connection: Connection, row: ChartRow, visit: int) -> dict[str | None, int]:
    """Count the machines that reported on each attribute in a visit of the current run."""
    query = select(reports.c.key, func.count()).where(_IN_VISIT).group_by(reports.c.key)
    return dict(connection.execute(query, {**_current_visit(row), "visit": visit}).all())


def find_latest_report(connection: Connection, row: ChartRow, key: str | None = None) -> MachineReport | None:
    """Return the latest report of the current visit, on the attribute `key` if it is given; None without a report."""
    query = select(*_REPORT_COLUMNS).where(_IN_VISIT)
    if key is not None:
        query = query.where(reports.c.key == key)
    found = connection.execute(query.order_by(reports.c.seq.desc()).limit(1), _current_visit(row)).one_or_none()
    return None if found is None else MachineReport(*found)


def list_report_times(connection: Connection, row: ChartRow, visit: int, key: str) -> list[datetime]:
    """List when machines reported on an attribute in a visit of the current run. Used by: the plot of reports."""
    query = select(reports.c.reported_at).where(_IN_VISIT, reports.c.key == key).order_by(reports.c.seq)
    return list(connection.execute(query, {**_current_visit(row), "visit": visit}).scalars())


def count_successes_of_charts(connection: Connection, first_keys: Mapping[int, str | None]) -> dict[int, int]:
    """Count the reports of each chart's current visit that stand on its first attribute. Used by: the list of charts.

    `first_keys` has that attribute by chart id. A chart without such reports is left out.
    """
    is_current = and_(
        reports.c.chart_id == charts.c.id, reports.c.run == charts.c.run, reports.c.visit == charts.c.visit
    )
    query = (
        select(charts.c.id, reports.c.key, func.count())
        .join(reports, is_current)
        .where(charts.c.id.in_(first_keys))
        .group_by(charts.c.id, reports.c.key)
    )
    return {chart_id: count for chart_id, key, count in connection.execute(query) if key == first_keys[chart_id]}


def count_reports_of_visits(connection: Connection, row: ChartRow) -> dict[int, dict[str | None, int]]:
    """Count the machines that reported on each attribute, for each visit of the current run. Used by: the pages."""
    query = (
        select(reports.c.visit, reports.c.key, func.count())
        .where(reports.c.chart_id == row.id, reports.c.run == row.run)
        .group_by(reports.c.visit, reports.c.key)
    )
    found: dict[int, dict[str | None, int]] = defaultdict(dict)
    for visit, key, count in connection.execute(query):
        found[visit][key] = count
    return found


def count_reports_of_runs(
    connection: Connection, row: ChartRow, first: int, last: int
) -> dict[tuple[int, int], dict[str | None, int]]:
    """Count the machines that reported on each attribute, by run and visit. Used by: the comparison of runs, verify."""
    query = (
        select(reports.c.run, reports.c.visit, reports.c.key, func.count())
        .where(reports.c.chart_id == row.id, reports.c.run.between(first, last))
        .group_by(reports.c.run, reports.c.visit, reports.c.key)
    )
    found: dict[tuple[int, int], dict[str | None, int]] = defaultdict(dict)
    for run, visit, key, count in connection.execute(query):
        found[run, visit][key] = count
    return found


def _current_visit(row: ChartRow) -> dict[str, int]:
    return {"chart_id": row.id, "run": row.run, "visit": row.visit}


# Writing reports

_UPSERT_REPORT = Prepared(
    {
        dialect: upsert(
            dialect, reports, ("chart_id", "run", "visit", "machine"), ("key", "seq", "reported_at", "note")
        )
        for dialect in DIALECTS
    }
)


def write_reports(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write reports, each a mapping of the table's columns, in the place of the machine's report in the same visit."""
    _UPSERT_REPORT.run_all(connection, rows)


def delete_reports(connection: Connection, row: ChartRow, withdrawn: Sequence[Report]) -> None:
    """Delete reports of the current run. Used by: upgrades whose roster lacks the machines."""
    connection.execute(
        delete(reports).where(
            reports.c.chart_id == row.id,
            reports.c.run == row.run,
            reports.c.visit == bindparam("b_visit"),
            reports.c.machine == bindparam("b_machine"),
        ),
        [{"b_visit": report.visit, "b_machine": report.machine} for report in withdrawn],
    )


def drop_report_keys(connection: Connection, row: ChartRow, chart: Chart) -> None:
    """Set the key of this run's reports on attributes that `chart` lacks to NULL. Used by: upgrades."""
    query = (
        select(visits.c.visit, visits.c.state, reports.c.key)
        .join(reports, _OF_ITS_VISIT)
        .where(visits.c.chart_id == row.id, visits.c.run == row.run, reports.c.key.is_not(None))
        .distinct()
    )
    for visit, state, key in connection.execute(query).all():
        if state not in chart.states or chart.states[state].has_attribute(key):
            continue
        here = (reports.c.chart_id == row.id, reports.c.run == row.run, reports.c.visit == visit)
        connection.execute(update(reports).where(*here, reports.c.key == key).values(key=None))


# Slots

_SLOT_COLUMNS = tuple(slots.c[name] for name in Slot.__slots__)
_SLOTS = Prepared(select(*_SLOT_COLUMNS).where(slots.c.chart_id == bindparam("chart_id")))
_SUCCEEDED = Prepared(
    select(func.count()).select_from(reports).where(_IN_VISIT, reports.c.key == bindparam("first_key"))
)
_HOLDER_REPORTS = Prepared(
    select(reports.c.machine, reports.c.key)
    .join(slots, and_(slots.c.chart_id == reports.c.chart_id, slots.c.machine == reports.c.machine))
    .where(_IN_VISIT)
)
_UPSERT_SLOT = Prepared(
    {
        dialect: upsert(
            dialect, slots, ("chart_id", "machine"), ("fence", "claimed_at", "renewed_at", "expires_at", "expired_at")
        )
        for dialect in DIALECTS
    }
)
_DELETE_SLOTS = Prepared(
    {
        dialect: delete(slots).where(slots.c.chart_id == bindparam("chart_id"), is_asked)
        for dialect, is_asked in among(slots.c.machine, "machines").items()
    }
)


def read_held_slots(connection: Connection, row: ChartRow) -> dict[str, Slot]:
    """Return the slots held, by machine."""
    rows = _SLOTS.rows(connection, {"chart_id": row.id})
    return {columns[0]: Slot(**dict(zip(Slot.__slots__, columns, strict=True))) for columns in rows}


def read_slot_reports(
    connection: Connection, row: ChartRow, first_key: str | None
) -> tuple[int, dict[str, str | None]]:
    """Return how many reports of the current visit stand on `first_key`, and the attribute of each holder's report."""
    here = _current_visit(row)
    ((succeeded,),) = _SUCCEEDED.rows(connection, {**here, "first_key": first_key})
    return succeeded, dict(_HOLDER_REPORTS.rows(connection, here))


def list_slots(connection: Connection, chart_ids: Collection[int]) -> dict[int, dict[str, Slot]]:
    """Return the slots held of each chart, by chart id and machine. Used by: the list of charts."""
    query = select(slots.c.chart_id, *_SLOT_COLUMNS).where(slots.c.chart_id.in_(chart_ids))
    found: dict[int, dict[str, Slot]] = {}
    for columns in connection.execute(query).mappings():
        slot = Slot(**{name: columns[name] for name in Slot.__slots__})
        found.setdefault(columns["chart_id"], {})[slot.machine] = slot
    return found


def list_slots_of_machine(connection: Connection, machine: str) -> dict[str, Slot]:
    """Return the slots that a machine holds, by the name of the chart; archived charts are left out."""
    query = select(charts.c.name, *_SLOT_COLUMNS).join(slots, slots.c.chart_id == charts.c.id)
    found = connection.execute(query.where(slots.c.machine == machine, charts.c.archived_at.is_(None))).mappings()
    return {columns["name"]: Slot(**{name: columns[name] for name in Slot.__slots__}) for columns in found}


def write_slots(connection: Connection, chart_id: int, before: Mapping[str, Slot], after: Mapping[str, Slot]) -> None:
    """Write what differs between the slots held `before` and `after`."""
    if not after:
        connection.execute(delete(slots).where(slots.c.chart_id == chart_id))
        return
    if gone := before.keys() - after.keys():
        _DELETE_SLOTS.run(connection, {"chart_id": chart_id, "machines": list(gone)})
    # Most slots are the very same objects as before.
    changed = [slot for machine, slot in after.items() if before.get(machine) is not slot]
    if changed:
        rows = [{"chart_id": chart_id, **{name: getattr(slot, name) for name in Slot.__slots__}} for slot in changed]
        _UPSERT_SLOT.run_all(connection, rows)
