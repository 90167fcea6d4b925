"""Engine set-up for both databases, and the three ways to use one: `transaction`, `snapshot`, `asking`.

`transaction()` is the only place that commits. SQLAlchemy's default set-up of SQLite begins no transaction for a
SELECT and so loses updates; here every writer starts with BEGIN IMMEDIATE (see docs/decisions.md).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.core.errors import DatabaseUnavailableError, SettingError

# Names this service's PostgreSQL sessions to whoever looks at pg_stat_activity.
APPLICATION_NAME = "stateservice"
BUSY_SECONDS = 4.0
STATEMENT_SECONDS = 30.0
RETRY_SECONDS = 3.0

# A failed transaction that may simply be tried again: serialization failure, deadlock, unique violation (two
# imports of one new chart), and the server's own shutdowns.
_RETRYABLE = {"40001", "40P01", "23505", "57P01", "57P02", "57P03"}
# A schema that is not there: the database was never migrated, or is being migrated.
_NOT_MIGRATED = {"42P01", "42703"}

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class Database:
    """An engine and what a transaction on it needs. `clock`, in tests, stands in for the database's time."""

    engine: Engine
    log_key: bytes | None = None
    clock: Callable[[], datetime] | None = None
    # One writer at a time inside a process: SQLite's own waiting is a poll that lets a thread starve.
    writer: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"


def normalize_url(url: str) -> URL:
    """Return `url` as this service uses it: PostgreSQL through psycopg 3, SQLite as an absolute file path."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingError(f"the database URL cannot be read: {error}") from None
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if not parsed.database or parsed.database == ":memory:":
            raise SettingError("an SQLite database needs a file: sqlite:///path/to/state_service.db")
        return parsed.set(drivername="sqlite", database=str(Path(parsed.database).absolute()))
    raise SettingError(f"the database must be sqlite or postgresql, not {parsed.drivername!r}")


def open_engine(
    url: str | URL,
    *,
    create: bool = False,
    pool_size: int = 10,
    pooler: bool = False,
    busy_seconds: float = BUSY_SECONDS,
) -> Engine:
    """Return an engine that has not connected yet.

    `create` lets SQLite make the file and its folder. `pooler` says that a transaction-mode pooler such as
    pgbouncer stands in between: no prepared statements and no session settings are sent, so the time limits must
    be set on the database role. `busy_seconds` is how long a writer waits for a lock or a connection.
    """
    options = engine_options(url, create=create, pool_size=pool_size, pooler=pooler, busy_seconds=busy_seconds)
    engine = create_engine(normalize_url(str_url(url)), **options)
    prepare_engine(engine)
    return engine


def str_url(url: str | URL) -> str:
    return url if isinstance(url, str) else url.render_as_string(hide_password=False)


def engine_options(
    url: str | URL,
    *,
    create: bool = False,
    pool_size: int = 10,
    pooler: bool = False,
    busy_seconds: float = BUSY_SECONDS,
) -> dict[str, Any]:
    """Return the keyword arguments that `create_engine` needs for `url`."""
    parsed = normalize_url(str_url(url))
    options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": busy_seconds}
    if parsed.drivername == "sqlite":
        options["creator"] = partial(open_sqlite, parsed, create, busy_seconds)
        return options
    options["connect_args"] = {"application_name": APPLICATION_NAME, "connect_timeout": 3}
    if pooler:
        options["connect_args"]["prepare_threshold"] = None
    else:
        limits = {
            "lock_timeout": busy_seconds,
            "statement_timeout": STATEMENT_SECONDS,
            "idle_in_transaction_session_timeout": STATEMENT_SECONDS,
        }
        options["connect_args"]["options"] = " ".join(f"-c {key}={int(value * 1000)}" for key, value in limits.items())
    return options


def prepare_engine(engine: Engine) -> None:
    """Attach what each connection needs to an engine made with `engine_options`."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "begin", _begin_sqlite)
        event.listen(engine, "connect", _note_file)
        event.listen(engine, "checkout", _check_file)
    else:
        event.listen(engine, "connect", _watch_notices)


