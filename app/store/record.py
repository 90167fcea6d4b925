"""What a decision writes: it changes several tables at once, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Text, bindparam, func, insert, select
from sqlalchemy.dialects.postgresql import ARRAY

from app.core.log import COLUMNS, Author, LogRow, canonical, chain_hash, chain_text
from app.core.position import CLOCK_KINDS, Entry, Kind, Position, Step
from app.db import Connection, Prepared, recordset
from app.models import transition_log
from app.store.charts import ChartRow, Moved, insert_chart, position_columns, update_chart, write_positions
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
    """A change, and the log rows that it makes."""

    change: Change
    rows: Sequence[LogRow]

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
    logged = [_Written(change, _log_rows(change, now)) for change in changes]
    written = [item for item in logged if item.rows]
    if not written:
        return [change.row for change in changes]
    hashes = append_log(connection, [(item.change.row.last_hash, item.rows) for item in written], log_key)
    moved = [
        Moved(item.change.row, item.change.last, item.rows[-1].seq, last_hash, item.change.changed_values)
        for item, last_hash in zip(written, hashes, strict=True)
    ]
    afters = {row.id: row for row in write_positions(connection, moved, now)}
    visits = [(item.change.row, visit) for item in written for step in item.steps for visit in step.visits]
    if visits:
        write_visits(connection, visits, now)
    for item in written:
        before, after = item.change.before.slots, item.change.last.position.slots
        if before != after:
            write_slots(connection, item.change.row.id, before, after)
    announce(connection, [item.change.row.name for item in written if any(step.moves for step in item.steps)])
    _write_reports(connection, written, now)
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


# The log

_COLUMNS = (*(transition_log.c[name] for name in COLUMNS), transition_log.c.hash)
_INSERT = Prepared(insert(transition_log).values({item.name: bindparam(item.name) for item in _COLUMNS}))
_NEW_ROWS = recordset("rows", *_COLUMNS)
# The trigger compares each row's seq with the rows before it, so they are inserted in the order of seq.
_INSERT_MANY = Prepared(
    {
        "postgresql": insert(transition_log).from_select(
            [item.name for item in _COLUMNS],
            select(*(_NEW_ROWS.c[item.name] for item in _COLUMNS)).order_by(_NEW_ROWS.c.chart, _NEW_ROWS.c.seq),
        )
    }
)


def make_log_row(chart: str, seq: int, entry: Entry, now: datetime, author: Author) -> LogRow:
    """Return the log row that an entry of a step makes."""
    # The clock's rows have no author. The Idempotency-Key stands for the client's own update alone, not for the
    # clock's transitions in the same step.
    is_clock = entry.kind in CLOCK_KINDS
    is_update = entry.kind in (Kind.UPDATE, Kind.TRANSITION, Kind.LATE) and entry.key is not None
    return LogRow(
        chart=chart,
        version=entry.version,
        run=entry.run,
        visit=entry.visit,
        seq=seq,
        at=now,
        kind=str(entry.kind),
        from_state=entry.from_state,
        to_state=entry.to_state,
        key=entry.key,
        value_before=entry.value_before,
        value_after=entry.value_after,
        machine=entry.machine,
        actor=None if is_clock else author.actor,
        remote_addr=None if is_clock else author.remote_addr,
        idempotency_key=author.idempotency_key if is_update else None,
        reason=entry.reason,
        note=entry.note,
    )


def append_log(
    connection: Connection, logs: Sequence[tuple[str, Sequence[LogRow]]], log_key: bytes | None
) -> list[str]:
    """Write new rows of several charts' logs, and return the hash of the last row of each.

    Each of `logs` is one chart's: the hash of its last row so far, and its new rows.
    The caller holds the charts' locks.
    """
    if not connection.is_sqlite and sum(len(rows) for _, rows in logs) > 1:
        return _append_in_one_statement(connection, logs, log_key)
    parameters, hashes = [], []
    for last_hash, rows in logs:
        for row in rows:
            values = {name: getattr(row, name) for name in COLUMNS}
            values["hash"] = last_hash = chain_hash(last_hash, row, log_key)
            parameters.append(values)
        hashes.append(last_hash)
    _INSERT.run_all(connection, parameters)
    return hashes


def _append_in_one_statement(
    connection: Connection, logs: Sequence[tuple[str, Sequence[LogRow]]], log_key: bytes | None
) -> list[str]:
    # On a hot chart, one statement for each row was most of what a PUT cost PostgreSQL.
    lines, hashes = [], []
    for last_hash, rows in logs:
        for row in rows:
            line = canonical(row)
            last_hash = chain_text(last_hash, line, log_key)
            lines.append(f'{line[:-1]},"hash":"{last_hash}"}}')
        hashes.append(last_hash)
    _INSERT_MANY.run(connection, {"rows": f"[{','.join(lines)}]"})
    return hashes


# The life of a chart


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
