"""Fills a database that nobody uses yet as years of use would: with charts, and with rows of the log."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from app.core.log import Author
from app.db import Database
from app.db.engine import normalize_url, open_engine
from app.models import attribute_values, attributes, chart_versions, charts, states, transition_log, transitions, visits
from app.service.context import Service
from app.service.operate import ImportRequest, import_chart
from app.waiting.hub import Hub
from bench.charts import HOT, chart_text

_NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT {low} UNION ALL SELECT n + 1 FROM numbers WHERE n < {high})"
# The rows are those that the service would write, but for their hash; the check that they are looks at one at a time.
_CHECK = "transition_log_checks_insert"
_HASH = {"sqlite": "printf('%064x', n * 2654435761)", "postgresql": "lpad(to_hex(n * 2654435761::bigint), 64, '0')"}


def add_chart(url: str, name: str = HOT, text: str | None = None, number_of_states: int = 3) -> None:
    """Import a chart: the one of this `text`, or one that is never done."""
    engine = open_engine(url)
    database = Database(engine)
    request = ImportRequest(text or chart_text(number_of_states), name=name)
    import_chart(Service(database=database, hub=Hub(database)), request, Author())
    engine.dispose()


def add_copies(url: str, count: int) -> None:
    """Copy the hot chart, its definition, position and log, to `c1`, `c2`, … as if each had been imported."""
    hot = f"SELECT id FROM charts WHERE name = '{HOT}'"
    with filling(url) as raw:
        numbers = _NUMBERS.format(low=1, high=count)
        raw.execute(f"{numbers} {_copy(charts, {'name': _NAME}, 'numbers')} WHERE o.name = '{HOT}'")
        for table in (chart_versions, attribute_values, visits):
            raw.execute(
                f"{_copy(table, {'chart_id': 'c.id'}, 'charts c')} WHERE o.chart_id = ({hot}) AND c.id <> ({hot})"
            )
        version = f"SELECT id FROM chart_versions WHERE chart_id = ({hot})"
        raw.execute(
            f"{_copy(states, {'version_id': 'v.id'}, 'chart_versions v')}"
            f" WHERE o.version_id = ({version}) AND v.id <> ({version})"
        )
        for table in (attributes, transitions):
            raw.execute(
                f"{_copy(table, {'state_id': 's.id'}, 'states s JOIN states t ON s.name = t.name')}"
                f" WHERE o.state_id = t.id AND t.version_id = ({version}) AND s.version_id <> ({version})"
            )
        raw.execute(f"{numbers} {_copy(transition_log, {'chart': _NAME}, 'numbers')} WHERE o.chart = '{HOT}'")


_NAME = "'c' || n"


def _copy(table: Any, changed: dict[str, str], others: str) -> str:
    """An INSERT of rows of `table` beside `others`, with these columns changed, and ids of their own."""
    names = [column.name for column in table.columns if column.name != "id"]
    values = ", ".join(changed.get(name, f"o.{name}") for name in names)
    return f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {values} FROM {table.name} o, {others}"


def add_log_rows(url: str, count: int) -> None:
    """Give the hot chart `count` updates that it had before; its next one goes on after them."""
    which = "sqlite" if normalize_url(url).drivername == "sqlite" else "postgresql"
    changed = {"seq": "n", "kind": "'update'", "from_state": "o.to_state", "remote_addr": "'127.0.0.1'"}
    changed |= {"key": "'c'", "value_before": "n - 2", "value_after": "n - 1", "hash": _HASH[which]}
    last = count + 1
    with filling(url) as raw:
        numbers = _NUMBERS.format(low=2, high=last)
        raw.execute(f"{numbers} {_copy(transition_log, changed, 'numbers')} WHERE o.chart = '{HOT}' AND o.seq = 1")
        raw.execute(f"UPDATE attribute_values SET value = {count}")
        raw.execute(
            f"UPDATE charts SET seq = {last},"
            f" last_hash = (SELECT hash FROM transition_log WHERE chart = '{HOT}' AND seq = {last})"
        )


@contextmanager
def filling(url: str) -> Iterator[Any]:
    """The driver's connection to a database that nobody else uses; what it wrote is on disk at the end."""
    parsed = normalize_url(url)
    if parsed.drivername == "sqlite":
        with _filling_sqlite(str(parsed.database)) as raw:
            yield raw
        return
    engine = create_engine(parsed, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        # Neither the check nor the foreign keys, one row at a time.
        connection.exec_driver_sql("SET session_replication_role = replica")
        yield connection.connection.driver_connection
        # What would else be done in the middle of a round.
        connection.exec_driver_sql("VACUUM (FREEZE, ANALYZE)")
        connection.exec_driver_sql("CHECKPOINT")
    engine.dispose()


@contextmanager
def _filling_sqlite(path: str) -> Iterator[sqlite3.Connection]:
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA journal_mode=OFF")
    raw.execute("PRAGMA synchronous=OFF")
    (check,) = raw.execute(f"SELECT sql FROM sqlite_master WHERE name = '{_CHECK}'").fetchone()
    raw.execute(f"DROP TRIGGER {_CHECK}")
    yield raw
    raw.execute(check)
    raw.close()
    with Path(path).open("rb") as file:
        os.fsync(file.fileno())
