"""Taking old rows out of the log: the one thing that may, and the only place that lifts the log's triggers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import delete, func, select, text, update

from app.core.log import COLUMNS, LogRow
from app.db import Connection
from app.models import transition_log

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
