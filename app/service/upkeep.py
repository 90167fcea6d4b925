"""The care of a database: is it ready, does each log verify, pruning old rows, and backups."""

from __future__ import annotations

import os
import shlex
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from app import schema, store
from app.core.errors import BadRequestError, ConflictError, DatabaseUnavailableError, StateServiceError
from app.core.log import Author, HistoryFilter, LogRow, Marker, chain_hash, format_instant
from app.core.position import next_due
from app.core.replay import Replay
from app.db import Connection, asking, require_writable, retrying, snapshot, transaction
from app.db.sqlite import open_sqlite, private_files
from app.service.context import Service

# Called now and then with the rows that are done, and the rows there are in all.
Progress = Callable[[int, int], None]
# A verification reports its progress each time it has read so many rows.
PROGRESS_ROWS = 1000
# A prune takes at most this many rows in one transaction, because writers wait until it ends.
CHUNK = 5000
# A prune pauses for this long between two transactions, so that waiting writers get their turn.
BREATH_SECONDS = 0.05

# Readiness


@retrying
def check_ready(service: Service) -> None:
    """Return if the database is reachable, migrated and writable. Raises DatabaseUnavailableError with what is wrong.

    A database that a later release has migrated is accepted, so that this release serves it during an upgrade.
    """
    with asking(service.database) as connection:
        require_writable(connection)
        revision = schema.current_revision(connection.core)
    if revision != schema.head_revision() and not schema.is_later(revision):
        raise DatabaseUnavailableError(
            f"the database is at revision {revision or 'none'}, this service needs {schema.head_revision()}:"
            " run ./state_service db upgrade"
        )


# Verifying


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying a chart's log: the rows read, and what is wrong. Without `differences` all is well."""

    chart: str
    rows: int
    differences: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The verification as `--json` gives it."""
        return {"chart": self.chart, "rows": self.rows, "differences": list(self.differences)}

    def as_text(self) -> str:
        """One line if all is well, else one line for each difference."""
        if not self.differences:
            return f"{self.chart}: {self.rows} rows, chain and position as they should be\n"
        return "".join(f"{difference}\n" for difference in self.differences)


def list_logged_charts(service: Service) -> list[str]:
    """Return the names of all charts, also of archived charts: each has a log."""
    with snapshot(service.database) as connection:
        return store.charts.list_all_chart_names(connection)


def verify(service: Service, name: str, progress: Progress = lambda read, of: None) -> Verification:
    """Verify a chart's log: check its hash chain, replay it, and compare the result with the chart's tables.

    The chart may be archived. Raises ChartNotFoundError.
    """
    with snapshot(service.database) as connection:
        row = store.charts.get_chart_even_archived(connection, name)
        replay = Replay(chart_of=lambda version: service.definitions.get_version(connection, row, version))
        damage = _replay_log(service, connection, row, replay, progress)
        if damage is not None:
            return Verification(name, replay.rows, (damage,))
        return Verification(name, replay.rows, tuple(_compare(connection, row, replay)))


def _replay_log(
    service: Service, connection: Connection, row: store.charts.ChartRow, replay: Replay, progress: Progress
) -> str | None:
    """Let `replay` read the whole log. Return what is wrong with it; None if it can be replayed to its end."""
    try:
        for logged in store.log.stream_history(connection, row.name):
            replay.read(logged.row, logged.hash, service.database.log_key)
            if replay.rows % PROGRESS_ROWS == 0:
                progress(replay.rows, row.seq - replay.seq + replay.rows)
    except StateServiceError as error:
        return str(error)
    except (ValueError, TypeError, AttributeError) as error:
        # SQLite does not check a column's type, so a row changed from outside may hold a value of any type.
        return f"{row.name}: the row after seq {replay.seq} cannot be read: {error}"
    progress(replay.rows, replay.rows)
    return None


def _compare(connection: Connection, row: store.charts.ChartRow, replay: Replay) -> list[str]:
    position = replay.position
    if position is None:
        return [f"{row.name}: the log is empty"]
    held = store.machines.read_held_slots(connection, row)
    due_at = None if replay.is_archived else next_due(replay.chart_of(position.version), position)
    pairs = [
        ("seq", replay.seq, row.seq),
        ("hash of the last row", replay.last_hash, row.last_hash),
        ("version", position.version, row.version),
        ("run", position.run, row.run),
        ("visit", position.visit, row.visit),
        ("state", position.state, row.state),
        ("entered_at", position.entered_at, row.entered_at),
        ("paused_at", position.paused_at, row.paused_at),
        ("paused_for", position.paused_for, timedelta(microseconds=row.paused_for)),
        ("due_at", due_at, row.due_at),
        ("archived", replay.is_archived, row.archived_at is not None),
        ("values", dict(position.values), store.charts.read_values(connection, row.id)),
        ("reports", replay.reports, store.machines.read_reports(connection, row)),
        ("slots", dict(position.slots), held),
        ("fence", position.fence, row.fence),
    ]
    return [
        f"{row.name}: {name}: the log gives {_shown(logged)}, the tables have {_shown(live)}"
        for name, logged, live in pairs
        if logged != live
    ]


def _shown(value: Any) -> str:
    return format_instant(value) if isinstance(value, datetime) else repr(value)


# Pruning


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows of a chart's log were pruned, or would be. `differences` say why the log may not be pruned."""

    chart: str
    rows: int
    differences: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The result as `--json` gives it."""
        return {"chart": self.chart, "rows": self.rows, "differences": list(self.differences)}

    def as_text(self, *, dry_run: bool = False) -> str:
        """One line for people, and one more for each difference."""
        if self.differences:
            refusal = f"{self.chart}: nothing was pruned, because the log does not verify:\n"
            return refusal + "".join(f"  {difference}\n" for difference in self.differences)
        return f"{self.chart}: {self.rows} rows {'would be pruned' if dry_run else 'pruned'}\n"


def count_old_rows(service: Service, name: str, keep: timedelta) -> int:
    """Return how many rows `prune` would remove from a chart's log. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        store.charts.get_chart_even_archived(connection, name)
        first, last = _find_old_rows(service, connection, name, keep)
        return last - first


