"""What machines did: visits, reports and slots."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, func, select

from app.core.log import COLUMNS, LogRow, format_instant
from app.core.position import Report, Slot
from app.db import Connection
from app.models import charts, reports, slots, transition_log, visits
from app.store.charts import ChartRow
from app.store.prepared import Prepared, among

_LATEST_VISITS = Prepared(
    {
        dialect: select(visits.c.state, func.max(visits.c.visit))
        .where(visits.c.chart_id == bindparam("chart_id"), visits.c.run == bindparam("run"), is_asked)
        .group_by(visits.c.state)
        for dialect, is_asked in among(visits.c.state, "states").items()
    }
)


def list_latest_visits(connection: Connection, row: ChartRow, states: Collection[str]) -> dict[str, int]:
    """The number of the latest visit, in the current run, of each of `states` that was entered."""
    return dict(_LATEST_VISITS.rows(connection, {"chart_id": row.id, "run": row.run, "states": list(states)}))


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


def find_reports(
    connection: Connection, row: ChartRow, visits: Collection[int], machines: Collection[str]
) -> list[Report]:
    """The reports of `machines` in `visits` of the current run."""
    parameters = {"chart_id": row.id, "run": row.run, "visits": list(visits), "machines": list(machines)}
    return [Report(*found) for found in _REPORTS.rows(connection, parameters)]


_LOGGED = Prepared(
    {
        dialect: select(*(transition_log.c[name] for name in COLUMNS)).where(
            transition_log.c.chart == bindparam("chart"), is_asked
        )
        for dialect, is_asked in among(transition_log.c.idempotency_key, "keys").items()
    }
)


def list_logged_keys(connection: Connection, chart: str, keys: Collection[str]) -> list[LogRow]:
    """The rows that Idempotency-Keys stand for."""
    return [LogRow(*found) for found in _LOGGED.rows(connection, {"chart": chart, "keys": list(keys)})]


_ENTERED = Prepared(
    select(visits.c.visit)
    .where(
        visits.c.chart_id == bindparam("chart_id"),
        visits.c.run == bindparam("run"),
        visits.c.state == bindparam("state"),
    )
    .limit(1)
)


def was_entered(connection: Connection, row: ChartRow, state: str) -> bool:
    """True where `state` was entered in the chart's current run."""
    parameters = {"chart_id": row.id, "run": row.run, "state": state}
    return bool(_ENTERED.rows(connection, parameters))


_SLOTS = select(*(slots.c[name] for name in Slot.__slots__)).where(slots.c.chart_id == bindparam("chart_id"))
_IN_VISIT = and_(
    reports.c.chart_id == bindparam("chart_id"),
    reports.c.run == bindparam("run"),
    reports.c.visit == bindparam("visit"),
)
_REPORTED = select(func.count()).select_from(reports).where(_IN_VISIT)
_HOLDER_REPORTS = (
    select(reports.c.machine, reports.c.key)
    .join(slots, and_(slots.c.chart_id == reports.c.chart_id, slots.c.machine == reports.c.machine))
    .where(_IN_VISIT)
)


def read_slots(connection: Connection, row: ChartRow) -> tuple[dict[str, Slot], int, dict[str, str | None]]:
    """The slots held, how many machines reported in this visit, and which holders did, on which attribute."""
    held = {slot.machine: Slot(*slot) for slot in connection.execute(_SLOTS, {"chart_id": row.id})}
    here = {"chart_id": row.id, "run": row.run, "visit": row.visit}
    reported = connection.execute(_REPORTED, here).scalar_one()
    holders = dict(connection.execute(_HOLDER_REPORTS, here).all())
    return held, reported, holders


def read_reports(connection: Connection, row: ChartRow) -> dict[str, str | None]:
    """Which machine reported on which attribute in the current visit."""
    here = {"chart_id": row.id, "run": row.run, "visit": row.visit}
    return dict(connection.execute(select(reports.c.machine, reports.c.key).where(_IN_VISIT), here).all())


@dataclass(frozen=True, slots=True)
class MachineReport:
    """A machine's latest report in a visit; `key` is None once an upgrade has dropped the attribute."""

    machine: str
    key: str | None
    reported_at: datetime
    seq: int

    def as_json(self) -> dict[str, Any]:
        """The report as the HTTP interface gives it."""
        return {
            "machine": self.machine,
            "key": self.key,
            "reported_at": format_instant(self.reported_at),
            "seq": self.seq,
        }


def find_latest_visit(connection: Connection, row: ChartRow, state: str) -> int | None:
    """The number of the latest visit of `state` in the chart's current run."""
    query = select(func.max(visits.c.visit)).where(
        visits.c.chart_id == row.id, visits.c.run == row.run, visits.c.state == state
    )
    found: int | None = connection.execute(query).scalar_one()
    return found


def list_reports(connection: Connection, row: ChartRow, visit: int) -> list[MachineReport]:
    """Every machine's report in a visit of the current run, by machine."""
    columns = tuple(reports.c[name] for name in MachineReport.__slots__)
    query = (
        select(*columns)
        .where(reports.c.chart_id == row.id, reports.c.run == row.run, reports.c.visit == visit)
        .order_by(reports.c.machine)
    )
    return [MachineReport(*found) for found in connection.execute(query)]


def list_slots(connection: Connection, chart_ids: Collection[int]) -> dict[int, dict[str, Slot]]:
    """The slots held of each of the charts, by machine. Reader: the list of charts."""
    query = select(slots.c.chart_id, *(slots.c[name] for name in Slot.__slots__)).where(slots.c.chart_id.in_(chart_ids))
    found: dict[int, dict[str, Slot]] = {}
    for chart_id, *columns in connection.execute(query):
        slot = Slot(*columns)
        found.setdefault(chart_id, {})[slot.machine] = slot
    return found


def count_reports(connection: Connection, chart_ids: Collection[int]) -> dict[int, int]:
    """How many machines have reported in the current visit of each of the charts. Reader: the list of charts."""
    is_current = and_(
        reports.c.chart_id == charts.c.id, reports.c.run == charts.c.run, reports.c.visit == charts.c.visit
    )
    query = (
        select(charts.c.id, func.count())
        .join(reports, is_current)
        .where(charts.c.id.in_(chart_ids))
        .group_by(charts.c.id)
    )
    return dict(connection.execute(query).all())
