"""Who waits for which chart, and what wakes them.

A waiter holds a thread and nothing else: no transaction and no connection. One thread a process watches the
database for all of them: PostgreSQL's NOTIFY, or SQLite's change counter, with a slow look at the charts waited
for as the net under both. What a woken waiter judges is read once for all waiters of a chart.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import sqlite3
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from psycopg.conninfo import make_conninfo

from app import store
from app.core.errors import StateServiceError, TooManyWaitersError
from app.db import Database, asking
from app.db.engine import normalize_url
from app.db.patience import PatientConnection
from app.db.sqlite import identity_of, open_sqlite

logger = logging.getLogger("stateservice.waiting")

# SQLite's change counter costs microseconds to read.
COUNTER_SECONDS = 0.05
# The net: charts waited for are looked at this often whatever was heard, and this often while nothing can be heard.
# Both keep the promise of one second: a pooler nobody told us of swallows NOTIFY without a word.
NET_SECONDS = 0.75
DEAF_SECONDS = 0.5
# Waiters for any new row of the log, which nothing announces.
ROWS_SECONDS = 0.5
MAX_WORKERS = 512
_COUNT = struct.Struct("=q")
LISTENER_NAME = "stateservice-listen"


# A firewall that forgets a silent connection must not leave us listening to nothing.
_KEEPALIVE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}


class Places(Protocol):
    """Counts the waiters of all workers of one server."""

    def total(self) -> int: ...

    def take(self, limit: int) -> bool: ...

    def give_back(self) -> None: ...


class OwnPlaces:
    """The waiters of this process alone. The caller of `take` and `give_back` holds the hub's lock."""

    def __init__(self) -> None:
        self._count = 0

    def total(self) -> int:
        """How many wait."""
        return self._count

    def take(self, limit: int) -> bool:
        """Take a place; False where `limit` are taken."""
        if self._count >= limit:
            return False
        self._count += 1
        return True

    def give_back(self) -> None:
        """One waiter less."""
        self._count -= 1


class SharedPlaces:
    """The waiters of every worker of a server: a count a worker, in memory that all of them inherit by fork."""

    def __init__(self) -> None:
        # A nameless file, because a lock on a file goes with the process that holds it, however that ends.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it is open for as long as the server runs
        self._file.truncate(MAX_WORKERS * _COUNT.size)
        self._memory = mmap.mmap(self._file.fileno(), MAX_WORKERS * _COUNT.size)

    def own(self, worker: int) -> WorkerPlaces:
        """The count of the worker with this number; numbers rise for ever and counts are used in turn."""
        return WorkerPlaces(self._memory, self._file.fileno(), worker % MAX_WORKERS)


class WorkerPlaces:
    """One worker's count among those of all. The caller of `take` and `give_back` holds the hub's lock."""

    def __init__(self, memory: mmap.mmap, file: int, worker: int) -> None:
        self._memory = memory
        self._file = file
        self._offset = worker * _COUNT.size

    def total(self) -> int:
        """How many wait, in all workers."""
        return sum(count for (count,) in _COUNT.iter_unpack(self._memory[:]))

    def take(self, limit: int) -> bool:
        """Take a place; False where `limit` are taken, in all workers."""
        # Two workers must not both take the last place.
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            if self.total() >= limit:
                return False
            self._add(1)
            return True
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def give_back(self) -> None:
        """One waiter less in this worker."""
        self._add(-1)

    def clear(self) -> None:
        """None in this worker: it is gone."""
        _COUNT.pack_into(self._memory, self._offset, 0)

    def _add(self, change: int) -> None:
        (count,) = _COUNT.unpack_from(self._memory, self._offset)
        _COUNT.pack_into(self._memory, self._offset, count + change)


@dataclass(frozen=True, slots=True)
class Topic:
    """What one waits for: a move of a chart, or (`rows`) any new row of its log."""

    chart: str
    rows: bool = False


