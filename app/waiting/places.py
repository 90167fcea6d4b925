"""How many wait, in one process or in all workers of a server."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import struct
import time
from typing import Protocol

MAX_WORKERS = 512
_COUNT = struct.Struct("=q")
# After the counts: when a worker last took the turn, by the machine's monotonic clock; 0 if none has.
_TURN = struct.Struct("=d")
_TURN_OFFSET = MAX_WORKERS * _COUNT.size


class Places(Protocol):
    """Counts the waiters of all workers of one server."""

    def total(self) -> int: ...

    def take(self, limit: int) -> bool: ...

    def give_back(self) -> None: ...

    def take_turn(self, seconds: float) -> bool:
        """Return True if no worker has taken the turn in the last `seconds`: then this one has it."""


class OwnPlaces:
    """The waiters of this process alone. The caller of `take` and `give_back` holds the hub's lock."""

    def __init__(self) -> None:
        self._count = 0
        self._turn_at = -math.inf

    def total(self) -> int:
        """How many wait."""
        return self._count

    def take(self, limit: int) -> bool:
        """Take a place; return False if `limit` are taken."""
        if self._count >= limit:
            return False
        self._count += 1
        return True

    def give_back(self) -> None:
        """Give one place back."""
        self._count -= 1

    def take_turn(self, seconds: float) -> bool:
        """Return True if the last turn was `seconds` ago, or never: this one begins now."""
        now = time.monotonic()
        is_due = now - self._turn_at >= seconds
        self._turn_at = now if is_due else self._turn_at
        return is_due


class SharedPlaces:
    """The waiters of every worker of a server: a count a worker, in memory that all of them inherit by fork."""

    def __init__(self) -> None:
        # A nameless file in memory: a lock on a file goes with the process that holds it, however that ends, and no
        # full disk can take the memory away.
        self._file = os.memfd_create("stateservice-waiters")
        size = _TURN_OFFSET + _TURN.size
        os.posix_fallocate(self._file, 0, size)
        self._memory = mmap.mmap(self._file, size)

    def own(self, worker: int) -> WorkerPlaces:
        """The count of the worker with this number; numbers rise for ever and counts are used in turn."""
        return WorkerPlaces(self._memory, self._file, worker % MAX_WORKERS)


class WorkerPlaces:
    """One worker's count among those of all. The caller of `take` and `give_back` holds the hub's lock."""

    def __init__(self, memory: mmap.mmap, file: int, worker: int) -> None:
        self._memory = memory
        self._file = file
        self._offset = worker * _COUNT.size

    def total(self) -> int:
        """How many wait, in all workers."""
        return sum(count for (count,) in _COUNT.iter_unpack(self._memory[:_TURN_OFFSET]))

    def take(self, limit: int) -> bool:
        """Take a place; return False if all workers have taken `limit`."""
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
        """Give one of this worker's places back."""
        self._add(-1)

    def take_turn(self, seconds: float) -> bool:
        """Return True if no worker has taken the turn in the last `seconds`: then this one has it."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            (taken_at,) = _TURN.unpack_from(self._memory, _TURN_OFFSET)
            now = time.monotonic()
            if taken_at and now - taken_at < seconds:
                return False
            _TURN.pack_into(self._memory, _TURN_OFFSET, now)
            return True
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def clear(self) -> None:
        """Set the count to 0: the worker is gone."""
        _COUNT.pack_into(self._memory, self._offset, 0)

    def _add(self, change: int) -> None:
        (count,) = _COUNT.unpack_from(self._memory, self._offset)
        _COUNT.pack_into(self._memory, self._offset, count + change)
