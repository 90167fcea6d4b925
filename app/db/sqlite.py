"""SQLite's files: how one is opened, how a writer waits for its lock, and how a file put in its place is noticed.

And the time that its databases go by: that of this machine, which never goes back.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from sqlalchemy import Engine
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DisconnectionError

from app.core.errors import SettingError

logger = logging.getLogger("stateservice.clock")
# How long a request waits for a file to open, and then for its lock: every request is answered within five seconds.
OPEN_SECONDS = 0.5
BUSY_SECONDS = 2.5
BUSY_POLL_SECONDS = 0.001

# Messages of SQLite on a connection that cannot be used any longer, even after the file is in order again.
_UNUSABLE = ("readonly database", "disk image is malformed", "is not a database")
# Messages of SQLite about a file, without its path.
_NAMELESS = frozenset(
    {"unable to open database file", "attempt to write a readonly database", "file is not a database"}
)


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
    if isinstance(error, sqlite3.DatabaseError) and text in _NAMELESS and path is not None:
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


# The time

# A clock that was set back by no more than this is waited for.
SMALL_STEP = timedelta(seconds=2)
# A clock that was set back by more than this was wrong by far: it is followed at once.
LARGE_STEP = timedelta(days=1)
# The share by which time goes slower, so that the machine's clock catches up.
SLOWER = 0.02


def _read_machine() -> datetime:
    return datetime.now(UTC)


class SteadyClock:
    """The time that this process goes by: that of the machine's clock, but it never goes back.

    SQLite has no server that tells the time. If the machine's clock is set back, every deadline and lease would end
    later by as much. So time goes on as it passes, and a little slower, until the machine's clock has caught up.
    """

    def __init__(
        self,
        read: Callable[[], datetime] = _read_machine,
        read_passed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._read_passed = read_passed
        self._lock = threading.Lock()
        self._ahead = timedelta(0)
        self._at: datetime | None = None
        self._passed = 0.0

    @property
    def ahead(self) -> timedelta:
        """How far this time is ahead of the machine's clock; zero unless that was set back."""
        return self._ahead

    @property
    def has_begun(self) -> bool:
        """True once the time was asked for, or told by `begin`."""
        return self._at is not None

    def begin(self, newest: datetime) -> None:
        """Begin at an instant that was written by an earlier process, if the machine's clock is behind it."""
        with self._lock:
            self._at, self._passed = newest, self._read_passed()

    def now(self) -> datetime:
        """Return the time."""
        with self._lock:
            clock, passed = self._read(), self._read_passed()
            before = clock if self._at is None else self._at
            expected = before + timedelta(seconds=(passed - self._passed) * (1 - SLOWER * bool(self._ahead)))
            self._at, self._passed = self._choose(clock, before, expected), passed
            return self._at

    def settle(self) -> None:
        """Go by the machine's clock again: nothing that was written by the time before waits for an instant."""
        with self._lock:
            if self._ahead:
                logger.warning("no deadline is near: the time is that of the machine's clock again")
                self._at, self._passed, self._ahead = self._read(), self._read_passed(), timedelta(0)

    def _choose(self, clock: datetime, before: datetime, expected: datetime) -> datetime:
        """Return the time: `clock`, unless it was set back since it was `before`, after which `expected` has come."""
        behind = expected - clock
        if behind <= timedelta(0) or self._at is None:
            self._ahead = timedelta(0)
            return clock
        if behind <= SMALL_STEP and not self._ahead:
            return max(before, clock)
        is_new = behind > self._ahead + SMALL_STEP
        told = timedelta(seconds=round(behind.total_seconds()))
        if behind > LARGE_STEP:
            logger.error(
                "the machine's clock was set back by %s, and is followed: deadlines and leases that began before end"
                " that much later",
                told,
            )
            self._ahead = timedelta(0)
            return clock
        if is_new:
            logger.error(
                "the machine's clock was set back by %s: deadlines and leases end after the time that they had left."
                " Windows and clock guards come early by as much, until the clock has caught up",
                told,
            )
        self._ahead = behind
        return expected


_clocks: WeakKeyDictionary[Engine, SteadyClock] = WeakKeyDictionary()


def find_clock(engine: Engine) -> SteadyClock:
    """Return the clock of an engine's database, the same one each time."""
    found = _clocks.get(engine)
    # If two threads make one, both get the first.
    return _clocks.setdefault(engine, SteadyClock()) if found is None else found


def read_time(engine: Engine, driver: sqlite3.Connection) -> datetime:
    """Return the time by which the database behind `driver` is judged."""
    clock = find_clock(engine)
    if not clock.has_begun:
        newest = _find_newest(driver)
        if newest is not None:
            clock.begin(newest)
    return clock.now()


def _find_newest(driver: sqlite3.Connection) -> datetime | None:
    """Return when the newest row of the log was written; None if the log is empty."""
    try:
        row = driver.execute("SELECT at FROM transition_log ORDER BY id DESC LIMIT 1").fetchone()
    except sqlite3.Error:
        # It was never migrated, or cannot be read: the statement that asks for the time will say so.
        return None
    return None if row is None else datetime.fromisoformat(row[0])
