"""Appending to the log, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, insert, select

from app.core.log import COLUMNS, LogRow, canonical, chain_hash, chain_text
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


@dataclass(frozen=True, slots=True)
class Author:
    """Who causes a row of the log, and from where."""

    actor: str | None = None
    remote_addr: str | None = None
    idempotency_key: str | None = None


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
        chart,
        entry.version,
        entry.run,
        entry.visit,
        seq,
        now,
        str(entry.kind),
        entry.from_state,
        entry.to_state,
        entry.key,
        entry.value_before,
        entry.value_after,
        entry.machine,
        None if is_clock else author.actor,
        None if is_clock else author.remote_addr,
        author.idempotency_key if is_update else None,
        entry.reason,
    )
