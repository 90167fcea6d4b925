"""The table `charts`: where each stands, locked and looked up; and the live values of its attributes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import bindparam, func, literal_column, select

from app.core.errors import ChartNotFoundError
from app.core.position import Position
from app.db import Connection
from app.models import attribute_values, charts
from app.store.prepared import Prepared, among


class ChartRow(NamedTuple):
    """A chart's row: its identity and its position, without the values."""

    id: int
    name: str
    version: int
    run: int
    visit: int
    state: str
    entered_at: datetime
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    paused_for: int
    due_at: datetime | None
    fence: int
    seq: int
    last_hash: str
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None


# The chart's row

_CHART = select(charts).where(charts.c.name == bindparam("name"))
# NO KEY: a row that refers to the chart, such as a slot's waiter, need not wait for the lock.
_CHART_LOCKED = Prepared(_CHART.with_for_update(key_share=True))
# One that is locked is left out: who waited for it would hold up all the others.
_FREE_CHARTS = Prepared(
    {
        "postgresql": select(charts)
        .where(among(charts.c.name, "names")["postgresql"], charts.c.archived_at.is_(None))
        .with_for_update(key_share=True, skip_locked=True)
    }
)
_CHART_PREPARED = Prepared(_CHART)
_CHARTS_AND_NOW = Prepared(
    {
        "postgresql": select(charts, func.clock_timestamp(type_=charts.c.due_at.type).label("now")).where(
            among(charts.c.name, "names")["postgresql"], charts.c.archived_at.is_(None)
        )
    }
)


def lock_chart(connection: Connection, name: str) -> ChartRow:
    """Take the row lock that every change of a chart holds. Raises ChartNotFoundError, also for an archived one."""
    row = lock_chart_even_archived(connection, name)
    if row is None or row.archived_at is not None:
        raise ChartNotFoundError(name)
    return row


def lock_chart_even_archived(connection: Connection, name: str) -> ChartRow | None:
    """As `lock_chart`, for an import, which brings an archived chart back; None where there never was one."""
    # On SQLite the lock is the transaction's BEGIN IMMEDIATE, and FOR NO KEY UPDATE is not rendered.
    rows = _CHART_LOCKED.rows(connection, {"name": name})
    return ChartRow(*rows[0]) if rows else None


def lock_charts(connection: Connection, names: Collection[str]) -> list[ChartRow]:
    """As `lock_chart`, for those of `names` that there are, in the order of their names."""
    rows = [lock_chart_even_archived(connection, name) for name in sorted(names)]
    return [row for row in rows if row is not None and row.archived_at is None]


def lock_free_charts(connection: Connection, names: Collection[str]) -> list[ChartRow]:
    """Take the locks of those charts of `names` that there are and that nobody else has locked. PostgreSQL alone."""
    return [ChartRow(*row) for row in _FREE_CHARTS.rows(connection, {"names": list(names)})]


def get_chart(connection: Connection, name: str) -> ChartRow:
    """Read a chart's row without a lock. Raises ChartNotFoundError."""
    row = get_chart_even_archived(connection, name)
    if row.archived_at is not None:
        raise ChartNotFoundError(name)
    return row


def get_chart_even_archived(connection: Connection, name: str) -> ChartRow:
    """As `get_chart`, for whoever reads the log. Raises ChartNotFoundError where there never was such a chart."""
    rows = _CHART_PREPARED.rows(connection, {"name": name})
    if not rows:
        raise ChartNotFoundError(name)
    return ChartRow(*rows[0])


def list_all_chart_names(connection: Connection) -> list[str]:
    """The name of every chart, archived ones too. Reader: verify."""
    return list(connection.execute(select(charts.c.name).order_by(charts.c.name)).scalars())


def read_charts_and_now(connection: Connection, names: Collection[str]) -> tuple[dict[str, ChartRow], datetime]:
    """Read those of `names` that there are, by name, and the database's time, without a lock. Used by: every GET."""
    if connection.is_sqlite:
        found = [_CHART_PREPARED.rows(connection, {"name": name}) for name in names]
        rows = [ChartRow(*row[0]) for row in found if row]
        return {row.name: row for row in rows if row.archived_at is None}, datetime.now(UTC)
    found_rows = _CHARTS_AND_NOW.rows(connection, {"names": list(names)})
    if not found_rows:
        return {}, datetime.now(UTC)
    return {row[1]: ChartRow(*row[:-1]) for row in found_rows}, found_rows[0][-1]