def open_sqlite(url: URL, create: bool = False, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Return a connection of our own to an SQLite file, set up as every one of ours must be."""
    path = Path(str(url.database))
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    # mode=rw: a file that has gone must be an error, never an empty database that hides the loss.
    address = f"file:{quote(str(path))}?mode={'rwc' if create else 'rw'}"
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=busy_seconds)
    try:
        _enter_wal(connection, busy_seconds)
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON"):
            connection.execute(f"PRAGMA {pragma}").close()
    except BaseException:
        connection.close()
        raise
    return connection


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


def _begin_sqlite(connection: Connection) -> None:
    begin = connection.get_execution_options().get("begin", "BEGIN IMMEDIATE")
    if begin:
        connection.exec_driver_sql(begin)


def _file_of(connection: sqlite3.Connection) -> tuple[str, tuple[int, int]]:
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    return path, identity_of(path)


def identity_of(path: str) -> tuple[int, int]:
    """What tells a file from another one put in its place; (0, 0) where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def _note_file(connection: sqlite3.Connection, record: Any) -> None:
    record.info["path"], record.info["identity"] = _file_of(connection)


def _check_file(connection: sqlite3.Connection, record: Any, proxy: Any) -> None:
    # A database file deleted or replaced while open still takes writes, into an inode nobody will ever read.
    if identity_of(record.info["path"]) != record.info["identity"]:
        raise DisconnectionError("the database file was replaced")


def _watch_notices(connection: Any, record: Any) -> None:
    def remember(diagnostic: Any) -> None:
        record.info["notice"] = f"{diagnostic.sqlstate} {diagnostic.message_primary}"

    connection.add_notice_handler(remember)


@contextmanager
def transaction(database: Database) -> Iterator[Connection]:
    """Yield a connection in a writer's transaction; COMMIT when the block ends, ROLLBACK when it raises.

    Raises DatabaseUnavailableError, which says whether the outcome is known.
    """
    turn = _turn(database) if database.is_sqlite else nullcontext()
    with turn, _errors_translated(), database.engine.connect() as connection:
        begun = connection.begin()
        try:
            yield connection
        except BaseException:
            begun.rollback()
            raise
        _commit(connection, begun.commit)


@contextmanager
def _turn(database: Database) -> Iterator[None]:
    if not database.writer.acquire(timeout=BUSY_SECONDS):
        raise DatabaseUnavailableError("too many writers wait for the database")
    try:
        yield
    finally:
        database.writer.release()


def _commit(connection: Connection, commit: Callable[[], None]) -> None:
    info = connection.info
    info.pop("notice", None)
    try:
        commit()
    except DBAPIError as error:
        is_lost = error.connection_invalidated or "disk I/O error" in str(error.orig)
        raise DatabaseUnavailableError(_one_line(error), "unknown" if is_lost else "not_applied") from error
    if "notice" in info:
        # PostgreSQL reports success with this warning when the wait for a synchronous standby was cancelled.
        raise DatabaseUnavailableError(f"commit not confirmed by the standby: {info['notice']}", "unknown")
    if "identity" in info and identity_of(info["path"]) != info["identity"]:
        raise DatabaseUnavailableError("the database file was replaced during the commit", "unknown")


@contextmanager
def snapshot(database: Database) -> Iterator[Connection]:
    """Yield a connection whose statements all see the database at one moment; it cannot write."""
    options = {"begin": "BEGIN"} if database.is_sqlite else {"isolation_level": "REPEATABLE READ"}
    with _errors_translated(), database.engine.connect().execution_options(**options) as connection:
        yield connection


@contextmanager
def asking(database: Database) -> Iterator[Connection]:
    """Yield a connection for one SELECT, without the round trips of a transaction."""
    options = {"begin": ""} if database.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
    with _errors_translated(), database.engine.connect().execution_options(**options) as connection:
        yield connection


class _RetryableError(DatabaseUnavailableError):
    """The transaction certainly did nothing and may be tried again at once."""


@contextmanager
def _errors_translated() -> Iterator[None]:
    try:
        yield
    except PoolTimeoutError:
        raise DatabaseUnavailableError("every database connection is in use") from None
    except DBAPIError as error:
        raise translate(error) from error


def translate(error: DBAPIError) -> Exception:
    """Return what `error` means to a caller; an error that is this service's own fault is returned as it is."""
    state = getattr(error.orig, "sqlstate", None)
    message = _one_line(error)
    if error.connection_invalidated or state in _RETRYABLE or "UNIQUE constraint failed" in message:
        return _RetryableError(message)
    if isinstance(error, IntegrityError) or (isinstance(error, ProgrammingError) and state not in _NOT_MIGRATED):
        return error
    return DatabaseUnavailableError(message)


def _one_line(error: DBAPIError) -> str:
    return (str(error.orig).strip().splitlines() or ["the database failed"])[0]


def retrying(use_case: Callable[P, R]) -> Callable[P, R]:
    """Run a use case again, for at most three seconds, where the database says that its transaction did nothing."""

    @wraps(use_case)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        deadline = time.monotonic() + RETRY_SECONDS
        pause = 0.005
        while True:
            try:
                return use_case(*args, **kwargs)
            except _RetryableError:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 0.25)

    return run
