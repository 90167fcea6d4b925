"""What imports and operators write beside the log, in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.core.chart import Chart
from app.core.log import MICROSECOND, Author, LogRow, format_instant
from app.core.position import Position, Slot, Step, Visit
from app.db import Connection
from app.models import attribute_values, charts, reports, slots, visits
from app.store.charts import ChartRow
from app.store.log import append_log, make_log_row
from app.store.prepared import DIALECTS, Prepared, recordset

# The NOTIFY channel; the payload is the chart's name.
CHANNEL = "stateservice"
_POSITION_COLUMNS = (
    "version",
    "run",
    "visit",
    "state",
    "entered_at",
    "paused_at",
    "paused_for",
    "due_at",
    "fence",
    "seq",
    "last_hash",
    "updated_at",
)
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
# What nearly every PUT writes beside its log row, in one round trip.
_UPDATE_BOTH = Prepared({"postgresql": _SET_VALUE.add_cte(_SET_CHART.cte("moved"))})
# The same for many charts.
_POSITIONS = recordset("positions", charts.c.id, *(charts.c[name] for name in _POSITION_COLUMNS))
_VALUES = recordset("values", *attribute_values.c)
_SET_VALUES = (
    update(attribute_values)
    .where(attribute_values.c.chart_id == _VALUES.c.chart_id, attribute_values.c.key == _VALUES.c.key)
    .values(value=_VALUES.c.value)
)
_SET_CHARTS = (
    update(charts)
    .where(charts.c.id == _POSITIONS.c.id)
    .values({name: _POSITIONS.c[name] for name in _POSITION_COLUMNS})
)
_UPDATE_MANY = Prepared({"postgresql": _SET_VALUES.add_cte(_SET_CHARTS.cte("moved"))})


@dataclass(frozen=True, slots=True)
class DecidedStep:
    """A step, and who caused it."""

    step: Step
    author: Author


@dataclass(frozen=True, slots=True)
class Change:
    """What was decided on a chart, step after step, from where it stood `before`. The caller has locked `row`."""

    row: ChartRow
    before: Position
    decisions: Sequence[DecidedStep]

    @property
    def last(self) -> Step:
        """The step that the others led to."""
        return self.decisions[-1].step

    @property
    def changed_values(self) -> list[tuple[str, int]] | None:
        """The values that differ; None where there are other keys, so that all must be written anew."""
        before, after = self.before.values, self.last.position.values
        if before.keys() != after.keys():
            return None
        return [(key, value) for key, value in after.items() if value != before[key]]


@dataclass(frozen=True, slots=True)
class _Written:
    """A change, the rows of the log that it makes, and the chart's row after it."""

    change: Change
    rows: Sequence[LogRow]
    after: ChartRow


def record_all(
    connection: Connection, changes: Sequence[Change], now: datetime, log_key: bytes | None = None
) -> list[ChartRow]:
    """Write what was decided on each chart: log rows, position, values, visits, reports, slots.

    Returns each chart's row after it.
    """
    made = [(change, _log_rows(change, now)) for change in changes]
    logs = [(change.row.last_hash, rows) for change, rows in made if rows]
    if not logs:
        return [change.row for change in changes]
    hashes = iter(append_log(connection, logs, log_key))
    written = [
        _Written(change, rows, _row_after(change, now, rows[-1].seq, next(hashes))) for change, rows in made if rows
    ]
    _update_charts(connection, written)
    for item in written:
        _write_visits(connection, item.change, now)
        _write_slots(connection, item.change)
        if any(decision.step.moves for decision in item.change.decisions):
            announce(connection, item.after.name)
    _write_reports(connection, written, now)
    afters = {item.after.id: item.after for item in written}
    return [afters.get(change.row.id, change.row) for change in changes]


def announce(connection: Connection, name: str) -> None:
    """Have PostgreSQL tell every listening process, at COMMIT, that a chart moved; SQLite has its change counter."""
    # Not for every count: NOTIFY makes commits queue for one lock.
    if not connection.is_sqlite:
        connection.execute(select(func.pg_notify(CHANNEL, name)))


def _log_rows(change: Change, now: datetime) -> list[LogRow]:
    made = [(entry, decision.author) for decision in change.decisions for entry in decision.step.entries]
    first = change.row.seq + 1
    return [make_log_row(change.row.name, seq, entry, now, author) for seq, (entry, author) in enumerate(made, first)]


