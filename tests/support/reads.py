"""What a use case asks of the database, in numbers that are the same on every computer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from sqlalchemy import event

from app.db import Connection
from app.service.context import Service

_READ = "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_user_tables"
_VERBS = {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"}


@dataclass
class Reads:
    """The statements of each transaction of a block, and the work of finding their rows.

    `work` is how many rows PostgreSQL's transactions read, and on SQLite how many steps its virtual machine took.
    """

    transactions: list[list[str]] = field(default_factory=list)
    work: int = 0

    @property
    def statements(self) -> list[str]:
        """All statements."""
        return [statement for statements in self.transactions for statement in statements]

    def begin(self) -> None:
        self.transactions.append([])

    def note(self, statement: str) -> None:
        if self.transactions and statement.split(maxsplit=1)[0] in _VERBS:
            self.transactions[-1].append(statement)

    def step(self) -> int:
        self.work += 1
        return 0


@contextmanager
def counted_reads(service: Service) -> Iterator[Reads]:
    """Count what this block's transactions ask of the database."""
    found, run, engine = Reads(), Connection.run, service.database.engine

    def watch(connection: Connection, act: Callable[..., Any], *arguments: Any) -> Any:
        name, text = getattr(act, "__name__", ""), arguments[0] if arguments else None
        if name == "begin_immediate" or (isinstance(text, str) and text.startswith("BEGIN")):
            found.begin()
            made = run(connection, act, *arguments)
            _start(connection, found)
            return made
        if act == connection.driver.commit:
            _end(connection, found)
        if isinstance(text, str):
            found.note(text)
        return run(connection, act, *arguments)

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        found.note(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        with patch.object(Connection, "run", watch):
            yield found
    finally:
        event.remove(engine, "before_cursor_execute", note)


def _start(connection: Connection, found: Reads) -> None:
    if connection.is_sqlite:
        connection.driver.set_progress_handler(found.step, 1)
    else:
        # What the session did before may still be among the numbers of this transaction.
        found.work -= _read(connection)


def _end(connection: Connection, found: Reads) -> None:
    if connection.is_sqlite:
        connection.driver.set_progress_handler(None, 0)
    else:
        found.work += _read(connection)


def _read(connection: Connection) -> int:
    with connection.driver.cursor() as cursor:
        return int(cursor.execute(_READ).fetchone()[0])