class _Room:
    """The waiters of one topic. `generation` rises with every change of `mark`."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.generation = 0
        self.waiters = 0
        self.mark: Any = None
        self.reading = threading.Lock()
        self.read_generation = -1
        self.read_began = self.read_ended = 0.0
        self.shared: Any = None
        self.error: StateServiceError | None = None

    def wake(self) -> None:
        with self.condition:
            self.generation += 1
            self.condition.notify_all()

    def read(self, read: Callable[[], Any], generation: int) -> None:
        """Read for everybody who is content with `generation`. The caller holds `reading`."""
        self.read_began = time.monotonic()
        try:
            self.shared, self.error = read(), None
        except StateServiceError as error:
            self.shared, self.error = None, error
        self.read_generation = max(self.read_generation, generation)
        self.read_ended = time.monotonic()

    def failed_since(self, asked: float) -> bool:
        """True where a read ended in an error after `asked`: to try once more would only take as long again."""
        return self.error is not None and self.read_ended > asked


class Waiter:
    """One request's place in a waiting room."""

    def __init__(self, hub: Hub, room: _Room) -> None:
        self._hub = hub
        self._room = room
        self._seen = room.generation

    def sleep(self, seconds: float) -> bool:
        """Sleep until something may have changed; False when `seconds` are over or the server was told to stop."""
        room = self._room
        with room.condition:
            changed = room.condition.wait_for(
                lambda: room.generation != self._seen or self._hub.is_closed, max(seconds, 0)
            )
            self._seen = room.generation
        return changed and not self._hub.is_closed

    def share(self, read: Callable[[], Any], *, is_fresh: bool = False) -> Any:
        """Return what `read` returns, read once for all waiters that the same change woke.

        With `is_fresh` it is read after this call began, once for all who ask meanwhile. Raises what `read` raises.
        """
        asked = time.monotonic()
        room = self._room
        with room.reading:
            is_stale = room.read_generation < self._seen or (is_fresh and room.read_began < asked)
            if is_stale and not room.failed_since(asked):
                room.read(read, self._seen)
            shared, error = room.shared, room.error
        if error is not None:
            raise error.with_traceback(None)
        return shared


class Hub:
    """The waiting rooms of one process, and the thread that watches the database for them."""

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
        self._rooms: dict[Topic, _Room] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hub", daemon=True)
        self._listen_url = None if is_deaf or database.is_sqlite else _listen_url(database, listen_url)

    @property
    def is_closed(self) -> bool:
        """True once the server was told to stop: nobody waits any longer."""
        return self._closed.is_set()

    @property
    def waiters(self) -> int:
        """How many requests wait, in all workers of this server."""
        return self.places.total()

    def start(self) -> None:
        """Begin to watch the database."""
        self._thread.start()

    def close(self) -> None:
        """Wake everybody for good."""
        self._closed.set()
        for room in self._list_rooms().values():
            room.wake()

    def tell(self, chart: str) -> None:
        """Wake everybody who waits for a chart that has just moved."""
        self._wake(Topic(chart))
        self.tell_rows(chart)

    def tell_rows(self, chart: str) -> None:
        """Wake those who wait for any new row of a chart's log."""
        self._wake(Topic(chart, rows=True))

    def _wake(self, topic: Topic) -> None:
        room = self._rooms.get(topic)
        if room is not None:
            room.wake()

    @contextmanager
    def waiting(self, topic: Topic) -> Iterator[Waiter]:
        """Take a place among the waiters of `topic`.

        Whatever is read for the first time after this is entered, no later change of it can slip through.
        Raises TooManyWaitersError.
        """
        room = self._enter(topic)
        try:
            yield Waiter(self, room)
        finally:
            self._leave(topic, room)

    def _enter(self, topic: Topic) -> _Room:
        with self._lock:
            if not self.places.take(self._limit):
                raise TooManyWaitersError(f"{self._limit} requests wait already")
            room = self._rooms.setdefault(topic, _Room())
            room.waiters += 1
            return room

    def _leave(self, topic: Topic, room: _Room) -> None:
        with self._lock:
            self.places.give_back()
            room.waiters -= 1
            if room.waiters == 0:
                self._rooms.pop(topic, None)

    def _list_rooms(self) -> dict[Topic, _Room]:
        with self._lock:
            return dict(self._rooms)

    def look(self, *, rows_only: bool = False) -> None:
        """Read where every chart stands that somebody waits for, and wake the waiters of those that changed."""
        rooms = {topic: room for topic, room in self._list_rooms().items() if topic.rows or not rows_only}
        if not rooms:
            return
        with asking(self._database) as connection:
            found = store.list_marks(connection, sorted({topic.chart for topic in rooms}))
        for topic, room in rooms.items():
            moved, seq = found.get(topic.chart, (None, None))
            mark = (moved, seq) if topic.rows else moved
            if room.mark != mark:
                # The first look has nothing to compare with and wakes everybody once, to be sure.
                room.mark = mark
                room.wake()

    def _watch(self) -> None:
        while not self.is_closed:
            try:
                self._watch_once()
            except Exception:
                logger.exception("watching the database failed, will try again")
                self.wait_closed(DEAF_SECONDS)

    def _watch_once(self) -> None:
        if self._database.is_sqlite:
            _watch_sqlite(self, self._database)
        elif self._listen_url is None:
            _look_deaf(self)
        else:
            _watch_postgresql(self, self._listen_url)

    def wait_closed(self, seconds: float) -> bool:
        """Sleep; True once the hub is closed."""
        return self._closed.wait(seconds)