def _row_after(change: Change, now: datetime, seq: int, last_hash: str) -> ChartRow:
    return change.row._replace(**position_values(change.last, now, seq, last_hash))


def _bound(values: Mapping[str, Any]) -> dict[str, Any]:
    # A parameter of an UPDATE must not have a column's name.
    return {f"b_{name}": value for name, value in values.items()}


def position_values(step: Step, now: datetime, seq: int, last_hash: str) -> dict[str, Any]:
    """A chart's row after `step`, by column."""
    after = step.position
    return {
        "version": after.version,
        "run": after.run,
        "visit": after.visit,
        "state": after.state,
        "entered_at": after.entered_at,
        "paused_at": after.paused_at,
        "paused_for": after.paused_for // MICROSECOND,
        "due_at": step.due_at,
        "fence": after.fence,
        "seq": seq,
        "last_hash": last_hash,
        "updated_at": now,
    }


def _update_charts(connection: Connection, written: Sequence[_Written]) -> None:
    positions = [{name: getattr(item.after, name) for name in ("id", *_POSITION_COLUMNS)} for item in written]
    changed = [item.change.changed_values for item in written]
    values = [
        {"chart_id": item.after.id, "key": key, "value": value}
        for item, found in zip(written, changed, strict=True)
        for key, value in found or ()
    ]
    if connection.is_sqlite:
        _UPDATE_CHART.run_all(connection, [_bound(item) for item in positions])
        _UPDATE_VALUE.run_all(connection, [_bound(item) for item in values])
    elif len(positions) == len(values) == 1:
        _UPDATE_BOTH.run(connection, _bound(positions[0] | values[0]))
    else:
        parameters = {"positions": json.dumps(positions, default=format_instant), "values": json.dumps(values)}
        _UPDATE_MANY.run(connection, parameters)
    for item, found in zip(written, changed, strict=True):
        if found is None:
            _write_values_anew(connection, item.change)


def _write_values_anew(connection: Connection, change: Change) -> None:
    connection.execute(delete(attribute_values).where(attribute_values.c.chart_id == change.row.id))
    insert_values(connection, change.row.id, change.last.position.values)


def insert_values(connection: Connection, chart_id: int, values: Mapping[str, int]) -> None:
    """Write the values of a state that was entered."""
    rows = [{"chart_id": chart_id, "key": key, "value": value} for key, value in values.items()]
    if rows:
        connection.execute(insert(attribute_values), rows)


def _write_visits(connection: Connection, change: Change, now: datetime) -> None:
    entered = [visit for decision in change.decisions for visit in decision.step.visits]
    if not entered:
        return
    leave_visit(connection, change.row, now)
    insert_visits(connection, change.row.id, entered, now)


def leave_visit(connection: Connection, row: ChartRow, now: datetime) -> None:
    """Note when the visit that `row` is in ends, where it has not ended."""
    connection.execute(
        update(visits)
        .where(visits.c.chart_id == row.id, visits.c.run == row.run, visits.c.visit == row.visit)
        .where(visits.c.left_at.is_(None))
        .values(left_at=now)
    )


def insert_visits(connection: Connection, chart_id: int, entered: Sequence[Visit], now: datetime) -> None:
    """Write visits one after another, of which the last one goes on."""
    last = entered[-1]
    rows = [
        {
            "chart_id": chart_id,
            "run": visit.run,
            "visit": visit.visit,
            "state": visit.state,
            "entered_at": now,
            "left_at": None if visit is last else now,
        }
        for visit in entered
    ]
    connection.execute(insert(visits), rows)


def upsert(dialect: str, table: Any, keys: Sequence[str], columns: Sequence[str]) -> Any:
    """An INSERT that replaces `columns` where a row with these `keys` is there."""
    inserted = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(table)
    inserted = inserted.values({name: bindparam(name) for name in (*keys, *columns)})
    return inserted.on_conflict_do_update(
        index_elements=list(keys), set_={name: inserted.excluded[name] for name in columns}
    )


_REPORT_KEYS = ("chart_id", "run", "visit", "machine")
_UPSERT_REPORT = Prepared(
    {dialect: upsert(dialect, reports, _REPORT_KEYS, ("key", "seq", "reported_at")) for dialect in DIALECTS}
)
_UPSERT_SLOT = {
    dialect: upsert(
        dialect, slots, ("chart_id", "machine"), ("fence", "claimed_at", "renewed_at", "expires_at", "expired_at")
    )
    for dialect in DIALECTS
}


