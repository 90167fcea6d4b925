"""Forgetting: rows of the log that are old enough go, and what stays can still be verified."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from app import store
from app.core.log import LogRow, chain_hash
from app.core.marker import Marker
from app.core.replay import Replay
from app.db import retrying, snapshot, transaction
from app.service.context import Service
from app.service.verify import Progress, verify

# Rows a transaction, which whoever writes meanwhile waits for.
CHUNK = 5000
# Between two transactions those who wait have their turn.
BREATH_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows of a chart's log went, or would go; `differences` is why none may."""

    chart: str
    rows: int
    differences: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What went, as `--json` gives it."""
        return {"chart": self.chart, "rows": self.rows, "differences": list(self.differences)}

    def as_text(self, *, dry_run: bool = False) -> str:
        """One line for people, and one for each difference."""
        if self.differences:
            refusal = f"{self.chart}: nothing pruned, for the log does not verify:\n"
            return refusal + "".join(f"  {difference}\n" for difference in self.differences)
        return f"{self.chart}: {self.rows} rows {'would go' if dry_run else 'gone'}\n"


def count_old_rows(service: Service, name: str, keep: timedelta) -> int:
    """How many rows `prune` would take from a chart's log. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        store.get_chart_even_archived(connection, name)
        first, last = _find_old_rows(service, connection, name, keep)
        return last - first


def prune(
    service: Service,
    name: str,
    keep: timedelta,
    author: store.Author,
    checking: Progress = lambda read, of: None,
    pruning: Progress = lambda gone, of: None,
) -> Pruned:
    """Take the rows that are older than `keep`, of whichever run, from a chart's log; a marker stays in their place.

    Takes nothing from a log that does not verify. May be interrupted, and called again, at any time.
    Raises ChartNotFoundError, LogDamagedError.
    """
    found = verify(service, name, checking)
    if found.differences:
        return Pruned(name, 0, found.differences)
    with snapshot(service.database) as connection:
        first, last = _find_old_rows(service, connection, name, keep)
    gone = 0
    while taken := _prune_chunk(service, name, last, author):
        gone += taken
        pruning(gone, last - first)
        time.sleep(BREATH_SECONDS)
    return Pruned(name, gone)


@retrying
def _prune_chunk(service: Service, name: str, last: int, author: store.Author) -> int:
    """Replay the oldest rows up to the seq `last`, and put one marker in their place; return how many went."""
    log_key = service.database.log_key
    with transaction(service.database, is_long=True) as connection:
        row = store.lock_chart_even_archived(connection, name)
        assert row is not None  # a chart is archived, never deleted
        replay = Replay(lambda version: service.definitions.get_version(connection, row, version))
        oldest = store.list_history(connection, name, store.HistoryFilter(limit=CHUNK))
        rows = [logged for logged in oldest if logged.row.seq <= last]
        if len(rows) < 2:
            return 0
        for logged in rows:
            replay.read(logged.row, logged.hash, log_key)
        marker = _mark(replay, rows[-1].row, author, service.now(store.read_now(connection)))
        store.replace_rows(connection, marker, chain_hash("", marker, log_key))
    return len(rows) - 1


def _mark(replay: Replay, last: LogRow, author: store.Author, now: datetime) -> LogRow:
    assert replay.position is not None  # a log begins with an import, or with a marker that has a position
    marker = Marker(replay.position, replay.reports, replay.is_archived, replay.last_hash, now)
    return marker.as_row(last, author.actor)


def _find_old_rows(service: Service, connection: Connection, name: str, keep: timedelta) -> tuple[int, int]:
    return store.find_old_rows(connection, name, service.now(store.read_now(connection)) - keep)
