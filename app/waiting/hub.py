"""Who waits for which chart, and what wakes them.

A waiter holds a thread and nothing else: no transaction and no connection. One thread a process watches the
database for all of them: PostgreSQL's NOTIFY, or SQLite's change counter, with a slow look at the charts waited
for as the net under both. What a woken waiter judges is read once for all waiters of a chart.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from app import store
from app.core.errors import StateServiceError, TooManyWaitersError
from app.db import Database, asking
from app.waiting.places import OwnPlaces, Places
from app.waiting.watching import DEAF_SECONDS, read_listen_url, watch


@dataclass(frozen=True, slots=True)
class Topic:
    """What one waits for: a move of a chart, or (`rows`) any new row of its log."""

    chart: str
    rows: bool = False


class Room:
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

    def __init__(self, room: Room, is_closed: Callable[[], bool]) -> None:
        self._room = room
        self._is_closed = is_closed
        self._seen = room.generation

    def sleep(self, seconds: float) -> bool:
        """Sleep until something may have changed; False when `seconds` are over or the server was told to stop."""
        room = self._room
        with room.condition:
            changed = room.condition.wait_for(
                lambda: room.generation != self._seen or self._is_closed(), max(seconds, 0)
            )
            self._seen = room.generation
        return changed and not self._is_closed()

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


logger = logging.getLogger("stateservice.waiting")


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
        self._rooms: dict[Topic, Room] = {}
        self._slot_waiters: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hub", daemon=True)
        self._listen_url = None if is_deaf or database.is_sqlite else read_listen_url(database, listen_url)

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
            yield Waiter(room, lambda: self.is_closed)
        finally:
            self._leave(topic, room)

    @contextmanager
    def waiting_for_slot(self, chart: str, machine: str) -> Iterator[None]:
        """List `machine` among the machines that wait for a slot of `chart`, for as long as the block lasts."""
        with self._lock:
            self._slot_waiters.setdefault(chart, []).append(machine)
        try:
            yield
        finally:
            with self._lock:
                machines = self._slot_waiters[chart]
                machines.remove(machine)
                if not machines:
                    del self._slot_waiters[chart]

    def list_slot_waiters(self, chart: str) -> list[str]:
        """Return the machines that wait for a slot of `chart` in this process, the longest wait first."""
        with self._lock:
            # A machine that waits in two requests is named once.
            return list(dict.fromkeys(self._slot_waiters.get(chart, ())))

    def _enter(self, topic: Topic) -> Room:
        with self._lock:
            if not self.places.take(self._limit):
                raise TooManyWaitersError(f"{self._limit} requests wait already")
            room = self._rooms.setdefault(topic, Room())
            room.waiters += 1
            return room

    def _leave(self, topic: Topic, room: Room) -> None:
        with self._lock:
            self.places.give_back()
            room.waiters -= 1
            if room.waiters == 0:
                self._rooms.pop(topic, None)

    def _list_rooms(self) -> dict[Topic, Room]:
        with self._lock:
            return dict(self._rooms)

    def look(self, *, rows_only: bool = False) -> None:
        """Read where every chart stands that somebody waits for, and wake the waiters of those that changed."""
        rooms = {topic: room for topic, room in self._list_rooms().items() if topic.rows or not rows_only}
        if not rooms:
            return
        with asking(self._database) as connection:
            found = store.charts.list_marks(connection, sorted({topic.chart for topic in rooms}))
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
                watch(self, self._database, self._listen_url)
            except Exception:
                logger.exception("watching the database failed, will try again")
                self.wait_closed(DEAF_SECONDS)

    def wait_closed(self, seconds: float) -> bool:
        """Sleep; True once the hub is closed."""
        return self._closed.wait(seconds)
