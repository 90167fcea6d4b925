"""The tables `charts` and `attribute_values`: each chart's position, its live values, and the lock on its row."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, delete, func, insert, literal_column, select, update

from app.core.errors import ChartNotFoundError
from app.core.log import MICROSECOND, format_instant, read_hours, write_hours
from app.core.position import Position, Step
from app.core.window import NO_HOURS, Hours
from app.db import Connection, Prepared, among, recordset
from app.models import attribute_values, charts


class ChartRow(NamedTuple):
    """A chart's row: its identity and its position, without the values.

    The fields are the table's columns in the table's order, so that `_make` builds one from a row as it was read.
    """

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
    # Microseconds.
    paused_for: int
    # JSON, see app/models.py.
    hours: str | None
    due_at: datetime | None
    fence: int
    seq: int
    last_hash: str
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None
    # JSON: `Position.renamed`; None if no state of this run was renamed.
    renamed: str | None
    expected: int | None
    # JSON; see `write_rosters`.
    rosters: str | None


# Locking a chart's row

_CHART = select(charts).where(charts.c.name == bindparam("name"))
# FOR NO KEY UPDATE: an INSERT of a row that refers to the chart does not wait for this lock.
_CHART_LOCKED = Prepared(_CHART.with_for_update(key_share=True))
# Skip locked charts: waiting for one would delay the whole batch.
_FREE_CHARTS = Prepared(
    {
        "postgresql": select(charts)
        .where(among(charts.c.name, "names")["postgresql"], charts.c.archived_at.is_(None))
        .with_for_update(key_share=True, skip_locked=True)
    }
)


def lock_chart(connection: Connection, name: str) -> ChartRow:
    """Take the row lock that every change of a chart holds. Raises ChartNotFoundError, also for an archived chart."""
    row = lock_chart_even_archived(connection, name)
    if row is None or row.archived_at is not None:
        raise ChartNotFoundError(name)
    return row


def lock_chart_even_archived(connection: Connection, name: str) -> ChartRow | None:
    """Lock a chart's row, archived or not; None if the chart does not exist. Used by: imports, prune."""
    # On SQLite the transaction's BEGIN IMMEDIATE is the lock, and FOR NO KEY UPDATE is not rendered.
    rows = _CHART_LOCKED.rows(connection, {"name": name})
    return ChartRow._make(rows[0]) if rows else None


def lock_charts(connection: Connection, names: Collection[str]) -> list[ChartRow]:
    """Lock the rows of `names` in the order of the names; charts that do not exist or are archived are left out."""
    rows = []
    for name in sorted(names):
        row = lock_chart_even_archived(connection, name)
        if row is not None and row.archived_at is None:
            rows.append(row)
    return rows


def lock_free_charts(connection: Connection, names: Collection[str]) -> list[ChartRow]:
    """Lock those charts of `names` that exist and that no other transaction has locked. PostgreSQL only."""
    return [ChartRow._make(row) for row in _FREE_CHARTS.rows(connection, {"names": list(names)})]


# Reading charts without a lock

_CHART_PREPARED = Prepared(_CHART)
_CHARTS_AND_NOW = Prepared(
    {
        "postgresql": select(charts, func.clock_timestamp(type_=charts.c.due_at.type).label("now")).where(
            among(charts.c.name, "names")["postgresql"], charts.c.archived_at.is_(None)
        )
    }
)


def get_chart(connection: Connection, name: str) -> ChartRow:
    """Read a chart's row. Raises ChartNotFoundError, also for an archived chart."""
    row = get_chart_even_archived(connection, name)
    if row.archived_at is not None:
        raise ChartNotFoundError(name)
    return row


def get_chart_even_archived(connection: Connection, name: str) -> ChartRow:
    """Read a chart's row, archived or not. Raises ChartNotFoundError. Used by: whatever reads the log."""
    rows = _CHART_PREPARED.rows(connection, {"name": name})
    if not rows:
        raise ChartNotFoundError(name)
    return ChartRow._make(rows[0])


def read_charts_and_now(connection: Connection, names: Collection[str]) -> tuple[dict[str, ChartRow], datetime]:
    """Read those of `names` that there are, by name, and the database's time, without a lock. Used by: every GET."""
    if connection.is_sqlite:
        found = [_CHART_PREPARED.rows(connection, {"name": name}) for name in names]
        rows = [ChartRow._make(row[0]) for row in found if row]
        return {row.name: row for row in rows if row.archived_at is None}, read_now(connection)
    found_rows = _CHARTS_AND_NOW.rows(connection, {"names": list(names)})
    if not found_rows:
        return {}, datetime.now(UTC)
    return {row[1]: ChartRow._make(row[:-1]) for row in found_rows}, found_rows[0][-1]


