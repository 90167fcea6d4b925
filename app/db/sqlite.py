"""SQLite's files: how one is opened, how a writer waits for its lock, and how a file put in its place is noticed."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DisconnectionError

from app.core.errors import SettingError

# How long a request waits for a file to open, and then for its lock: every request is answered within five seconds.
OPEN_SECONDS = 0.5
BUSY_SECONDS = 2.5
BUSY_POLL_SECONDS = 0.001

# Messages of SQLite on a connection that cannot be used any longer, even after the file is in order again.
_UNUSABLE = ("readonly database", "disk image is malformed", "is not a database")
# Messages of SQLite about a file, without its path.
_NAMELESS = frozenset({"unable to open database file", "attempt to write a readonly database"})


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
    """Return a connection to an SQLite file, with the settings that every connection of this service has.

    `create` makes the file and its folder if they are missing. Raises sqlite3.OperationalError.
    """
    path = Path(str(url.database))
    if create:
        _make_folder(path.parent)
        _wait_while_empty(str(path))
    _refuse_foreign_file(str(path))
    # mode=rw: if the file is gone, that must be an error, not an empty new database that hides the loss.
    address = f"file:{quote(str(path))}?mode={'rwc' if create else 'rw'}"
    patience = min(busy_seconds, OPEN_SECONDS)
    before = identity_of(str(path))
    with private_files() if create else nullcontext():
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


@contextmanager
def private_files() -> Iterator[None]:
    """Let only this user read and write the files that are made in the block, whatever the process's mask is.

    SQLite gives the write-ahead log and the file beside it the mode of the database's file. The mask belongs to the
    whole process; only commands that migrate or copy a database come here.
    """
    mask = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(mask)


# Which files, database and write-ahead log, this process last opened at each path, by `identity_of`.
_opened: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise sqlite3.OperationalError(f"cannot make the folder {folder}: {error.strerror}") from error


def _wait_while_empty(path: str) -> None:
    # Another process may be creating the file at this moment.
    deadline = time.monotonic() + BUSY_SECONDS
    while _is_empty(path) and time.monotonic() < deadline:
        time.sleep(0.01)


def _is_empty(path: str) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) == 0


def _refuse_foreign_file(path: str) -> None:
    """Raise if the file is empty, or if it lies beside the write-ahead log of another file, which would corrupt it."""
    if _is_empty(path):
        raise sqlite3.OperationalError(
            f"the database file {path} is empty: its content is lost. Put a backup in its place; or remove it, and"
            " ./state_service db upgrade makes a new one"
        )
    # SQLite would apply the pages in that log to the file that has replaced the other file.
    before, log = _opened.get(path, ((0, 0), (0, 0)))
    is_replaced = before != (0, 0) and identity_of(path) not in (before, (0, 0))
    if is_replaced and log != (0, 0) and identity_of(f"{path}-wal") == log:
        raise sqlite3.OperationalError(
            f"the database file {path} was replaced, but {path}-wal belongs to the file before it:"
            f" remove {path}-wal and {path}-shm"
        )


def _refuse_another_file(connection: FileConnection, before: tuple[int, int]) -> None:
    """Raise unless the file at the path is certainly the file that was opened."""
    is_new = before == (0, 0)
    if connection.identity == (0, 0) or (connection.identity != before and not is_new):
        raise sqlite3.OperationalError(f"the database file {connection.path} was moved while it was opened")


def _enter_wal(connection: sqlite3.Connection, busy_seconds: float) -> None:
    # If several processes open a new file, SQLite refuses the switch to WAL at once: busy_timeout does not apply to it.
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
    """Begin a writer's transaction, and wait at most `busy_milliseconds` for the lock. Raises OperationalError.

    `waited` is how many seconds the writer has already waited for its turn in this process; they count.
    """
    # SQLite's own wait for another process sleeps up to 100 ms at a time, and a writer may starve. So this loop polls
    # more often.
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
    """Return a file's device and inode, which differ if it was replaced; (0, 0) if the file does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def note_file(connection: FileConnection, record: Any) -> None:
    """Note in the pool's record which file a new connection has open, and how long it waits for a lock."""
    record.info["path"], record.info["identity"] = connection.path, connection.identity
    record.info["busy_milliseconds"] = connection.execute("PRAGMA busy_timeout").fetchone()[0]


def check_file(connection: sqlite3.Connection, record: Any, proxy: Any) -> None:
    """Make the pool drop a connection whose file is no longer at its path. Raises DisconnectionError."""
    # A file that was deleted or replaced while it was open still takes writes, but nothing will ever read them.
    if identity_of(record.info["path"]) != record.info["identity"]:
        raise DisconnectionError("the database file was replaced")


def refuse_read_only_file(connection: FileConnection) -> None:
    """Raise OperationalError if this process may not write to the file."""
    if not _is_allowed(connection.path, os.W_OK):
        raise sqlite3.OperationalError("attempt to write a readonly database")


def name_file(error: BaseException, path: str | None) -> None:
    """Add the file's path to an error of SQLite that says only that the file cannot be opened or written."""
    text = str(error)
    if isinstance(error, sqlite3.OperationalError) and text in _NAMELESS and path is not None:
        error.args = (f"{text}: {path}{_find_cause(path)}",)


def _find_cause(path: str) -> str:
    """Return what is in the way of opening or writing the file, to be put after its path."""
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        return " is a folder"
    if not os.path.isdir(folder):
        return f": the folder {folder} does not exist or cannot be reached"
    # SQLite keeps the write-ahead log beside the file.
    if not _is_allowed(folder, os.W_OK | os.X_OK):
        return f": this user may not write in the folder {folder}"
    if not os.path.exists(path):
        return " does not exist"
    return "" if _is_allowed(path, os.R_OK | os.W_OK) else ": this user may not read and write it"


def _is_allowed(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)


def drop_unusable(context: ExceptionContext) -> None:
    """Make the pool drop a connection if the error says that it cannot be used any longer."""
    if context.engine is not None:
        name_file(context.original_exception, context.engine.url.database)
    if is_unusable(context.original_exception):
        context.is_disconnect = True


def is_unusable(error: BaseException) -> bool:
    """True if the error says that its connection cannot be used any longer."""
    # A connection that was opened while the file was read-only stays read-only after the file is writable again. A
    # connection that has read damaged pages keeps them in its cache after the file was repaired.
    return any(text in str(error) for text in _UNUSABLE)
