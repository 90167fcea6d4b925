"""Who waits for which chart, and what wakes them.

A waiter is a coroutine on the process's event loop: it holds no thread, no transaction and no connection. One thread a
process watches the database for all of them and wakes them through `tell`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from psycopg.conninfo import make_conninfo

from app import store
from app.core.errors import StateServiceError, TooManyWaitersError
from app.db import Database, asking
from app.db.engine import normalize_url
from app.db.postgresql import PatientConnection
from app.db.sqlite import FileConnection, identity_of, open_sqlite
from app.waiting.places import OwnPlaces, Places

logger = logging.getLogger("stateservice.waiting")

# Watching the database

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


# Waiting


@dataclass(frozen=True, slots=True)
class Topic:
    """What a request waits for: a move of a chart, or (`rows`) any new row of its log."""

    chart: str
    rows: bool = False


class Room:
    """The waiters of one topic, in the order in which they came. Used on the event loop only."""

    __slots__ = ("generation", "mark", "waiters")

    def __init__(self) -> None:
        # Rises with every change that may concern the waiters.
        self.generation = 0
        # What the last look at the chart saw; None before the first look.
        self.mark: object = None
        self.waiters: dict[Waiter, None] = {}

    def wake(self) -> None:
        """Let every waiter look again."""
        self.generation += 1
        for waiter in self.waiters:
            waiter.wake()


class Waiter:
    """One request's place in a room; `machine` is set if it waits for a slot."""

    __slots__ = ("_alarm", "_room", "_seen", "machine")

    def __init__(self, room: Room, machine: str | None) -> None:
        self._room = room
        self._seen = room.generation
        self._alarm: asyncio.Future[None] | None = None
        self.machine = machine

    async def sleep(self, seconds: float) -> None:
        """Sleep until something may have changed since the last sleep, for at most `seconds`."""
        if self._room.generation == self._seen:
            loop = asyncio.get_running_loop()
            self._alarm = loop.create_future()
            # A timer costs less memory than asyncio.wait_for, which wraps the sleep in a task of its own.
            timer = loop.call_later(seconds, self.wake)
            try:
                await self._alarm
            finally:
                timer.cancel()
                self._alarm = None
        self._seen = self._room.generation

    def wake(self) -> None:
        """End the sleep: something may have changed, the time is over, or the hub closes."""
        if self._alarm is not None and not self._alarm.done():
            self._alarm.set_result(None)


class Hub:
    """The waiting requests of one process, and the thread that watches the database for them."""

    def __init__(
        self,
        database: Database,
        *,
        limit: int = 2000,
        listen_url: str | None = None,
        is_deaf: bool = False,
    ) -> None:
        self._database = database
        self._limit = limit
        self.places: Places = OwnPlaces()
        self._rooms: dict[Topic, Room] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hub", daemon=True)
        self._listen_url = None if is_deaf or database.is_sqlite else read_listen_url(database, listen_url)

    @property
    def is_closed(self) -> bool:
        """True once the server was told to stop: no request waits any longer."""
        return self._closed.is_set()

    @property
    def waiters(self) -> int:
        """How many requests wait, in all workers of this server."""
        return self.places.total()

    def start(self) -> None:
        """Begin to watch the database."""
        self._thread.start()

    def close(self) -> None:
        """Wake every waiter for good. Safe in a signal handler and on any thread: it takes no lock."""
        self._closed.set()
        self._on_loop(self._wake_for_good)

    def join(self, seconds: float) -> None:
        """Wait until the watching thread has ended, if it was started, for at most so many seconds."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    def tell(self, chart: str) -> None:
        """Wake the waiters for a chart that has just moved. Safe on any thread."""
        if self._rooms:
            self._on_loop(self._wake, Topic(chart), Topic(chart, rows=True))

    def tell_rows(self, chart: str) -> None:
        """Wake the waiters for any new row of a chart's log. Safe on any thread."""
        if self._rooms:
            self._on_loop(self._wake, Topic(chart, rows=True))

    def list_slot_waiters(self, chart: str) -> list[str]:
        """Return the machines that wait for a slot of the chart in this process, longest first."""
        room = self._rooms.get(Topic(chart, rows=True))
        # A copy of the keys in one step: the event loop may change them meanwhile.
        waiters = [] if room is None else list(room.waiters)
        # A machine that waits in two requests is named once.
        return list(dict.fromkeys(waiter.machine for waiter in waiters if waiter.machine is not None))

    @contextmanager
    def waiting(self, topic: Topic, machine: str | None = None, token: int | None = None) -> Iterator[Waiter]:
        """Take a place among the waiters of `topic`, on the running event loop, for the token with this number.

        Inside the block no change can be missed: read first, then sleep. Raises TooManyWaitersError.
        """
        if not self.places.take(self._limit, token):
            is_full = self.places.total() >= self._limit
            what = "requests wait already" if is_full else "places for waiting: this token holds half of them"
            raise TooManyWaitersError(f"{self._limit} {what}")
        self._loop = asyncio.get_running_loop()
        room = self._rooms.setdefault(topic, Room())
        waiter = Waiter(room, machine)
        room.waiters[waiter] = None
        try:
            yield waiter
        finally:
            del room.waiters[waiter]
            if not room.waiters:
                self._rooms.pop(topic, None)
            self.places.give_back(token)

    def _on_loop(self, act: Callable[..., None], *arguments: Topic) -> None:
        if self._loop is not None:
            # RuntimeError: the loop is closed, and so nothing waits on it.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(act, *arguments)

    def _wake(self, *topics: Topic) -> None:
        for topic in topics:
            room = self._rooms.get(topic)
            if room is not None:
                room.wake()

    def _wake_for_good(self) -> None:
        for room in self._rooms.values():
            room.wake()

    def look(self, *, rows_only: bool = False) -> None:
        """Read where every chart that is waited for stands, and wake the waiters of those that changed.

        Called by the watching thread.
        """
        rooms = {topic: room for topic, room in list(self._rooms.items()) if topic.rows or not rows_only}
        if not rooms:
            return
        with asking(self._database) as connection:
            found = store.charts.list_marks(connection, sorted({topic.chart for topic in rooms}))
        for topic, room in rooms.items():
            moved, seq = found.get(topic.chart, (None, None))
            mark = (moved, seq) if topic.rows else moved
            if room.mark != mark:
                # The first look has nothing to compare with and wakes every waiter once, to be sure.
                room.mark = mark
                self._on_loop(self._wake, topic)

    def _watch(self) -> None:
        while not self.is_closed:
            try:
                watch(self, self._database, self._listen_url)
            except Exception:
                logger.exception("watching the database failed, will try again")
                self.wait_closed(DEAF_SECONDS)

    def wait_closed(self, seconds: float) -> bool:
        """Sleep; True once the hub is closed. Called by the watching thread."""
        return self._closed.wait(seconds)
