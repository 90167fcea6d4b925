"""The care of a database: is it ready, pruning old rows, and backups."""

from __future__ import annotations

import os
import shlex
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from app import schema, store
from app.core.errors import BadRequestError, ConflictError, DatabaseUnavailableError
from app.core.log import Author, HistoryFilter, LogRow, Marker, chain_hash
from app.core.replay import Replay
from app.db import Connection, asking, require_writable, retrying, snapshot, transaction
from app.db.sqlite import open_sqlite, private_files
from app.service.context import Service
from app.service.verifying import Progress, verify

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
        replay = Replay(
            chart_of=lambda version: service.definitions.get_version(connection, row, version),
            rosters=service.know(connection, row),
            fill=partial(service.events.fill, connection),
        )
        oldest = store.log.list_history(connection, name, HistoryFilter(limit=CHUNK))
        rows = [logged for logged in oldest if logged.row.seq <= last]
        if len(rows) < 2:
            return 0
        for logged in rows:
            replay.read(logged.row, logged.hash, log_key)
        marker = mark(replay, rows[-1].row, author, service.read_now(connection))
        store.log.replace_rows(connection, marker, chain_hash("", marker, log_key))
        store.checkpoints.drop_checkpoints(connection, name, marker.seq)
    return len(rows) - 1


def mark(replay: Replay, last: LogRow, author: Author, now: datetime) -> LogRow:
    """Return the marker from which a replay can go on after the row `last`."""
    assert replay.position is not None  # a log begins with an import, or with a marker that has a position
    here, remembered = replay.position, replay.chart_of(replay.position.version).remembered
    past = replay.list_past(here.run) if remembered else {}
    marker = Marker(
        position=replay.position,
        reports=replay.reports,
        is_archived=replay.is_archived,
        hash=replay.last_hash,
        pruned_at=now,
        imports=replay.imports,
        pauser=replay.pauser,
        past={number: visit for number, visit in past.items() if number < here.visit and visit.state in remembered},
    )
    return marker.as_row(last, author.actor)


def _find_old_rows(service: Service, connection: Connection, name: str, keep: timedelta) -> tuple[int, int]:
    return store.log.find_old_rows(connection, name, service.read_now(connection) - keep)


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
