"""The three ways to use a database: `transaction`, `snapshot`, `asking`.

`transaction()` is the only place that commits. SQLAlchemy's default set-up of SQLite begins no transaction for a
SELECT and so loses updates; here every writer starts with BEGIN IMMEDIATE (see docs/decisions.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection as CoreConnection
from sqlalchemy import CursorResult, Engine, Executable
from sqlalchemy.exc import DBAPIError

from app.core.errors import DatabaseUnavailableError
from app.db.engine import BEGIN_SNAPSHOT, BEGIN_WRITING
from app.db.errors import RetryableError, errors_translated, first_line, wrap
from app.db.postgresql import ANSWER_SECONDS, set_deadline
from app.db.sqlite import BUSY_SECONDS, begin_immediate, identity_of

# How long a transaction that the database refused is begun again.
RETRY_SECONDS = 1.0

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
            raise wrap(engine, error, None) from error
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
            wrapped = wrap(self._engine, error, self.driver)
            if wrapped.connection_invalidated:
                self._pooled.invalidate(error)
            raise wrapped from error

    def close(self) -> None:
        """Give the connection back to the pool, which rolls back what is still open on it."""
        self._pooled.close()


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
        connection.run(begin_immediate, driver, connection.info["busy_milliseconds"], waited)
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
        raise DatabaseUnavailableError(first_line(error), "unknown" if _is_open(error) else "not_applied") from error
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


def retrying(use_case: Callable[P, R]) -> Callable[P, R]:
    """Run a use case again, for at most a second, where the database says that its transaction did nothing."""

    @wraps(use_case)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        deadline = time.monotonic() + RETRY_SECONDS
        pause = 0.005
        while True:
            try:
                return use_case(*args, **kwargs)
            except RetryableError:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 0.25)

    return run
