"""Reading the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select

from app.core.log import COLUMNS, LogRow
from app.db import Connection
from app.models import transition_log

_ROW = tuple(transition_log.c[name] for name in COLUMNS)
# Rows fetched at a time, so that a long history is read with little memory.
BATCH = 2000


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """Which rows of a chart's log are wanted: those after `after`, of one kind, machine and span of time."""

    after: int = 0
    limit: int | None = None
    kind: str | None = None
    machine: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class HashedRow:
    """A row of the log with the hash that it was written with."""

    row: LogRow
    hash: str

    @staticmethod
    def columns() -> tuple[str, ...]:
        """The names of the columns, in the order of `as_json`."""
        return (*COLUMNS, "hash")

    def as_json(self) -> dict[str, Any]:
        """The row's columns and its hash; the instant is ISO 8601 UTC, as it was hashed."""
        return {**self.row.as_json(), "hash": self.hash}


def list_history(connection: Connection, chart: str, wanted: HistoryFilter) -> list[HashedRow]:
    """The rows of a chart's log that `wanted` lets through, oldest first."""
    return [HashedRow(LogRow(*row[:-1]), row.hash) for row in connection.execute(_history(chart, wanted))]


def stream_history(connection: Connection, chart: str) -> Iterator[HashedRow]:
    """Every row of a chart's log, oldest first, with flat memory, in the caller's transaction. Reader: verify."""
    # Closed also where the reader stops early: a cursor of the server's own would stay open.
    with connection.core.execution_options(yield_per=BATCH).execute(_history(chart, HistoryFilter())) as rows:
        for row in rows:
            yield HashedRow(LogRow(*row[:-1]), row.hash)


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
