"""The time that SQLite's databases go by: that of this machine, which never goes back."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from weakref import WeakKeyDictionary

from sqlalchemy import Engine

# A clock that was set back by no more than this is waited for.
SMALL_STEP = timedelta(seconds=2)
# A clock that was set back by more than this was wrong by far: it is followed at once.
LARGE_STEP = timedelta(days=1)
# The share by which time goes slower, so that the machine's clock catches up.
SLOWER = 0.02

logger = logging.getLogger("stateservice.clock")


def _read_machine() -> datetime:
    return datetime.now(UTC)


class SteadyClock:
    """The time that this process goes by: that of the machine's clock, but it never goes back.

    SQLite has no server that tells the time. If the machine's clock is set back, every deadline and lease would end
    later by as much. So time goes on as it passes, and a little slower, until the machine's clock has caught up.
    """

    def __init__(
        self,
        read: Callable[[], datetime] = _read_machine,
        read_passed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._read_passed = read_passed
        self._lock = threading.Lock()
        self._ahead = timedelta(0)
        self._at: datetime | None = None
        self._passed = 0.0

    @property
    def ahead(self) -> timedelta:
        """How far this time is ahead of the machine's clock; zero unless that was set back."""
        return self._ahead

    @property
    def has_begun(self) -> bool:
        """True once the time was asked for, or told by `begin`."""
        return self._at is not None

    def begin(self, newest: datetime) -> None:
        """Begin at an instant that was written by an earlier process, if the machine's clock is behind it."""
        with self._lock:
            self._at, self._passed = newest, self._read_passed()

    def now(self) -> datetime:
        """Return the time."""
        with self._lock:
            clock, passed = self._read(), self._read_passed()
            before = clock if self._at is None else self._at
            expected = before + timedelta(seconds=(passed - self._passed) * (1 - SLOWER * bool(self._ahead)))
            self._at, self._passed = self._choose(clock, before, expected), passed
            return self._at

    def settle(self) -> None:
        """Go by the machine's clock again: nothing that was written by the time before waits for an instant."""
        with self._lock:
            if self._ahead:
                logger.warning("no deadline is near: the time is that of the machine's clock again")
                self._at, self._passed, self._ahead = self._read(), self._read_passed(), timedelta(0)

    def _choose(self, clock: datetime, before: datetime, expected: datetime) -> datetime:
        """Return the time: `clock`, unless it was set back since it was `before`, after which `expected` has come."""
        behind = expected - clock
        if behind <= timedelta(0) or self._at is None:
            self._ahead = timedelta(0)
            return clock
        if behind <= SMALL_STEP and not self._ahead:
            return max(before, clock)
        is_new = behind > self._ahead + SMALL_STEP
        told = timedelta(seconds=round(behind.total_seconds()))
        if behind > LARGE_STEP:
            logger.error(
                "the machine's clock was set back by %s, and is followed: deadlines and leases that began before end"
                " that much later",
                told,
            )
            self._ahead = timedelta(0)
            return clock
        if is_new:
            logger.error(
                "the machine's clock was set back by %s: deadlines and leases end after the time that they had left."
                " Windows and clock guards come early by as much, until the clock has caught up",
                told,
            )
        self._ahead = behind
        return expected


_clocks: WeakKeyDictionary[Engine, SteadyClock] = WeakKeyDictionary()


def find_clock(engine: Engine) -> SteadyClock:
    """Return the clock of an engine's database, the same one each time."""
    found = _clocks.get(engine)
    # If two threads make one, both get the first.
    return _clocks.setdefault(engine, SteadyClock()) if found is None else found


def read_time(engine: Engine, driver: sqlite3.Connection) -> datetime:
    """Return the time by which the database behind `driver` is judged."""
    clock = find_clock(engine)
    if not clock.has_begun:
        newest = _find_newest(driver)
        if newest is not None:
            clock.begin(newest)
    return clock.now()


def _find_newest(driver: sqlite3.Connection) -> datetime | None:
    """Return when the newest row of the log was written; None if the log is empty."""
    try:
        row = driver.execute("SELECT at FROM transition_log ORDER BY id DESC LIMIT 1").fetchone()
    except sqlite3.Error:
        # It was never migrated, or cannot be read: the statement that asks for the time will say so.
        return None
    return None if row is None else datetime.fromisoformat(row[0])