def _watch_sqlite(hub: Hub, database: Database) -> None:
    """Look whenever SQLite's change counter, which sees every process's commits, has moved."""
    try:
        with closing(open_sqlite(database.engine.url)) as connection:
            _count(hub, connection, str(database.engine.url.database))
    except (sqlite3.Error, StateServiceError) as error:
        logger.warning("cannot watch the database, will try again: %s", error)
        hub.wait_closed(DEAF_SECONDS)


def _count(hub: Hub, connection: sqlite3.Connection, path: str) -> None:
    opened, counter, next_net = identity_of(path), None, 0.0
    # Another file in its place has a counter of its own: end, and be called again with a connection to that one.
    while identity_of(path) == opened:
        found = connection.execute("PRAGMA data_version").fetchone()[0]
        if found != counter or time.monotonic() >= next_net:
            counter, next_net = found, time.monotonic() + NET_SECONDS
            hub.look()
        if hub.wait_closed(COUNTER_SECONDS):
            return


def _listen_url(database: Database, given: str | None) -> str:
    url = database.engine.url if given is None else normalize_url(given)
    # Not as it is written: `?host=a:5432&host=b:5432` is SQLAlchemy's way to name several, and libpq has another.
    _, options = url.get_dialect()().create_connect_args(url)
    return make_conninfo(**options)


def _watch_postgresql(hub: Hub, url: str) -> None:
    """Listen for NOTIFY on a connection of its own; look at every chart after a loss, since it may have missed one."""
    options: dict[str, Any] = {"connect_timeout": 3, "application_name": LISTENER_NAME, **_KEEPALIVE}
    try:
        with PatientConnection.connect(url, autocommit=True, **options) as heard:
            heard.execute(f"LISTEN {store.CHANNEL}")
            _listen(hub, heard)
    except (psycopg.Error, StateServiceError) as error:
        logger.warning("cannot listen to the database, will look every %s s: %s", DEAF_SECONDS, error)
        _look_deaf(hub)


def _listen(hub: Hub, heard: psycopg.Connection[Any]) -> None:
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


def _look_deaf(hub: Hub) -> None:
    try:
        hub.look()
    except StateServiceError as error:
        logger.warning("cannot look at the database, will try again: %s", error)
    hub.wait_closed(DEAF_SECONDS)
