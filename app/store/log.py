"""Taking old rows out of the log: the one thing that may, and the only place that lifts the log's triggers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, delete, func, insert, select, text, update

from app.core.log import COLUMNS, Author, HashedRow, HistoryFilter, LogRow, canonical, chain_hash, chain_text
from app.core.position import CLOCK_KINDS, Entry, Kind
from app.db import Connection
from app.models import transition_log
from app.store.prepared import Prepared, recordset

_INSERT_LOG = Prepared(insert(transition_log).values({name: bindparam(name) for name in (*COLUMNS, "hash")}))
_LOG_COLUMNS = tuple(transition_log.c[name] for name in (*COLUMNS, "hash"))
# The trigger that checks each row's seq sees the rows before it: they must come in their order.
_ROWS = recordset("rows", *_LOG_COLUMNS)
_INSERT_LOG_ROWS = Prepared(
    {
        "postgresql": insert(transition_log).from_select(
            [item.name for item in _LOG_COLUMNS],
            select(*(_ROWS.c[item.name] for item in _LOG_COLUMNS)).order_by(_ROWS.c.chart, _ROWS.c.seq),
        )
    }
)


def append_log(
    connection: Connection, logs: Sequence[tuple[str, Sequence[LogRow]]], log_key: bytes | None
) -> list[str]:
    """Write rows of charts' logs, each chart's chained to the row with the hash before them; return its last hash."""
    if not connection.is_sqlite and sum(len(rows) for _, rows in logs) > 1:
        return _append_together(connection, logs, log_key)
    parameters, hashes = [], []
    for last_hash, rows in logs:
        for row in rows:
            last_hash = chain_hash(last_hash, row, log_key)
            parameters.append({**{name: getattr(row, name) for name in COLUMNS}, "hash": last_hash})
        hashes.append(last_hash)
    _INSERT_LOG.run_all(connection, parameters)
    return hashes


def _append_together(
    connection: Connection, logs: Sequence[tuple[str, Sequence[LogRow]]], log_key: bytes | None
) -> list[str]:
    # One statement for all: on a hot chart a statement a row is most of what a PUT costs.
    texts, hashes = [], []
    for last_hash, rows in logs:
        for row in rows:
            text = canonical(row)
            last_hash = chain_text(last_hash, text, log_key)
            texts.append(f'{text[:-1]},"hash":"{last_hash}"}}')
        hashes.append(last_hash)
    _INSERT_LOG_ROWS.run(connection, {"rows": f"[{','.join(texts)}]"})
    return hashes


def make_log_row(chart: str, seq: int, entry: Entry, now: datetime, author: Author) -> LogRow:
    """The row of the log that an entry of a step makes."""
    # What the clock did has no author; the Idempotency-Key stands for the caller's own update alone.
    is_clock = entry.kind in CLOCK_KINDS
    is_update = entry.kind in (Kind.UPDATE, Kind.TRANSITION) and entry.key is not None
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
    )


_ROW = tuple(transition_log.c[name] for name in COLUMNS)
# Rows fetched at a time, so that a long history is read with little memory.
BATCH = 2000


def list_history(connection: Connection, chart: str, wanted: HistoryFilter) -> list[HashedRow]:
    """The rows of a chart's log that `wanted` lets through, oldest first."""
    return [HashedRow(LogRow.from_values(row[:-1]), row.hash) for row in connection.execute(_history(chart, wanted))]


def stream_history(connection: Connection, chart: str) -> Iterator[HashedRow]:
    """Every row of a chart's log, oldest first, with flat memory, in the caller's transaction. Reader: verify."""
    # Closed also where the reader stops early: a cursor of the server's own would stay open.
    with connection.core.execution_options(yield_per=BATCH).execute(_history(chart, HistoryFilter())) as rows:
        for row in rows:
            yield HashedRow(LogRow.from_values(row[:-1]), row.hash)


def _history(chart: str, wanted: HistoryFilter) -> Select[Any]:
    columns = transition_log.c
    query = select(*_ROW, columns.hash).where(columns.chart == chart, columns.seq > wanted.after)
    if wanted.kind is not None:
        query = query.where(columns.kind == wanted.kind)
    if wanted.machine is not None:
        query = query.where(columns.machine == wanted.machine)
    if wanted.since is not None:
        query = query.where(columns.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(columns.at < wanted.until)
    query = query.order_by(columns.seq)
    if wanted.limit is not None:
        query = query.limit(wanted.limit)
    return query


# What refuses UPDATE and DELETE; INSERT is checked throughout.
TRIGGERS = ("transition_log_refuses_delete", "transition_log_refuses_update")
# Every PUT on every chart queues behind a wait for the log's table lock.
LOCK_SECONDS = 1
_log = transition_log.c


def find_old_rows(connection: Connection, chart: str, cutoff: datetime) -> tuple[int, int]:
    """The seq of a chart's first row, and of the last one before the first that is not older than `cutoff`.

    They are the same where there is nothing that could go: one row, a marker perhaps, always stays.
    """
    first, last = connection.execute(select(func.min(_log.seq), func.max(_log.seq)).where(_log.chart == chart)).one()
    if first is None:
        return 0, 0
    kept = select(func.min(_log.seq)).where(_log.chart == chart, _log.at >= cutoff)
    first_kept = connection.execute(kept).scalar_one()
    return first, last if first_kept is None else max(first_kept - 1, first)


def replace_rows(connection: Connection, marker: LogRow, marker_hash: str) -> None:
    """Delete a chart's rows before `marker`, and write it over the row that has its seq. The chart is locked."""
    values = {name: getattr(marker, name) for name in COLUMNS}
    with _lifted(connection):
        connection.execute(delete(transition_log).where(_log.chart == marker.chart, _log.seq < marker.seq))
        here = (_log.chart == marker.chart, _log.seq == marker.seq)
        connection.execute(update(transition_log).where(*here).values(**values, hash=marker_hash))


@contextmanager
def _lifted(connection: Connection) -> Iterator[None]:
    """Lift the triggers for this transaction; nobody else can write to the log before they are back.

    An error needs no care: DDL is part of the transaction on both databases.
    """
    if connection.is_sqlite:
        query = text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = :name")
        sources = [connection.execute(query, {"name": name}).scalar_one() for name in TRIGGERS]
        for name in TRIGGERS:
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        yield
        for source in sources:
            connection.exec_driver_sql(source)
        return
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
    for name in TRIGGERS:
        connection.exec_driver_sql(f"ALTER TABLE transition_log DISABLE TRIGGER {name}")
    yield
    for name in TRIGGERS:
        connection.exec_driver_sql(f"ALTER TABLE transition_log ENABLE TRIGGER {name}")