def read_now(connection: Connection) -> datetime:
    """Read the database's time. On SQLite, which has no server, it is the time of this process."""
    if connection.is_sqlite:
        return connection.read_clock()
    now: datetime = connection.execute(select(func.clock_timestamp(type_=charts.c.due_at.type))).scalar_one()
    return now


def list_charts(connection: Connection, names: Collection[str] | None = None) -> list[ChartRow]:
    """List the charts that are not archived, by name; with `names` only those of them."""
    query = select(charts).where(charts.c.archived_at.is_(None)).order_by(charts.c.name)
    if names is not None:
        query = query.where(charts.c.name.in_(names))
    return [ChartRow._make(row) for row in connection.execute(query)]


_NAMES = Prepared(
    select(charts.c.name).where(charts.c.archived_at.is_(None)).order_by(charts.c.name).limit(bindparam("limit"))
)


def list_chart_names(connection: Connection, limit: int) -> list[str]:
    """List up to `limit` names of charts that are not archived. Used by: the choice of the default chart."""
    return [name for (name,) in _NAMES.rows(connection, {"limit": limit})]


def list_all_chart_names(connection: Connection) -> list[str]:
    """List the name of every chart, archived or not. Used by: verify."""
    return list(connection.execute(select(charts.c.name).order_by(charts.c.name)).scalars())


def list_heads(connection: Connection) -> list[tuple[str, int, str]]:
    """List each chart's name and the `seq` and hash of its last log row. Used by: the heads in the service's log."""
    query = select(charts.c.name, charts.c.seq, charts.c.last_hash).order_by(charts.c.name)
    return [(name, seq, last_hash) for name, seq, last_hash in connection.execute(query)]


def find_next_due(connection: Connection) -> datetime | None:
    """Return when the first chart is due, which may be past; None if none ever is. Used by: the sweeper."""
    due_at: datetime | None = connection.execute(_NEXT_DUE).scalar_one()
    return due_at


_NEXT_DUE = select(func.min(charts.c.due_at)).where(charts.c.due_at.is_not(None))


def lock_due_charts(connection: Connection, now: datetime, leave: Collection[int], limit: int) -> list[ChartRow]:
    """Lock charts that are due, the longest overdue first, except those whose id is in `leave`. Used by: the sweeper.

    A chart that another transaction has locked is left out: that one runs its clock, and every other would be late.
    """
    query = _due(now, limit).where(charts.c.id.not_in(leave)).with_for_update(skip_locked=True, key_share=True)
    return [ChartRow._make(row) for row in connection.execute(query)]


def list_charts_due(connection: Connection, until: datetime, limit: int) -> list[ChartRow]:
    """List the charts that are due at `until`, the first ones first, without a lock. Used by: the sweeper."""
    return [ChartRow._make(row) for row in connection.execute(_due(until, limit))]


def _due(until: datetime, limit: int) -> Select[Any]:
    due = select(charts).where(charts.c.due_at <= until, charts.c.archived_at.is_(None))
    return due.order_by(charts.c.due_at).limit(limit)


def list_calendar_followers(connection: Connection, calendar: str) -> list[str]:
    """List the charts that go by a calendar, by name. Used by: the import of a calendar."""
    query = (
        select(charts)
        .where(charts.c.hours.contains(json.dumps(calendar), autoescape=True), charts.c.archived_at.is_(None))
        .order_by(charts.c.name)
    )
    rows = [ChartRow._make(row) for row in connection.execute(query)]
    return [row.name for row in rows if calendar in dict(find_hours(row).calendars)]


_MARK = ("version", "run", "visit", "state", "paused_at", "archived_at", "hours")


def list_marks(connection: Connection, names: Sequence[str]) -> dict[str, tuple[tuple[object, ...], int]]:
    """Return for each chart of `names` what changes when it moves, and its last `seq`. Used by: the waiting hub."""
    query = select(charts.c.name, *(charts.c[name] for name in _MARK), charts.c.seq).where(charts.c.name.in_(names))
    return {row[0]: (tuple(row[1:-1]), row[-1]) for row in connection.execute(query)}


# Live values and the position

