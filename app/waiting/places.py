"""How many wait, in one process or in all workers of a server."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from typing import Protocol

MAX_WORKERS = 512
_COUNT = struct.Struct("=q")


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
        """Take a place; return False if `limit` are taken."""
        if self._count >= limit:
            return False
        self._count += 1
        return True

    def give_back(self) -> None:
        """Give one place back."""
        self._count -= 1


class SharedPlaces:
    """The waiters of every worker of a server: a count a worker, in memory that all of them inherit by fork."""

    def __init__(self) -> None:
        # A nameless file in memory: a lock on a file goes with the process that holds it, however that ends, and no
        # full disk can take the memory away.
        self._file = os.memfd_create("stateservice-waiters")
        os.posix_fallocate(self._file, 0, MAX_WORKERS * _COUNT.size)
        self._memory = mmap.mmap(self._file, MAX_WORKERS * _COUNT.size)

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
        return sum(count for (count,) in _COUNT.iter_unpack(self._memory[:]))

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

    def clear(self) -> None:
        """Set the count to 0: the worker is gone."""
        _COUNT.pack_into(self._memory, self._offset, 0)

    def _add(self, change: int) -> None:
        (count,) = _COUNT.unpack_from(self._memory, self._offset)
        _COUNT.pack_into(self._memory, self._offset, count + change)
