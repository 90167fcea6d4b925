"""What is known of machines and keys that a PUT must be judged by, beside the chart's position."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import and_, bindparam, func, select

from app.core.log import COLUMNS, LogRow
from app.core.position import Report, Slot
from app.db import Connection
from app.models import reports, slots, transition_log, visits
from app.store.prepared import Prepared, among
from app.store.rows import ChartRow

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
