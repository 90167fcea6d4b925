"""Engine set-up for both databases, and the three ways to use one: `transaction`, `snapshot`, `asking`.

`transaction()` is the only place that commits. SQLAlchemy's default set-up of SQLite begins no transaction for a
SELECT and so loses updates; here every writer starts with BEGIN IMMEDIATE (see docs/decisions.md).
"""

from __future__ import annotations

import os
import select
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

import psycopg
from sqlalchemy import Connection as CoreConnection
from sqlalchemy import CursorResult, Engine, Executable, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.core.errors import DatabaseUnavailableError, SettingError
from app.patience import ANSWER_SECONDS, connect_patiently, set_deadline

# Names this service's PostgreSQL sessions to whoever looks at pg_stat_activity.
APPLICATION_NAME = "stateservice"
# Where a database's URL comes from, for whoever gave a wrong one.
URL_SETTING = "the database URL (STATE_SERVICE_DATABASE_URL or --database)"

# Within five seconds every request is answered, whatever the database does: how long one waits for a connection of
# the pool, for SQLite to open its file, and then for a lock; and after how long a transaction is not begun again.
POOL_SECONDS = 1.0
OPEN_SECONDS = 0.5
# How long a new connection may take; each of several hosts is tried for as long as psycopg lets one choose at least.
CONNECT_SECONDS = 3
CONNECT_SECONDS_A_HOST = 2
BUSY_SECONDS = 2.5
# Who waits for a row on PostgreSQL waits twice, for a place in its queue and then for the row.
LOCK_SECONDS = 1.5
RETRY_SECONDS = 1.0
STATEMENT_SECONDS = 30.0
BUSY_POLL_SECONDS = 0.001

# SQLite has one lock for all charts, taken here; on PostgreSQL a chart's row is locked when it is read.
BEGIN_WRITING = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "BEGIN"}
BEGIN_SNAPSHOT = {"sqlite": "BEGIN", "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ"}

# A failed transaction that may simply be tried again: serialization failure, deadlock, unique violation (two
# imports of one new chart), and the server's own shutdowns.
_RETRYABLE = {"40001", "40P01", "23505", "57P01", "57P02", "57P03"}
# A schema that is not there: the database was never migrated, or is being migrated.
_NOT_MIGRATED = {"42P01", "42703"}
# A role that may not: `db prune` wants the owner of the tables.
_NOT_ALLOWED = {"42501"}

# What SQLite says on a connection that is of no more use, even once the file is well again.
_SPOILT = ("readonly database", "disk image is malformed", "is not a database")

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
        raise SettingError(f"{URL_SETTING} cannot be read: {error}") from None
    except ValueError:
        # Not the error's text: what stands where the port should may be a part of the password.
        raise SettingError(f"{URL_SETTING} cannot be read: its port is no number") from None
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if not parsed.database or parsed.database == ":memory:":
            raise SettingError(f"{URL_SETTING} must name a file: sqlite:///path/to/state_service.db")
        return parsed.set(drivername="sqlite", database=str(Path(parsed.database).absolute()))
    raise SettingError(f"{URL_SETTING} must be sqlite or postgresql, not {parsed.drivername!r}")


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
    be set on the database role. `busy_seconds` is how long a statement waits for a lock.
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
    options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": POOL_SECONDS}
    if parsed.drivername == "sqlite":
        options["creator"] = partial(open_sqlite, parsed, create, busy_seconds)
        return options
    timeout = CONNECT_SECONDS_A_HOST if _has_several_hosts(parsed) else CONNECT_SECONDS
    options["connect_args"] = {"application_name": APPLICATION_NAME, "connect_timeout": timeout}
    if pooler:
        options["connect_args"]["prepare_threshold"] = None
    else:
        limits = {
            "lock_timeout": min(busy_seconds, LOCK_SECONDS),
            "statement_timeout": STATEMENT_SECONDS,
            "idle_in_transaction_session_timeout": STATEMENT_SECONDS,
        }
        # In UTC: an instant of the year 9999, or 1, has no year in some other time zone that Python could read.
        settings = {"timezone": "UTC"} | {key: str(int(value * 1000)) for key, value in limits.items()}
        options["connect_args"]["options"] = " ".join(f"-c {key}={value}" for key, value in settings.items())
    return options


def _has_several_hosts(url: URL) -> bool:
    hosts = url.query.get("host", ())
    return "," in hosts or (not isinstance(hosts, str) and len(hosts) > 1)


