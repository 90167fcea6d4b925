"""The three ways to use a database, `transaction`, `snapshot` and `asking`, and the connection that each of them gives.

`transaction()` is the only place that commits. With SQLAlchemy's default set-up, SQLite begins no transaction for a
SELECT, and updates are lost; here every writer starts with BEGIN IMMEDIATE (see docs/decisions.md).

If SQLAlchemy executes a statement, even one that it has cached, that costs several times what the driver needs to run
it (docs/decisions.md has the figures). So GET and PUT on a state use `Prepared`, which runs a statement on the driver's
own connection; everything else uses SQLAlchemy's connection. SQLAlchemy still writes the text of each prepared
statement, from the same tables.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    CursorResult,
    DateTime,
    Engine,
    Executable,
    Table,
    TableValuedAlias,
    any_,
    bindparam,
    cast,
    column,
    func,
    select,
)
from sqlalchemy import Connection as CoreConnection

# Under names of their own: this package has modules `postgresql` and `sqlite`, too.
from sqlalchemy.dialects import postgresql as postgresql_dialect
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement

# First: the modules below import psycopg.
import app.db.driver  # noqa: F401  # isort: skip
from app.core.errors import DatabaseUnavailableError
from app.core.log import format_instant
from app.db.engine import BEGIN_SNAPSHOT, BEGIN_WRITING
from app.db.errors import TRANSLATED, RetryableError, first_line, translate, wrap
from app.db.postgresql import ANSWER_SECONDS, is_stale, refuse_read_only, set_deadline
from app.db.sqlite import BUSY_SECONDS, begin_immediate, identity_of, read_time, refuse_read_only_file

# How long a use case is tried again, in all, after the database has refused its transaction.
RETRY_SECONDS = 1.0

P = ParamSpec("P")
R = TypeVar("R")

DIALECTS: dict[str, Any] = {
    "sqlite": sqlite_dialect.dialect(paramstyle="named"),
    "postgresql": postgresql_dialect.psycopg.dialect(  # type: ignore[no-untyped-call]  # SQLAlchemy's own
        paramstyle="numeric_dollar"
    ),
}


# Connections and prepared statements


class Connection:
    """A connection from the pool, in the transaction that `app.db` began on it.

    `driver` is the driver's connection, and `cursor` runs prepared statements on it. `core` is SQLAlchemy's connection
    over the same driver's connection. To make it costs more than a short statement, so it is made when it is first
    needed. `info` is what the pool notes about the driver's connection for as long as that is open.

    Raises DBAPIError if no connection can be opened.
    """

    __slots__ = ("_core", "_engine", "_pooled", "cursor", "dialect", "driver", "info", "is_sqlite")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        try:
            self._pooled = engine.raw_connection()
        except engine.dialect.loaded_dbapi.Error as error:
            raise wrap(engine, error, None) from error
        self._core: CoreConnection | None = None
        self.driver: Any = self._pooled.driver_connection
        self.dialect = engine.dialect.name
        self.is_sqlite = self.dialect == "sqlite"
        self.info: dict[Any, Any] = self._pooled.info
        # On PostgreSQL the pool's record has a cursor. SQLite's connection makes one for each statement by itself.
        self.cursor: Any = self.info.get("cursor", self.driver)

    @property
    def core(self) -> CoreConnection:
        """SQLAlchemy's connection. It must not commit or roll back: the transaction belongs to `app.db`."""
        if self._core is None:
            self._core = CoreConnection(self._engine, self._pooled).execution_options(begin="")
        return self._core

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement through SQLAlchemy. Raises DBAPIError."""
        return self.core.execute(statement, parameters)

    def exec_driver_sql(self, text: str) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement, a text for the driver, through SQLAlchemy. Raises DBAPIError."""
        return self.core.exec_driver_sql(text)

    def run(self, act: Callable[..., R], *arguments: Any) -> R:
        """Call `act`, which uses the driver's connection, and return what it returns.

        Raises the driver's errors as SQLAlchemy does: DBAPIError. If the error says that the connection cannot be used
        any longer, the pool drops it; if no open session can be used, the pool drops all of them.
        """
        try:
            return act(*arguments)
        except self._engine.dialect.loaded_dbapi.Error as error:
            wrapped = wrap(self._engine, error, self.driver)
            if is_stale(error, self.driver):
                # As SQLAlchemy does after an error on its own connection.
                self._engine.pool._invalidate(self._pooled, error)
            elif wrapped.connection_invalidated:
                self._pooled.invalidate(error)
            raise wrapped from error

    def read_clock(self) -> datetime:
        """Return the time of this process, which SQLite's databases go by."""
        return read_time(self._engine, self.driver)

    def close(self) -> None:
        """Give the connection back to the pool, which rolls back an open transaction."""
        self._pooled.close()