def prune(
    service: Service,
    name: str,
    keep: timedelta,
    author: Author,
    checking: Progress = lambda read, of: None,
    pruning: Progress = lambda gone, of: None,
) -> Pruned:
    """Remove the rows older than `keep` from a chart's log, of any run, and leave a marker in their place.

    A log that does not verify is left as it is. `checking` hears of the progress of the verification, `pruning` of the
    rows removed. It may be interrupted, and called again, at any time. Raises ChartNotFoundError, LogDamagedError.
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
def _prune_chunk(service: Service, name: str, last: int, author: Author) -> int:
    """Replay the oldest rows up to the seq `last` and replace them by one marker; return how many rows that removed."""
    log_key = service.database.log_key
    with transaction(service.database, is_long=True) as connection:
        row = store.charts.lock_chart_even_archived(connection, name)
        assert row is not None  # a chart is archived, never deleted
        replay = Replay(chart_of=lambda version: service.definitions.get_version(connection, row, version))
        oldest = store.log.list_history(connection, name, HistoryFilter(limit=CHUNK))
        rows = [logged for logged in oldest if logged.row.seq <= last]
        if len(rows) < 2:
            return 0
        for logged in rows:
            replay.read(logged.row, logged.hash, log_key)
        marker = mark(replay, rows[-1].row, author, service.now(store.charts.read_now(connection)))
        store.log.replace_rows(connection, marker, chain_hash("", marker, log_key))
    return len(rows) - 1


def mark(replay: Replay, last: LogRow, author: Author, now: datetime) -> LogRow:
    """Return the marker from which a replay can go on after the row `last`."""
    assert replay.position is not None  # a log begins with an import, or with a marker that has a position
    marker = Marker(replay.position, replay.reports, replay.is_archived, replay.last_hash, now)
    return marker.as_row(last, author.actor)


def _find_old_rows(service: Service, connection: Connection, name: str, keep: timedelta) -> tuple[int, int]:
    return store.log.find_old_rows(connection, name, service.now(store.charts.read_now(connection)) - keep)


# Backups


def backup(service: Service, file: str) -> int:
    """Copy the SQLite database, as it is at one moment, to `file`; return the copy's size in bytes.

    Writers need not stop. When this returns, the copy is complete, checked and on the disk; if it raises, there is no
    copy. Raises ConflictError if `file` exists, DatabaseUnavailableError if copying failed, and BadRequestError for
    PostgreSQL, with the command that backs it up.
    """
    url = service.database.engine.url
    target = Path(file).absolute()
    if not service.database.is_sqlite:
        raise BadRequestError(f"use PostgreSQL's own backup: {_say_pg_dump(url, target)}")
    if target.exists() or target.is_symlink():
        raise ConflictError(f"{target} exists; a backup does not overwrite a file")
    try:
        # The folder is on the target's file system, so that a rename puts the copy in place in one step. Only its
        # owner may read it.
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.parent) as folder:
            copy = Path(folder) / "copy.db"
            with private_files(), closing(open_sqlite(url)) as connection:
                # VACUUM INTO reads in one transaction: other connections may write, and the copy sees none of it.
                connection.execute("VACUUM INTO ?", (str(copy),))
            _check(copy)
            _sync(copy)
            # A file that another process has created meanwhile must stay: O_EXCL fails then. The rename below
            # replaces only this empty file of ours.
            os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o600))
            copy.replace(target)
        _sync(target.parent)
    except FileExistsError:
        raise ConflictError(f"{target} exists; a backup does not overwrite a file") from None
    except (OSError, sqlite3.Error) as error:
        raise DatabaseUnavailableError(f"the backup failed: {error}") from error
    return target.stat().st_size


def _say_pg_dump(url: URL, target: Path) -> str:
    # Without the password: other users see command lines, and libpq reads it from ~/.pgpass or PGPASSWORD.
    database = URL.create(
        "postgresql",
        username=url.username,
        host=url.host,
        port=url.port,
        database=url.database,
        query=url.query,
    )
    return shlex.join(["pg_dump", "--format=custom", f"--file={target}", f"--dbname={database.render_as_string()}"])


def _check(copy: Path) -> None:
    copy.chmod(0o600)
    with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(f"the copy is damaged: {found}")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
