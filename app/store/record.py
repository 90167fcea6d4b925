"""What a decision writes: it changes several tables at once, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Text, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from app.core.log import Author, LogRow
from app.core.position import Position, Step
from app.db import Connection
from app.store.charts import ChartRow, Moved, insert_chart, position_columns, update_chart, write_positions
from app.store.log import append_log, make_log_row
from app.store.machines import delete_reports, leave_visit, write_reports, write_slots, write_visits

# The NOTIFY channel; the payload is the chart's name.
CHANNEL = "stateservice"


@dataclass(frozen=True, slots=True)
class DecidedStep:
    """A step, and who caused it."""

    step: Step
    author: Author


@dataclass(frozen=True, slots=True)
class Change:
    """The decisions on one chart in one transaction, in order, from its position `before`.

    The caller holds the lock of `row`.
    """

    row: ChartRow
    before: Position
    decisions: Sequence[DecidedStep]

    @property
    def last(self) -> Step:
        """The last step, whose position is the chart's new one."""
        return self.decisions[-1].step

    @property
    def changed_values(self) -> list[tuple[str, int]] | None:
        """The values that differ; None if the keys differ, so that all values must be written anew."""
        before, after = self.before.values, self.last.position.values
        if before.keys() != after.keys():
            return None
        return [(key, value) for key, value in after.items() if value != before[key]]


@dataclass(frozen=True, slots=True)
class _Written:
    """A change, the log rows that it makes, and the chart's row after it."""

    change: Change
    rows: Sequence[LogRow]
    after: ChartRow

    @property
    def steps(self) -> list[Step]:
        """The decided steps, in order."""
        return [decision.step for decision in self.change.decisions]


def record_all(
    connection: Connection, changes: Sequence[Change], now: datetime, log_key: bytes | None = None
) -> list[ChartRow]:
    """Write what was decided on each chart: log rows, position, values, visits, reports, slots.

    Returns each chart's row after that, in the order of `changes`. A change whose steps log nothing writes nothing.
    """
    logged = [(change, _log_rows(change, now)) for change in changes]
    logs = [(change.row.last_hash, rows) for change, rows in logged if rows]
    if not logs:
        return [change.row for change in changes]
    hashes = iter(append_log(connection, logs, log_key))
    written = [
        _Written(change, rows, _row_after(change, now, rows[-1].seq, next(hashes))) for change, rows in logged if rows
    ]
    write_positions(
        connection,
        [Moved(item.after, item.change.last.position.values, item.change.changed_values) for item in written],
    )
    write_visits(
        connection,
        [
            (item.change.row, visit)
            for item in written
            for decision in item.change.decisions
            for visit in decision.step.visits
        ],
        now,
    )
    for item in written:
        before, after = item.change.before.slots, item.change.last.position.slots
        if before != after:
            write_slots(connection, item.change.row.id, before, after)
    announce(connection, [item.change.row.name for item in written if any(step.moves for step in item.steps)])
    _write_reports(connection, written, now)
    afters = {item.after.id: item.after for item in written}
    return [afters.get(change.row.id, change.row) for change in changes]


def announce(connection: Connection, names: Sequence[str]) -> None:
    """Make PostgreSQL tell every listening process, at COMMIT, that charts moved.

    On SQLite this does nothing: its change counter tells the other processes.
    """
    # A count that moves nothing is not announced, because NOTIFY makes commits queue for one lock.
    if names and not connection.is_sqlite:
        connection.execute(_ANNOUNCE, {"names": list(names)})


_NAMES = func.unnest(bindparam("names", type_=ARRAY(Text))).table_valued("name").render_derived()
_ANNOUNCE = select(func.pg_notify(CHANNEL, _NAMES.c.name))


def _log_rows(change: Change, now: datetime) -> list[LogRow]:
    made = [(entry, decision.author) for decision in change.decisions for entry in decision.step.entries]
    first = change.row.seq + 1
    return [make_log_row(change.row.name, seq, entry, now, author) for seq, (entry, author) in enumerate(made, first)]


def _row_after(change: Change, now: datetime, seq: int, last_hash: str) -> ChartRow:
    return change.row._replace(**position_columns(change.last, now, seq, last_hash))


def _write_reports(connection: Connection, written: Sequence[_Written], now: datetime) -> None:
    for item in written:
        # A withdrawn report comes from an upgrade, which is alone in its transaction but may fail a machine again.
        withdrawn = [report for step in item.steps for report in step.withdrawn]
        if withdrawn:
            delete_reports(connection, item.change.row, withdrawn)
    rows = [row for item in written for row in _report_rows(item, now)]
    if rows:
        write_reports(connection, rows)


def _report_rows(item: _Written, now: datetime) -> list[dict[str, Any]]:
    decisions = item.change.decisions
    latest = {
        (decision.step.position.run, report.visit, report.machine): report
        for decision in decisions
        for report in decision.step.reports
    }
    if not latest:
        return []
    begun = _find_entries(item)
    # Only log rows with a key are reports; a claim or a release in the same transaction has none. The reports that an
    # import brings, and those counted on entry, have no rows of their own: they come with the row that began the visit.
    seqs = {(logged.run, logged.visit, logged.machine): logged.seq for logged in item.rows if logged.key is not None}
    return [
        {
            "chart_id": item.change.row.id,
            "run": run,
            "visit": visit,
            "machine": machine,
            "key": report.key,
            "seq": seqs.get((run, visit, machine), begun.get((run, visit), item.rows[0].seq)),
            "reported_at": now,
            "note": report.note,
        }
        for (run, visit, machine), report in latest.items()
    ]


def _find_entries(item: _Written) -> dict[tuple[int, int], int]:
    """Return the seq of the row by which each visit of this change began, by run and visit."""
    found: dict[tuple[int, int], int] = {}
    last = item.change.last.position
    following = [*((row.run, row.visit) for row in item.rows[1:]), (last.run, last.visit)]
    for row, after in zip(item.rows, following, strict=True):
        if after != (row.run, row.visit):
            found[after] = row.seq
    return found


def create_chart(
    connection: Connection, name: str, first: DecidedStep, now: datetime, log_key: bytes | None = None
) -> ChartRow:
    """Write a new chart with the first step of its first run, and return its row."""
    step = first.step
    # The log and the position are written as for every other step, from a row that stands before the first log row.
    # The table does not take such a row (`seq` is at least 1), so for this moment it gets a `seq` without a log row.
    inserted = insert_chart(connection, name, now, position_columns(step, now, seq=1, last_hash=""))
    before = replace(step.position, values={}, slots={})
    (row,) = record_all(connection, [Change(inserted._replace(seq=0), before, [first])], now, log_key)
    return row


def set_archived(connection: Connection, row: ChartRow, archived_at: datetime | None) -> ChartRow:
    """Archive a chart, or bring it back if `archived_at` is None.

    An archived chart has no pending clock, and its visit has ended.
    """
    if archived_at is None:
        return update_chart(connection, row, {"archived_at": None})
    leave_visit(connection, row, archived_at)
    return update_chart(connection, row, {"archived_at": archived_at, "due_at": None})


def set_pause(connection: Connection, row: ChartRow, paused_by: str | None, reason: str | None) -> ChartRow:
    """Note who paused a chart and why; both None if the chart goes on."""
    return update_chart(connection, row, {"paused_by": paused_by, "pause_reason": reason})
