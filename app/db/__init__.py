"""The three ways to use a database: `transaction`, `snapshot`, `asking`.

`transaction()` is the only place that commits. With SQLAlchemy's default set-up, SQLite begins no transaction for a
SELECT, and updates are lost; here every writer starts with BEGIN IMMEDIATE (see docs/decisions.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

# First: the modules below import psycopg.
import app.db.driver  # noqa: F401  # isort: skip
from app.core.errors import DatabaseUnavailableError
from app.db.connection import Connection as Connection
from app.db.engine import BEGIN_SNAPSHOT, BEGIN_WRITING
from app.db.errors import TRANSLATED, RetryableError, first_line, translate
from app.db.postgresql import ANSWER_SECONDS, refuse_read_only, set_deadline
from app.db.sqlite import BUSY_SECONDS, begin_immediate, identity_of, refuse_read_only_file

# How long a use case is tried again, in all, after the database has refused its transaction.
RETRY_SECONDS = 1.0

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class Database:
    """An engine, and what a transaction on it needs.

    `log_key` is the key of the log's hashes, if there is one. `clock` replaces the database's time in tests.
    """

    engine: Engine
    log_key: bytes | None = None
    clock: Callable[[], datetime] | None = None
    # On SQLite the writers of one process take turns. SQLite itself only polls for its lock, and a thread may starve.
    writer: threading.Lock = field(default_factory=threading.Lock)

    is_sqlite: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_sqlite = self.engine.dialect.name == "sqlite"


@contextmanager
def _connected(database: Database, started: float) -> Iterator[Connection]:
    # As `errors_translated` does, without a further generator on the hot path.
    try:
        connection = Connection(database.engine)
        try:
            if not connection.is_sqlite:
                set_deadline(connection.driver, started + ANSWER_SECONDS)
            yield connection
        finally:
            connection.close()
    except TRANSLATED as error:
        raise translate(error) from error


@contextmanager
def transaction(database: Database, *, is_long: bool = False) -> Iterator[Connection]:
    """Yield a connection in a writer's transaction; COMMIT when the block ends, ROLLBACK if it raises.

    Unless `is_long`, the transaction ends within ANSWER_SECONDS, even if the database does not answer.
    Raises DatabaseUnavailableError, which says whether the outcome is known.
    """
    started = time.monotonic()
    turn = _writers_turn(database) if database.is_sqlite else nullcontext()
    with turn, _connected(database, started) as connection:
        _begin(connection, BEGIN_WRITING[connection.dialect], started)
        _extend_deadline(connection, is_long)
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
        connection.run(driver.execute, begin + getattr(driver, "after_begin", "")).close()


def _extend_deadline(connection: Connection, is_long: bool) -> None:
    # The deadline is extended only after BEGIN has shown that the database answers.
    if is_long:
        set_deadline(connection.driver, None)


@contextmanager
def _writers_turn(database: Database) -> Iterator[None]:
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
        raise DatabaseUnavailableError(
            first_line(error), "unknown" if _may_have_committed(error) else "not_applied"
        ) from error
    if "notice" in info:
        # PostgreSQL reports success with this warning when the wait for a synchronous standby was cancelled.
        raise DatabaseUnavailableError(f"commit not confirmed by the standby: {info['notice']}", "unknown")
    if "identity" in info and identity_of(info["path"]) != info["identity"]:
        raise DatabaseUnavailableError("the database file was replaced during the commit", "unknown")


def _may_have_committed(error: DBAPIError) -> bool:
    """True if a COMMIT that failed like this may still have been applied."""
    # A server that shuts down sends 57P01 or 57P02 before it closes the connection, perhaps after it has committed.
    is_ended = str(getattr(error.orig, "sqlstate", None)).startswith("57P")
    return error.connection_invalidated or is_ended or "disk I/O error" in str(error.orig)


@contextmanager
def snapshot(database: Database, *, is_long: bool = True) -> Iterator[Connection]:
    """Yield a connection whose statements all see the database at one moment; it must not write.

    Unless `is_long`, the snapshot ends within ANSWER_SECONDS, even if the database does not answer.
    Raises DatabaseUnavailableError.
    """
    started = time.monotonic()
    with _connected(database, started) as connection:
        _begin(connection, BEGIN_SNAPSHOT[connection.dialect], started)
        _extend_deadline(connection, is_long)
        yield connection


@contextmanager
def asking(database: Database) -> Iterator[Connection]:
    """Yield a connection for one SELECT, without the round trips of a transaction; it ends within ANSWER_SECONDS.

    Raises DatabaseUnavailableError.
    """
    with _connected(database, time.monotonic()) as connection:
        yield connection


def require_writable(connection: Connection) -> None:
    """Return if transactions on this connection may write; takes no lock. Raises DBAPIError if they may not."""
    connection.run(refuse_read_only_file if connection.is_sqlite else refuse_read_only, connection.driver)


def retrying(use_case: Callable[P, R]) -> Callable[P, R]:
    """Run a use case again, for at most RETRY_SECONDS, if the database says that its transaction did nothing."""

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
