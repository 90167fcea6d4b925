"""A clock that jumps: the time by which the service judges is moved while it serves, as if an operator set the clock.

SQLite's time is the machine's, so each serving process reads from a file how far it is moved; only `proof.served` asks
for that. PostgreSQL's time is its own: a function in the database takes the place of `clock_timestamp`.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from app.db import sqlite
from app.db.engine import normalize_url

FILE = "clock"
# Seconds: a step that is waited for, and some that are not.
JUMPS = (2, -1, 20, -3)
_FUNCTION = """
CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
'SELECT pg_catalog.clock_timestamp() + make_interval(secs => (SELECT seconds FROM public.moved_by))'
"""
_MOVABLE = ("CREATE TABLE moved_by (seconds double precision)", "INSERT INTO moved_by VALUES (0)", _FUNCTION)


def install(folder: Path) -> None:
    """Have this process go by a clock that `move_file` moves."""
    path = str(folder / FILE)

    def read() -> datetime:
        try:
            with open(path) as file:
                seconds = float(file.read() or 0)
        except FileNotFoundError:
            seconds = 0
        return datetime.now(UTC) + timedelta(seconds=seconds)

    sqlite.SteadyClock = partial(sqlite.SteadyClock, read)  # type: ignore[assignment,misc]  # that is it


def move_file(folder: Path, seconds: float) -> None:
    """Move the clock of the processes that `install` was called in by so many seconds, from where it is now."""
    path = folder / FILE
    before = float(path.read_text()) if path.exists() else 0
    new = path.with_suffix(".new")
    new.write_text(str(before + seconds))
    os.replace(new, path)


def make_movable(url: str) -> None:
    """Let a PostgreSQL database's time be moved, for connections that are opened from now on."""
    engine = create_engine(normalize_url(url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in _MOVABLE:
            connection.exec_driver_sql(statement)
        # A schema that is named before pg_catalog is asked before it.
        name = connection.dialect.identifier_preparer.quote(engine.url.database or "")
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET search_path = public, pg_catalog")


def move_database(url: str, seconds: float) -> None:
    """Move the time of a database that was made movable."""
    engine = create_engine(normalize_url(url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"UPDATE moved_by SET seconds = seconds + {seconds}")
