"""Core statements compiled once and run on the driver's own connection: for the two hot paths alone.

SQLAlchemy's execution of a statement, though cached, costs several times what the driver needs to run it
(docs/decisions.md says why they are). The text is still SQLAlchemy's, from the same tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, TableValuedAlias, any_, bindparam, cast, column, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import ClauseElement

from app.core.log import format_instant
from app.db import Connection
from app.models import UtcDateTime

DIALECTS: dict[str, Any] = {
    "sqlite": sqlite.dialect(paramstyle="named"),
    "postgresql": postgresql.psycopg.dialect(paramstyle="numeric_dollar"),  # type: ignore[no-untyped-call]  # its own
}


class Prepared:
    """A statement with named parameters, or one for each database.

    All values are the driver's own, but for SQLite's instants, which are text, and lists (see `among`), which are JSON.
    """

    def __init__(self, statement: ClauseElement | Mapping[str, ClauseElement]) -> None:
        statements = statement if isinstance(statement, Mapping) else dict.fromkeys(DIALECTS, statement)
        self._texts: dict[str, str] = {}
        # PostgreSQL's parameters have numbers: their names in that order.
        self._names: list[str] = []
        # What SQLAlchemy binds by itself: SQLite's LIMIT brings an OFFSET of 0.
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
        for name, value in bound.items():
            if isinstance(value, list):
                bound[name] = json.dumps(value)
        return bound

    def _read_instants(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(row)
        for number in self._instant_columns:
            if values[number] is not None:
                values[number] = datetime.fromisoformat(values[number])
        return tuple(values)


def among(column: ColumnElement[Any], name: str) -> dict[str, ColumnElement[bool]]:
    """For each database, whether `column` is one of the parameter `name`, a list of any length."""
    listed = select(func.json_each(bindparam(name)).table_valued("value").c.value)
    array = bindparam(name, type_=postgresql.ARRAY(column.type))
    return {"sqlite": column.in_(listed), "postgresql": column == any_(array)}


def recordset(parameter: str, *columns: Column[Any]) -> TableValuedAlias:
    """On PostgreSQL, the rows in a parameter: a JSON array of objects with these `columns`."""
    return (
        func.jsonb_to_recordset(cast(bindparam(parameter), JSONB))
        .table_valued(*(column(item.name, item.type) for item in columns), name=parameter)
        .render_derived(with_types=True)
    )


def _is_instant(item: Any) -> bool:
    return isinstance(item.type, UtcDateTime)


def _columns(compiled: Any) -> list[Any]:
    return list(compiled.statement.selected_columns) if getattr(compiled.statement, "is_select", False) else []
