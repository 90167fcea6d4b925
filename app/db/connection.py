"""A connection in a transaction, and statements that are compiled once and run on the driver's own connection.

If SQLAlchemy executes a statement, even one that it has cached, that costs several times what the driver needs to run
it (docs/decisions.md has the figures). So GET and PUT on a state use `Prepared`; everything else uses SQLAlchemy's
connection. SQLAlchemy still writes the text of each prepared statement, from the same tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

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
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import ClauseElement

from app.core.log import format_instant
from app.db.errors import wrap
from app.db.postgresql import is_stale
from app.db.steady_clock import read_time

R = TypeVar("R")

DIALECTS: dict[str, Any] = {
    "sqlite": sqlite.dialect(paramstyle="named"),
    "postgresql": postgresql.psycopg.dialect(paramstyle="numeric_dollar"),  # type: ignore[no-untyped-call]  # its own
}


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
        self._texts: dict[str, str] = {}
        # PostgreSQL's parameters have numbers; these are their names in the order of the numbers.
        self._names: list[str] = []
        # Parameters that SQLAlchemy adds with a value: on SQLite, a LIMIT brings an OFFSET of 0.
        self._defaults: dict[str, dict[str, Any]] = {}
        for name, item in statements.items():
            compiled: Any = item.compile(dialect=DIALECTS[name])
            self._texts[name] = str(compiled)
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
        connection.run(connection.cursor.executemany, self._texts[connection.dialect], bound)

    def _execute(self, connection: Connection, parameters: Mapping[str, Any]) -> Any:
        bound = self._bind(connection, parameters)
        return connection.run(connection.cursor.execute, self._texts[connection.dialect], bound)

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
    array = bindparam(name, type_=postgresql.ARRAY(column.type))
    return {"sqlite": column.in_(listed), "postgresql": column == any_(array)}


def recordset(parameter: str, *columns: Column[Any]) -> TableValuedAlias:
    """Return the rows that a parameter holds as a JSON array of objects with these `columns`. PostgreSQL only."""
    return (
        func.jsonb_to_recordset(cast(bindparam(parameter), JSONB))
        .table_valued(*(column(item.name, item.type) for item in columns), name=parameter)
        .render_derived(with_types=True)
    )


def upsert(dialect: str, table: Table, keys: Sequence[str], columns: Sequence[str]) -> Any:
    """Return an INSERT that, if a row with the same `keys` exists, replaces the `columns` of that row."""
    inserted: Any = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(table)
    inserted = inserted.values({name: bindparam(name) for name in (*keys, *columns)})
    return inserted.on_conflict_do_update(
        index_elements=list(keys), set_={name: inserted.excluded[name] for name in columns}
    )


def _is_instant(item: Any) -> bool:
    # The tables' own type of instants is built on this one.
    return isinstance(getattr(item.type, "impl", None), DateTime)


def _columns(compiled: Any) -> list[Any]:
    return list(compiled.statement.selected_columns) if getattr(compiled.statement, "is_select", False) else []
