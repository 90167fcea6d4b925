"""SQLite's files: how one is opened, waited for, and known to be the one it was."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DisconnectionError

from app.core.errors import SettingError

# How long one waits for a file to open, and then for its lock: within five seconds every request is answered.
OPEN_SECONDS = 0.5
BUSY_SECONDS = 2.5
BUSY_POLL_SECONDS = 0.001

# What SQLite says on a connection that is of no more use, even once the file is well again.
_SPOILT = ("readonly database", "disk image is malformed", "is not a database")


# RETURNING came with SQLite 3.35. Some systems' Python uses an older library of the system.
MINIMUM_VERSION = (3, 35, 0)


def require_sqlite() -> None:
    """Raise SettingError if the SQLite library that Python uses is too old for this service."""
    if sqlite3.sqlite_version_info < MINIMUM_VERSION:
        needed = ".".join(map(str, MINIMUM_VERSION))
        raise SettingError(
            f"SQLite {needed} or newer is needed, and this Python uses {sqlite3.sqlite_version}:"
            " use another Python or PostgreSQL"
        )


class FileConnection(sqlite3.Connection):
    """A connection that knows which file it has open."""

    path: str
    identity: tuple[int, int]


def open_sqlite(url: URL, create: bool = False, busy_seconds: float = BUSY_SECONDS) -> FileConnection:
    """Return a connection of our own to an SQLite file, set up as every one of ours must be."""
    path = Path(str(url.database))
    if create:
        _make_folder(path.parent)
        _wait_while_empty(str(path))
    _refuse_foreign_file(str(path))
    # mode=rw: a file that has gone must be an error, never an empty database that hides the loss.
    address = f"file:{quote(str(path))}?mode={'rwc' if create else 'rw'}"
    patience = min(busy_seconds, OPEN_SECONDS)
    before = identity_of(str(path))
    connection = sqlite3.connect(
        address, uri=True, isolation_level=None, check_same_thread=False, timeout=patience, factory=FileConnection
    )
    connection.path, connection.identity = str(path), identity_of(str(path))
    try:
        _refuse_another_file(connection, before)
        _enter_wal(connection, patience)
        busy = f"busy_timeout={int(busy_seconds * 1000)}"
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON", busy):
            connection.execute(f"PRAGMA {pragma}").close()
    except BaseException:
        connection.close()
        raise
    _opened[str(path)] = (connection.identity, identity_of(f"{path}-wal"))
    return connection


# The files, database and write-ahead log, that this process last opened at a path.
_opened: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise sqlite3.OperationalError(f"cannot make the folder {folder}: {error.strerror}") from error


def _wait_while_empty(path: str) -> None:
    # Another process may be making it at this moment.
    deadline = time.monotonic() + BUSY_SECONDS
    while _is_empty(path) and time.monotonic() < deadline:
        time.sleep(0.01)


def _is_empty(path: str) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) == 0


def _refuse_foreign_file(path: str) -> None:
    """Raise where opening the file would spoil it: it is empty, or lies beside the write-ahead log of another one."""
    if _is_empty(path):
        raise sqlite3.OperationalError(
            f"the database file {path} is empty: its content is lost. Put a backup in its place; or remove it, and"
            " ./state_service db upgrade makes a new one"
        )
    # SQLite would read the pages in that log into the file that took the other one's place.
    before, log = _opened.get(path, ((0, 0), (0, 0)))
    is_replaced = before != (0, 0) and identity_of(path) not in (before, (0, 0))
    if is_replaced and log != (0, 0) and identity_of(f"{path}-wal") == log:
        raise sqlite3.OperationalError(
            f"the database file {path} was replaced, but {path}-wal is still the one of the file before:"
            f" remove {path}-wal and {path}-shm"
        )


def _refuse_another_file(connection: FileConnection, before: tuple[int, int]) -> None:
    """Raise where the file at the path is not, for certain, the one that was opened."""
    is_new = before == (0, 0)
    if connection.identity == (0, 0) or (connection.identity != before and not is_new):
        raise sqlite3.OperationalError(f"the database file {connection.path} was moved while it was opened")


def _enter_wal(connection: sqlite3.Connection, busy_seconds: float) -> None:
    # Several processes on a file that is new: the switch to WAL is refused at once, busy_timeout or not.
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def begin_immediate(raw: sqlite3.Connection, busy_milliseconds: int, waited: float) -> None:
    """Begin a writer's transaction; `waited` seconds of the limit are over. Raises OperationalError."""
    # SQLite's own waiting for another process sleeps up to 100 ms at a time, and lets a writer starve. What went by
    # in the queue of this process's writers is part of the limit.
    deadline = time.monotonic() + busy_milliseconds / 1000 - waited
    raw.execute("PRAGMA busy_timeout=0").close()
    try:
        while True:
            try:
                raw.execute("BEGIN IMMEDIATE").close()
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(BUSY_POLL_SECONDS)
    finally:
        raw.execute(f"PRAGMA busy_timeout={busy_milliseconds}").close()


def identity_of(path: str) -> tuple[int, int]:
    """What tells a file from another one put in its place; (0, 0) where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def note_file(connection: FileConnection, record: Any) -> None:
    """Keep in the pool's record which file a new connection has open, and how long it waits for its lock."""
    record.info["path"], record.info["identity"] = connection.path, connection.identity
    record.info["busy_milliseconds"] = connection.execute("PRAGMA busy_timeout").fetchone()[0]


def check_file(connection: sqlite3.Connection, record: Any, proxy: Any) -> None:
    """Have the pool drop a connection whose file no longer lies at its path. Raises DisconnectionError."""
    # A database file deleted or replaced while open still takes writes, into an inode nobody will ever read.
    if identity_of(record.info["path"]) != record.info["identity"]:
        raise DisconnectionError("the database file was replaced")


def drop_spoilt(context: ExceptionContext) -> None:
    """Have the pool drop a connection that is of no more use."""
    if is_spoilt(context.original_exception):
        context.is_disconnect = True


def is_spoilt(error: BaseException) -> bool:
    """True where the connection that said this is of no more use."""
    # A connection opened while the file was read-only stays so after the file no longer is, and one that has read
    # damaged pages remembers them after the file was mended.
    return any(text in str(error) for text in _SPOILT)