def _write_reports(connection: Connection, written: Sequence[_Written], now: datetime) -> None:
    values = [report for item in written for report in _list_reports(item, now)]
    if values:
        _UPSERT_REPORT.run_all(connection, values)


def _list_reports(item: _Written, now: datetime) -> list[dict[str, Any]]:
    decisions = item.change.decisions
    latest = {(report.visit, report.machine): report for decision in decisions for report in decision.step.reports}
    if not latest:
        return []
    # Rows with a key: a claim or a release in the same transaction is no report.
    seqs = {(logged.visit, logged.machine): logged.seq for logged in item.rows if logged.key is not None}
    return [
        {
            "chart_id": item.change.row.id,
            "run": item.change.row.run,
            "visit": report.visit,
            "machine": report.machine,
            "key": report.key,
            "seq": seqs[report.visit, report.machine],
            "reported_at": now,
        }
        for report in latest.values()
    ]


def _write_slots(connection: Connection, change: Change) -> None:
    chart_id, before, after = change.row.id, change.before, change.last.position
    if before.slots == after.slots:
        return
    if not after.slots:
        connection.execute(delete(slots).where(slots.c.chart_id == chart_id))
    for machine in before.slots.keys() - after.slots.keys() if after.slots else ():
        connection.execute(delete(slots).where(slots.c.chart_id == chart_id, slots.c.machine == machine))
    for machine, slot in after.slots.items():
        if before.slots.get(machine) != slot:
            values = {name: getattr(slot, name) for name in Slot.__slots__}
            connection.execute(_UPSERT_SLOT[connection.dialect], {"chart_id": chart_id, **values})


def create_chart(
    connection: Connection, name: str, step: Step, now: datetime, author: Author, log_key: bytes | None = None
) -> ChartRow:
    """Write a new chart with the first step of its first run."""
    rows = [make_log_row(name, seq, entry, now, author) for seq, entry in enumerate(step.entries, 1)]
    (last_hash,) = append_log(connection, [("", rows)], log_key)
    seq = rows[-1].seq
    values = {"name": name, "created_at": now, **position_values(step, now, seq, last_hash)}
    row = ChartRow(*connection.execute(insert(charts).values(values).returning(charts)).one())
    insert_values(connection, row.id, step.position.values)
    insert_visits(connection, row.id, step.visits, now)
    return row


def set_archived(connection: Connection, row: ChartRow, archived_at: datetime | None) -> ChartRow:
    """Put a chart away, or (None) bring it back; one that is put away has no pending clock, and its visit is over."""
    due_at = row.due_at if archived_at is None else None
    if archived_at is not None:
        leave_visit(connection, row, archived_at)
    return _set(connection, row, {"archived_at": archived_at, "due_at": due_at})


def set_pause(connection: Connection, row: ChartRow, paused_by: str | None, reason: str | None) -> ChartRow:
    """Note who paused a chart and why; both None when it goes on."""
    return _set(connection, row, {"paused_by": paused_by, "pause_reason": reason})


def _set(connection: Connection, row: ChartRow, values: dict[str, Any]) -> ChartRow:
    connection.execute(update(charts).where(charts.c.id == row.id).values(values))
    return row._replace(**values)


def rename_visits(connection: Connection, row: ChartRow, homes: Mapping[str, str]) -> None:
    """Give this run's visits of states that are gone the names of their new homes."""
    for old, new in homes.items():
        here = (visits.c.chart_id == row.id, visits.c.run == row.run, visits.c.state == old)
        connection.execute(update(visits).where(*here).values(state=new))


def drop_report_keys(connection: Connection, row: ChartRow, chart: Chart) -> None:
    """Turn this run's reports on attributes that `chart` lacks into reports on no attribute."""
    query = (
        select(visits.c.visit, visits.c.state, reports.c.key)
        .join(
            reports,
            and_(
                reports.c.chart_id == visits.c.chart_id,
                reports.c.run == visits.c.run,
                reports.c.visit == visits.c.visit,
            ),
        )
        .where(visits.c.chart_id == row.id, visits.c.run == row.run, reports.c.key.is_not(None))
        .distinct()
    )
    for visit, state, key in connection.execute(query).all():
        if state not in chart.states or chart.states[state].has_attribute(key):
            continue
        here = (reports.c.chart_id == row.id, reports.c.run == row.run, reports.c.visit == visit)
        connection.execute(update(reports).where(*here, reports.c.key == key).values(key=None))
