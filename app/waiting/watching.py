"""What watches the database for all who wait in a process."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing
from typing import Any, Protocol

import psycopg
from psycopg.conninfo import make_conninfo

from app import store
from app.core.errors import StateServiceError
from app.db import Database
from app.db.engine import normalize_url
from app.db.postgresql import PatientConnection
from app.db.sqlite import FileConnection, identity_of, open_sqlite

logger = logging.getLogger("stateservice.waiting")

# SQLite's change counter costs microseconds to read.
COUNTER_SECONDS = 0.05
# The net: charts waited for are looked at this often whatever was heard, and this often while nothing can be heard.
# Both keep the promise of one second: a pooler that the settings do not name drops NOTIFY without an error.
NET_SECONDS = 0.75
DEAF_SECONDS = 0.5
# Waiters for any new row of the log, which nothing announces.
ROWS_SECONDS = 0.5
LISTENER_NAME = "stateservice-listen"

# A firewall that forgets a silent connection must not leave us listening to nothing.
_KEEPALIVE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}


class Watched(Protocol):
    """What is told when a chart may have changed: the hub."""

    @property
    def is_closed(self) -> bool: ...

    def tell(self, chart: str) -> None: ...

    def look(self, *, rows_only: bool = False) -> None: ...

    def wait_closed(self, seconds: float) -> bool: ...


def read_listen_url(database: Database, given: str | None) -> str:
    """The address to listen at: what was `given`, else the database's. Raises SettingError."""
    url = database.engine.url if given is None else normalize_url(given)
    # Not as it is written: `?host=a:5432&host=b:5432` is SQLAlchemy's way to name several, and libpq has another.
    _, options = url.get_dialect()().create_connect_args(url)
    return make_conninfo(**options)


def watch(hub: Watched, database: Database, listen_url: str | None) -> None:
    """Have `hub` look whenever a chart may have changed, until it is closed or what watches is to be set up anew.

    Without `listen_url` on PostgreSQL nothing can be heard, and it only looks.
    """
    if database.is_sqlite:
        _watch_sqlite(hub, database)
    elif listen_url is None:
        _look_deaf(hub)
    else:
        _watch_postgresql(hub, listen_url)


def _watch_sqlite(hub: Watched, database: Database) -> None:
    """Look whenever SQLite's change counter, which sees every process's commits, has moved."""
    try:
        with closing(open_sqlite(database.engine.url)) as connection:
            _count(hub, connection)
    except (sqlite3.Error, StateServiceError) as error:
        logger.warning("cannot watch the database, will try again: %s", error)
        hub.wait_closed(DEAF_SECONDS)


def _count(hub: Watched, connection: FileConnection) -> None:
    counter, next_net = None, 0.0
    # Another file in its place has a counter of its own: end, and be called again with a connection to that one.
    while identity_of(connection.path) == connection.identity:
        found = connection.execute("PRAGMA data_version").fetchone()[0]
        if found != counter or time.monotonic() >= next_net:
            counter, next_net = found, time.monotonic() + NET_SECONDS
            hub.look()
        if hub.wait_closed(COUNTER_SECONDS):
            return


def _watch_postgresql(hub: Watched, url: str) -> None:
    """Listen for NOTIFY on a connection of its own; look at every chart after a loss, since it may have missed one."""
    options: dict[str, Any] = {"connect_timeout": 3, "application_name": LISTENER_NAME, **_KEEPALIVE}
    try:
        with PatientConnection.connect(url, autocommit=True, **options) as heard:
            heard.execute(f"LISTEN {store.record.CHANNEL}")
            _listen(hub, heard)
    except (psycopg.Error, StateServiceError) as error:
        logger.warning("cannot listen to the database, will look every %s s: %s", DEAF_SECONDS, error)
        _look_deaf(hub)


def _listen(hub: Watched, heard: psycopg.Connection[Any]) -> None:
    hub.look()
    next_net = next_rows = time.monotonic()
    while not hub.is_closed:
        for notice in heard.notifies(timeout=ROWS_SECONDS, stop_after=1):
            hub.tell(notice.payload)
        now = time.monotonic()
        if now >= next_net:
            hub.look()
            next_net, next_rows = now + NET_SECONDS, now + ROWS_SECONDS
        elif now >= next_rows:
            hub.look(rows_only=True)
            next_rows = now + ROWS_SECONDS


def _look_deaf(hub: Watched) -> None:
    try:
        hub.look()
    except StateServiceError as error:
        logger.warning("cannot look at the database, will try again: %s", error)
    hub.wait_closed(DEAF_SECONDS)