_VALUES = Prepared(
    select(attribute_values.c.key, attribute_values.c.value).where(attribute_values.c.chart_id == bindparam("chart_id"))
)
# The outer join returns the time even if no chart has values.
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
    """Read the values of each chart's current state, by chart id, and the database's time.

    A writer calls this after it has the charts' locks, so that a PUT is judged at the time at which it holds the lock.
    """
    if connection.is_sqlite:
        return {chart_id: read_values(connection, chart_id) for chart_id in chart_ids}, connection.read_clock()
    rows = _NOW_AND_VALUES.rows(connection, {"chart_ids": list(chart_ids)})
    found: dict[int, dict[str, int]] = {chart_id: {} for chart_id in chart_ids}
    for _, chart_id, key, value in rows:
        if chart_id is not None:
            found[chart_id][key] = value
    return found, rows[0][0]


def read_values(connection: Connection, chart_id: int) -> dict[str, int]:
    """Read the values of a chart's current state."""
    return dict(_VALUES.rows(connection, {"chart_id": chart_id}))


def list_values(connection: Connection, chart_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """Read the current values of each chart, by chart id. Used by: the list of charts."""
    found: dict[int, dict[str, int]] = {}
    query = select(attribute_values).where(attribute_values.c.chart_id.in_(chart_ids))
    for chart_id, key, value in connection.execute(query):
        found.setdefault(chart_id, {})[key] = value
    return found


def build_position(row: ChartRow, values: Mapping[str, int]) -> Position:
    """Return the position that a chart's row and values say, without its slots."""
    return Position(
        version=row.version,
        run=row.run,
        visit=row.visit,
        state=row.state,
        values=values,
        entered_at=row.entered_at,
        paused_at=row.paused_at,
        paused_for=timedelta(microseconds=row.paused_for),
        fence=row.fence,
        renamed=read_renamed(row),
        hours=find_hours(row),
        rosters={} if row.rosters is None else _read_rosters(row.rosters),
        expected=row.expected,
    )


def read_renamed(row: ChartRow) -> dict[str, str]:
    """Return the names that states of this run had before an upgrade, each with the name it has now."""
    names: dict[str, str] = {} if row.renamed is None else json.loads(row.renamed)
    return names


def find_hours(row: ChartRow) -> Hours:
    """Return what opens and closes the chart beside its windows, without the calendars' events."""
    return NO_HOURS if row.hours is None else read_hours(json.loads(row.hours))


@lru_cache(maxsize=1024)
def _read_rosters(text: str) -> Mapping[str, int]:
    return MappingProxyType(json.loads(text))


def write_rosters(rosters: Mapping[str, int]) -> str | None:
    """Return the versions in force of rosters as the table has them: `{"web": 3}`, and None if there are none."""
    return json.dumps(dict(rosters), sort_keys=True) if rosters else None


def list_followers(connection: Connection, roster: str) -> list[str]:
    """List the charts, not archived, that follow a roster, by name. Used by: the import of a roster."""
    # A roster's name has no character that LIKE or JSON would take for another, except the underscore.
    pattern = f'%"{roster}":%'.replace("_", r"\_")
    query = select(charts.c.name).where(charts.c.rosters.like(pattern, escape="\\"), charts.c.archived_at.is_(None))
    return sorted(connection.execute(query).scalars())


# Writing positions

_POSITION_COLUMNS = (
    "version",
    "run",
    "visit",
    "state",
    "entered_at",
    "paused_at",
    "paused_for",
    "hours",
    "due_at",
    "fence",
    "seq",
    "last_hash",
    "updated_at",
    "renamed",
    "expected",
    "rosters",
)


def position_columns(step: Step, now: datetime, seq: int, last_hash: str) -> dict[str, Any]:
    """Return what `step` makes of a chart's row, by column; `seq` and `last_hash` are those of its last log row."""
    after = step.position
    return {
        "version": after.version,
        "run": after.run,
        "visit": after.visit,
        "state": after.state,
        "entered_at": after.entered_at,
        "paused_at": after.paused_at,
        "paused_for": after.paused_for // MICROSECOND,
        "hours": None if after.hours == NO_HOURS else json.dumps(write_hours(after.hours), sort_keys=True),
        "due_at": step.due_at,
        "fence": after.fence,
        "seq": seq,
        "last_hash": last_hash,
        "updated_at": now,
        "renamed": json.dumps(dict(after.renamed), sort_keys=True) if after.renamed else None,
        "expected": after.expected,
        "rosters": write_rosters(after.rosters) if after.rosters else None,
    }


def insert_chart(connection: Connection, name: str, now: datetime, columns: Mapping[str, Any]) -> ChartRow:
    """Write the row of a new chart; `columns` are its position (see `position_columns`)."""
    statement = insert(charts).values({"name": name, "created_at": now, **columns}).returning(charts)
    return ChartRow._make(connection.execute(statement).one())


def update_chart(connection: Connection, row: ChartRow, values: Mapping[str, Any]) -> ChartRow:
    """Change some columns of a chart's row, and return the row after that."""
    connection.execute(update(charts).where(charts.c.id == row.id).values(values))
    return row._replace(**values)


@dataclass(frozen=True, slots=True)
class Moved:
    """What a change makes of a chart, whose row before is `row`.

    `step` is its last step; `seq` and `last_hash` are those of its last log row. `changed` are the values that differ
    from before; None if the keys differ, so that all values are written anew.
    """

    row: ChartRow
    step: Step
    seq: int
    last_hash: str
    changed: Sequence[tuple[str, int]] | None


# A parameter of an UPDATE must not have a column's name, so each has the prefix `b_`.
_SET_VALUE = (
    update(attribute_values)
    .where(attribute_values.c.chart_id == bindparam("b_chart_id"), attribute_values.c.key == bindparam("b_key"))
    .values(value=bindparam("b_value"))
)
_SET_CHART = (
    update(charts)
    .where(charts.c.id == bindparam("b_id"))
    .values({name: bindparam(f"b_{name}") for name in _POSITION_COLUMNS})
)
_UPDATE_VALUE = Prepared(_SET_VALUE)
_UPDATE_CHART = Prepared(_SET_CHART)
# One chart and one value are what nearly every PUT changes: they take one round trip.
_UPDATE_BOTH = Prepared({"postgresql": _SET_VALUE.add_cte(_SET_CHART.cte("moved"))})
# Many charts and values also take one round trip. The ids are named again as a list, so that PostgreSQL looks each of
# them up: of a join with the recordset alone it expects a hundred rows, and reads all charts for them.
_NEW_POSITIONS = recordset("positions", charts.c.id, *(charts.c[name] for name in _POSITION_COLUMNS))
_NEW_VALUES = recordset("values", *attribute_values.c)
_SET_VALUES = (
    update(attribute_values)
    .where(
        attribute_values.c.chart_id == _NEW_VALUES.c.chart_id,
        attribute_values.c.key == _NEW_VALUES.c.key,
        among(attribute_values.c.chart_id, "chart_ids")["postgresql"],
    )
    .values(value=_NEW_VALUES.c.value)
)
_SET_CHARTS = (
    update(charts)
    .where(charts.c.id == _NEW_POSITIONS.c.id, among(charts.c.id, "chart_ids")["postgresql"])
    .values({name: _NEW_POSITIONS.c[name] for name in _POSITION_COLUMNS})
)
_UPDATE_MANY = Prepared({"postgresql": _SET_VALUES.add_cte(_SET_CHARTS.cte("moved"))})


def write_positions(connection: Connection, moved: Sequence[Moved], now: datetime) -> list[ChartRow]:
    """Write the rows and the values of charts that changed, and return the rows. The caller holds their locks."""
    columns = [position_columns(item.step, now, item.seq, item.last_hash) for item in moved]
    positions = [{"id": item.row.id, **position} for item, position in zip(moved, columns, strict=True)]
    afters = [item.row._replace(**position) for item, position in zip(moved, columns, strict=True)]
    values = [
        {"chart_id": item.row.id, "key": key, "value": value} for item in moved for key, value in item.changed or ()
    ]
    if connection.is_sqlite:
        bound_positions, bound_values = list(map(_bound, positions)), list(map(_bound, values))
        _UPDATE_CHART.run_all(connection, bound_positions)
        _UPDATE_VALUE.run_all(connection, bound_values)
    elif len(positions) == len(values) == 1:
        _UPDATE_BOTH.run(connection, _bound(positions[0] | values[0]))
    else:
        _UPDATE_MANY.run(
            connection,
            {
                "positions": json.dumps(positions, default=format_instant),
                "values": json.dumps(values),
                "chart_ids": [item.row.id for item in moved],
            },
        )
    _write_values_anew(connection, [item for item in moved if item.changed is None])
    return afters


def _bound(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"b_{name}": value for name, value in values.items()}


_DELETE_VALUES = Prepared(delete(attribute_values).where(attribute_values.c.chart_id == bindparam("b_chart_id")))
_INSERT_VALUE = Prepared(
    insert(attribute_values).values({item.name: bindparam(item.name) for item in attribute_values.c})
)


def _write_values_anew(connection: Connection, moved: Sequence[Moved]) -> None:
    if not moved:
        return
    _DELETE_VALUES.run_all(connection, [{"b_chart_id": item.row.id} for item in moved])
    rows = [
        {"chart_id": item.row.id, "key": key, "value": value}
        for item in moved
        for key, value in item.step.position.values.items()
    ]
    if rows:
        _INSERT_VALUE.run_all(connection, rows)