def list_charts(connection: Connection) -> list[ChartRow]:
    """Every chart that is not archived, by name."""
    rows = connection.execute(select(charts).where(charts.c.archived_at.is_(None)).order_by(charts.c.name))
    return [ChartRow(*row) for row in rows]


def list_chart_names(connection: Connection, limit: int) -> list[str]:
    """Up to `limit` names of charts that are not archived."""
    return [name for (name,) in _NAMES.rows(connection, {"limit": limit})]


_NAMES = Prepared(
    select(charts.c.name).where(charts.c.archived_at.is_(None)).order_by(charts.c.name).limit(bindparam("limit"))
)


def list_due_charts(connection: Connection, now: datetime, limit: int) -> list[str]:
    """The charts whose clock has something to do and whose lock is free, longest overdue first. Reader: the sweeper."""
    # Whoever holds a chart's lock sees to its clock; waiting for that lock would make every other chart late.
    query = (
        select(charts.c.name)
        .where(charts.c.due_at <= now, charts.c.archived_at.is_(None))
        .order_by(charts.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
    )
    return list(connection.execute(query).scalars())


def list_marks(connection: Connection, names: Sequence[str]) -> dict[str, tuple[tuple[object, ...], int]]:
    """What tells a chart's positions apart, and its last seq, for each of `names`. Reader: the waiting hub."""
    query = select(charts.c.name, *(charts.c[name] for name in _MARK), charts.c.seq).where(charts.c.name.in_(names))
    return {row[0]: (tuple(row[1:-1]), row[-1]) for row in connection.execute(query)}


_MARK = ("version", "run", "visit", "state", "paused_at", "archived_at")


def read_now(connection: Connection) -> datetime:
    """The database's time; SQLite's is that of the process it is embedded in."""
    if connection.is_sqlite:
        return datetime.now(UTC)
    now: datetime = connection.execute(select(func.clock_timestamp(type_=charts.c.due_at.type))).scalar_one()
    return now


# The live position

_VALUES = Prepared(
    select(attribute_values.c.key, attribute_values.c.value).where(attribute_values.c.chart_id == bindparam("chart_id"))
)
# Read after the lock is held, so that a PUT is judged at the time it holds it.
_NOW_AND_VALUES = Prepared(
    {
        "postgresql": select(
            func.clock_timestamp(type_=charts.c.due_at.type),
            attribute_values.c.chart_id,
            attribute_values.c.key,
            attribute_values.c.value,
        ).select_from(
            select(literal_column("1"))
            .subquery("one")
            .outerjoin(attribute_values, among(attribute_values.c.chart_id, "chart_ids")["postgresql"])
        )
    }
)


def read_values_and_now(connection: Connection, chart_ids: Sequence[int]) -> tuple[dict[int, dict[str, int]], datetime]:
    """The values of each chart's current state, by chart id, and the database's time."""
    if connection.is_sqlite:
        return {chart_id: read_values(connection, chart_id) for chart_id in chart_ids}, datetime.now(UTC)
    rows = _NOW_AND_VALUES.rows(connection, {"chart_ids": list(chart_ids)})
    found: dict[int, dict[str, int]] = {chart_id: {} for chart_id in chart_ids}
    for _, chart_id, key, value in rows:
        if chart_id is not None:
            found[chart_id][key] = value
    return found, rows[0][0]


def read_values(connection: Connection, chart_id: int) -> dict[str, int]:
    """The current state's values."""
    return dict(_VALUES.rows(connection, {"chart_id": chart_id}))


def list_values(connection: Connection) -> dict[int, dict[str, int]]:
    """The current values of every chart, by chart id. Reader: the list of charts."""
    found: dict[int, dict[str, int]] = {}
    for chart_id, key, value in connection.execute(select(attribute_values)):
        found.setdefault(chart_id, {})[key] = value
    return found


def build_position(row: ChartRow, values: Mapping[str, int]) -> Position:
    """The position that a chart's row and values make, slots left out."""
    return Position(
        row.version,
        row.run,
        row.visit,
        row.state,
        values,
        row.entered_at,
        row.paused_at,
        timedelta(microseconds=row.paused_for),
        row.fence,
    )