def prepare_engine(engine: Engine) -> None:
    """Attach what each connection needs to an engine made with `engine_options`."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "begin", _begin_core)
        event.listen(engine, "connect", _note_file)
        event.listen(engine, "checkout", _check_file)
        event.listen(engine, "handle_error", _drop_spoilt)
    else:
        event.listen(engine, "do_connect", connect_patiently)
        event.listen(engine, "begin", _begin_core)
        event.listen(engine, "connect", _prepare_session)
        event.listen(engine, "checkout", _check_session)


def open_sqlite(url: URL, create: bool = False, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Return a connection of our own to an SQLite file, set up as every one of ours must be."""
    path = Path(str(url.database))
    if create:
        _make_folder(path.parent)
        _wait_while_empty(str(path))
    _refuse_foreign_file(str(path))
    # mode=rw: a file that has gone must be an error, never an empty database that hides the loss.
    address = f"file:{quote(str(path))}?mode={'rwc' if create else 'rw'}"
    patience = min(busy_seconds, OPEN_SECONDS)
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=patience)
    try:
        _enter_wal(connection, patience)
        busy = f"busy_timeout={int(busy_seconds * 1000)}"
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON", busy):
            connection.execute(f"PRAGMA {pragma}").close()
    except BaseException:
        connection.close()
        raise
    _opened[str(path)] = (identity_of(str(path)), identity_of(f"{path}-wal"))
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
    deadline = time.monotonic() + OPEN_SECONDS
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


def _begin_core(connection: CoreConnection) -> None:
    """Begin for whoever uses the engine in SQLAlchemy's way, as migrations do; "" as `begin` option begins nothing."""
    options = connection.get_execution_options()
    raw: Any = connection.connection.driver_connection
    is_sqlite = connection.dialect.name == "sqlite"
    begin = options.get("begin", BEGIN_WRITING[connection.dialect.name])
    # After a migration's own use of AUTOCOMMIT, psycopg begins by itself.
    if begin and (is_sqlite or (raw.autocommit and options.get("isolation_level") != "AUTOCOMMIT")):
        raw.execute(begin).close()


def _begin_immediate(raw: sqlite3.Connection, busy_milliseconds: int, waited: float) -> None:
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
    record.info["busy_milliseconds"] = connection.execute("PRAGMA busy_timeout").fetchone()[0]


def _check_file(connection: sqlite3.Connection, record: Any, proxy: Any) -> None:
    # A database file deleted or replaced while open still takes writes, into an inode nobody will ever read.
    if identity_of(record.info["path"]) != record.info["identity"]:
        raise DisconnectionError("the database file was replaced")


def _drop_spoilt(context: ExceptionContext) -> None:
    if _is_spoilt(context.original_exception):
        context.is_disconnect = True


def _is_spoilt(error: BaseException) -> bool:
    # A connection opened while the file was read-only stays so after the file no longer is, and one that has read
    # damaged pages remembers them after the file was mended.
    return any(text in str(error) for text in _SPOILT)


def _check_session(connection: Any, record: Any, proxy: Any) -> None:
    # An idle session has nothing to say but that it was ended, by a restart of the server or by pg_terminate_backend:
    # seen without a round trip.
    if connection.closed or _has_input(connection.fileno()):
        raise DisconnectionError("the database ended the session")
    connection.deadline = None


def _has_input(socket: int) -> bool:
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def _prepare_session(connection: Any, record: Any) -> None:
    # BEGIN is ours to say: a question needs none.
    connection.autocommit = True
    # One for all prepared statements: to make one costs as much as to send a short statement.
    record.info["cursor"] = psycopg.RawCursor(connection)

    def remember(diagnostic: Any) -> None:
        record.info["notice"] = f"{diagnostic.sqlstate} {diagnostic.message_primary}"

    connection.add_notice_handler(remember)