class Prepared:
    """A statement with named parameters, or one for each database.

    Values go to the driver as they are, with two exceptions on SQLite: instants become text, and lists become JSON
    (see `among`).
    """

    def __init__(self, statement: ClauseElement | Mapping[str, ClauseElement]) -> None:
        statements = statement if isinstance(statement, Mapping) else dict.fromkeys(DIALECTS, statement)
        # The SQL of each database that the statement is for.
        self.texts: dict[str, str] = {}
        # PostgreSQL's parameters have numbers; these are their names in the order of the numbers.
        self._names: list[str] = []
        # Parameters that SQLAlchemy adds with a value: on SQLite, a LIMIT brings an OFFSET of 0.
        self._defaults: dict[str, dict[str, Any]] = {}
        for name, item in statements.items():
            compiled: Any = item.compile(dialect=DIALECTS[name])
            self.texts[name] = str(compiled)
            self._names = compiled.positiontup or self._names
            self._defaults[name] = {key: bind.value for key, bind in compiled.binds.items() if not bind.required}
            self._instant_parameters = [key for key, bind in compiled.binds.items() if _is_instant(bind)]
            self._instant_columns = [number for number, column in enumerate(_columns(compiled)) if _is_instant(column)]

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """Run the statement and return its rows. Raises DBAPIError."""
        rows: Sequence[tuple[Any, ...]] = self._execute(connection, parameters).fetchall()
        if self._instant_columns and connection.is_sqlite:
            return [self._read_instants(row) for row in rows]
        return rows

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> None:
        """Run the statement for its effect. Raises DBAPIError."""
        self._execute(connection, parameters)

    def run_all(self, connection: Connection, parameters: Sequence[Mapping[str, Any]]) -> None:
        """Run the statement once for each of `parameters`. Raises DBAPIError."""
        if len(parameters) == 1:
            self.run(connection, parameters[0])
            return
        bound = [self._bind(connection, item) for item in parameters]
        connection.run(connection.cursor.executemany, self.texts[connection.dialect], bound)

    def _execute(self, connection: Connection, parameters: Mapping[str, Any]) -> Any:
        bound = self._bind(connection, parameters)
        return connection.run(connection.cursor.execute, self.texts[connection.dialect], bound)

    def _bind(self, connection: Connection, parameters: Mapping[str, Any]) -> Mapping[str, Any] | list[Any]:
        bound = {**self._defaults[connection.dialect], **parameters}
        if not connection.is_sqlite:
            return [bound[name] for name in self._names]
        for name in self._instant_parameters:
            if bound[name] is not None:
                bound[name] = format_instant(bound[name])
        if list in map(type, bound.values()):
            bound = {name: json.dumps(value) if type(value) is list else value for name, value in bound.items()}
        return bound

    def _read_instants(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(row)
        for number in self._instant_columns:
            if values[number] is not None:
                values[number] = datetime.fromisoformat(values[number])
        return tuple(values)


def among(column: ColumnElement[Any], name: str) -> dict[str, ColumnElement[bool]]:
    """Return for each database the condition that `column` is in the parameter `name`, a list of any length."""
    listed = select(func.json_each(bindparam(name)).table_valued("value").c.value)
    array = bindparam(name, type_=postgresql_dialect.ARRAY(column.type))
    return {"sqlite": column.in_(listed), "postgresql": column == any_(array)}


def listed(name: str, column: ColumnElement[Any]) -> dict[str, TableValuedAlias]:
    """Return for each database the rows of the parameter `name`, a list of such values as `column` has, in `value`."""
    array = bindparam(name, type_=postgresql_dialect.ARRAY(column.type))
    return {
        "sqlite": func.json_each(bindparam(name)).table_valued("value"),
        "postgresql": func.unnest(array).table_valued("value", name=name).render_derived(),
    }


def recordset(parameter: str, *columns: Column[Any]) -> TableValuedAlias:
    """Return the rows that a parameter holds as a JSON array of objects with these `columns`. PostgreSQL only."""
    return (
        func.jsonb_to_recordset(cast(bindparam(parameter), JSONB))
        .table_valued(*(column(item.name, item.type) for item in columns), name=parameter)
        .render_derived(with_types=True)
    )


def upsert(dialect: str, table: Table, keys: Sequence[str], columns: Sequence[str]) -> Any:
    """Return an INSERT that, if a row with the same `keys` exists, replaces the `columns` of that row."""
    inserted: Any = (sqlite_dialect.insert if dialect == "sqlite" else postgresql_dialect.insert)(table)
    inserted = inserted.values({name: bindparam(name) for name in (*keys, *columns)})
    return inserted.on_conflict_do_update(
        index_elements=list(keys), set_={name: inserted.excluded[name] for name in columns}
    )


def _is_instant(item: Any) -> bool:
    # The tables' own type of instants is built on this one.
    return isinstance(getattr(item.type, "impl", None), DateTime)


def _columns(compiled: Any) -> list[Any]:
    return list(compiled.statement.selected_columns) if getattr(compiled.statement, "is_select", False) else []


# The three ways


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