class Connection:
    """A connection out of the pool, with what `transaction`, `snapshot` or `asking` began on it.

    `driver` is the driver's own, on which everything else rests, and `cursor` what runs prepared statements on it
    (app/store/prepared.py); SQLAlchemy's, which costs more than a short statement, is made when it is first asked for.
    """

    __slots__ = ("_core", "_engine", "_pooled", "cursor", "dialect", "driver")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        try:
            self._pooled = engine.raw_connection()
        except engine.dialect.loaded_dbapi.Error as error:
            raise _wrap(engine, error, None) from error
        self._core: CoreConnection | None = None
        self.driver: Any = self._pooled.driver_connection
        self.dialect = engine.dialect.name
        # SQLite's makes one for each statement by itself.
        self.cursor: Any = self._pooled.info.get("cursor", self.driver)

    @property
    def is_sqlite(self) -> bool:
        return self.dialect == "sqlite"

    @property
    def info(self) -> dict[Any, Any]:
        """What is known of the driver's connection for as long as it lives."""
        return self._pooled.info

    @property
    def core(self) -> CoreConnection:
        """SQLAlchemy's connection over the same; what was begun on it is not its to end."""
        if self._core is None:
            self._core = CoreConnection(self._engine, self._pooled).execution_options(begin="")
        return self._core

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement through SQLAlchemy. Raises DBAPIError."""
        return self.core.execute(statement, parameters)

    def exec_driver_sql(self, text: str) -> CursorResult[*tuple[Any, ...]]:
        """Run a text as it is through SQLAlchemy. Raises DBAPIError."""
        return self.core.exec_driver_sql(text)

    def run(self, act: Callable[..., R], *arguments: Any) -> R:
        """Do something on the driver's connection, raising the driver's errors as SQLAlchemy does: DBAPIError.

        A connection that is of no more use then is dropped from the pool.
        """
        try:
            return act(*arguments)
        except self._engine.dialect.loaded_dbapi.Error as error:
            wrapped = _wrap(self._engine, error, self.driver)
            if wrapped.connection_invalidated:
                self._pooled.invalidate(error)
            raise wrapped from error

    def close(self) -> None:
        """Give the connection back to the pool, which rolls back what is still open on it."""
        self._pooled.close()


def _wrap(engine: Engine, error: Any, driver: Any) -> DBAPIError:
    dialect = engine.dialect
    is_lost = dialect.is_disconnect(error, driver, None) or _is_spoilt(error)
    base = dialect.loaded_dbapi.Error
    wrapped = DBAPIError.instance(None, None, error, base, connection_invalidated=is_lost, dialect=dialect)
    assert isinstance(wrapped, DBAPIError)  # it was given a driver's error
    return wrapped


@contextmanager
def _connected(database: Database, started: float) -> Iterator[Connection]:
    connection = Connection(database.engine)
    try:
        set_deadline(connection.driver, started + ANSWER_SECONDS)
        yield connection
    finally:
        connection.close()


@contextmanager
def transaction(database: Database, *, is_long: bool = False) -> Iterator[Connection]:
    """Yield a connection in a writer's transaction; COMMIT when the block ends, ROLLBACK when it raises.

    One that is not `is_long` ends within ANSWER_SECONDS, whatever the database does.
    Raises DatabaseUnavailableError, which says whether the outcome is known.
    """
    started = time.monotonic()
    turn = _turn(database) if database.is_sqlite else nullcontext()
    with turn, errors_translated(), _connected(database, started) as connection:
        _begin(connection, BEGIN_WRITING[connection.dialect], started)
        _give_time(connection, is_long)
        yield connection
        if is_long:
            set_deadline(connection.driver, time.monotonic() + ANSWER_SECONDS)
        _commit(connection, partial(connection.run, connection.driver.commit))


def _begin(connection: Connection, begin: str, started: float) -> None:
    driver = connection.driver
    if begin == "BEGIN IMMEDIATE":
        waited = time.monotonic() - started
        connection.run(_begin_immediate, driver, connection.info["busy_milliseconds"], waited)
    else:
        connection.run(driver.execute, begin).close()


def _give_time(connection: Connection, is_long: bool) -> None:
    # Only now: a database that hangs was found out by BEGIN, before it is given the time a long statement may need.
    if is_long:
        set_deadline(connection.driver, None)


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
        raise DatabaseUnavailableError(_one_line(error), "unknown" if _is_open(error) else "not_applied") from error
    if "notice" in info:
        # PostgreSQL reports success with this warning when the wait for a synchronous standby was cancelled.
        raise DatabaseUnavailableError(f"commit not confirmed by the standby: {info['notice']}", "unknown")
    if "identity" in info and identity_of(info["path"]) != info["identity"]:
        raise DatabaseUnavailableError("the database file was replaced during the commit", "unknown")


def _is_open(error: DBAPIError) -> bool:
    """True where a COMMIT that failed so may have been done all the same."""
    # A server that ends says 57P01 or 57P02 before it hangs up; the commit may have come before that.
    is_ended = str(getattr(error.orig, "sqlstate", None)).startswith("57P")
    return error.connection_invalidated or is_ended or "disk I/O error" in str(error.orig)


@contextmanager
def snapshot(database: Database, *, is_long: bool = True) -> Iterator[Connection]:
    """Yield a connection whose statements all see the database at one moment; it cannot write.

    One that is not `is_long` ends within ANSWER_SECONDS, whatever the database does.
    """
    started = time.monotonic()
    with errors_translated(), _connected(database, started) as connection:
        _begin(connection, BEGIN_SNAPSHOT[connection.dialect], started)
        _give_time(connection, is_long)
        yield connection


@contextmanager
def asking(database: Database) -> Iterator[Connection]:
    """Yield a connection for one SELECT, without the round trips of a transaction; it ends within ANSWER_SECONDS."""
    with errors_translated(), _connected(database, time.monotonic()) as connection:
        yield connection


class _RetryableError(DatabaseUnavailableError):
    """The transaction certainly did nothing and may be tried again at once."""


@contextmanager
def errors_translated() -> Iterator[None]:
    """Raise the driver's errors as this service's own (see `translate`)."""
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
    if isinstance(error, IntegrityError) or (
        isinstance(error, ProgrammingError) and state not in _NOT_MIGRATED | _NOT_ALLOWED
    ):
        return error
    return DatabaseUnavailableError(message)


def _one_line(error: DBAPIError) -> str:
    return (str(error.orig).strip().splitlines() or ["the database failed"])[0]


def retrying(use_case: Callable[P, R]) -> Callable[P, R]:
    """Run a use case again, for at most a second, where the database says that its transaction did nothing."""

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
