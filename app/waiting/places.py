"""How many wait, in one process or in all workers of a server; and how many of them with one token.

A token holds at most half of the places, so that the holder of one token cannot keep all others from waiting.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import struct
import time
from collections import Counter
from enum import IntEnum
from typing import Protocol

MAX_WORKERS = 512
_COUNT = struct.Struct("=q")
# Counts for tokens, by the last digits of their numbers. Tokens are numbered one after another, so two that share a
# count are this far apart; then they share their half, too.
TOKENS = 1024
# After the counts: when a worker last took each turn, by the machine's monotonic clock; 0 if none has.
_TURN = struct.Struct("=d")
_TURN_OFFSET = MAX_WORKERS * (1 + TOKENS) * _COUNT.size


class Turn(IntEnum):
    """What one worker of a server does for all of them."""

    HEADS = 0
    CHECKPOINTS = 1


# Bytes of the memory that the workers of a server share.
SHARED_SIZE = _TURN_OFFSET + len(Turn) * _TURN.size


class Places(Protocol):
    """Counts the waiters of all workers of one server."""

    def total(self) -> int: ...

    def take(self, limit: int, token: int | None = None) -> bool: ...

    def give_back(self, token: int | None = None) -> None: ...

    def take_turn(self, turn: Turn, seconds: float) -> bool:
        """Return True if no worker has taken the turn in the last `seconds`: then this one has it."""


def share_of(limit: int) -> int:
    """How many of `limit` places one token may hold."""
    return (limit + 1) // 2


class OwnPlaces:
    """The waiters of this process alone. The caller of `take` and `give_back` holds the hub's lock."""

    def __init__(self) -> None:
        self._count = 0
        self._turns = dict.fromkeys(Turn, -math.inf)
        self._tokens: Counter[int] = Counter()

    def total(self) -> int:
        """How many wait."""
        return self._count

    def take(self, limit: int, token: int | None = None) -> bool:
        """Take a place; return False if `limit` are taken, or if the token holds its share."""
        if self._count >= limit:
            return False
        if token is not None:
            if self._tokens[token] >= share_of(limit):
                return False
            self._tokens[token] += 1
        self._count += 1
        return True

    def give_back(self, token: int | None = None) -> None:
        """Give one place back."""
        self._count -= 1
        if token is not None:
            self._tokens[token] -= 1
            if not self._tokens[token]:
                del self._tokens[token]

    def take_turn(self, turn: Turn, seconds: float) -> bool:
        """Return True if the last turn was `seconds` ago, or never: this one begins now."""
        now = time.monotonic()
        is_due = now - self._turns[turn] >= seconds
        if is_due:
            self._turns[turn] = now
        return is_due


class SharedPlaces:
    """The waiters of every worker of a server: counts of each worker, in memory that all of them inherit by fork.

    The first MAX_WORKERS counts are each worker's waiters; as many follow for each of TOKENS, the workers side by side.
    """

    def __init__(self) -> None:
        # A nameless file in memory: a lock on a file goes with the process that holds it, however that ends, and no
        # full disk can take the memory away.
        self._file = os.memfd_create("stateservice-waiters")
        os.posix_fallocate(self._file, 0, SHARED_SIZE)
        self._memory = mmap.mmap(self._file, SHARED_SIZE)

    def own(self, worker: int) -> WorkerPlaces:
        """The count of the worker with this number; numbers rise for ever and counts are used in turn."""
        return WorkerPlaces(self._memory, self._file, worker % MAX_WORKERS)


class WorkerPlaces:
    """One worker's count among those of all. The caller of `take` and `give_back` holds the hub's lock."""

    def __init__(self, memory: mmap.mmap, file: int, worker: int) -> None:
        self._memory = memory
        self._counts = memoryview(memory)[:_TURN_OFFSET].cast("q")
        self._file = file
        self._worker = worker

    def total(self) -> int:
        """How many wait, in all workers."""
        return self._sum(0)

    def take(self, limit: int, token: int | None = None) -> bool:
        """Take a place; return False if all workers have taken `limit`, or if the token holds its share."""
        # Two workers must not both take the last place.
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            if self.total() >= limit:
                return False
            if token is not None:
                if self._sum(_group(token)) >= share_of(limit):
                    return False
                self._add(_group(token), 1)
            self._add(0, 1)
            return True
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def give_back(self, token: int | None = None) -> None:
        """Give one of this worker's places back."""
        self._add(0, -1)
        if token is not None:
            self._add(_group(token), -1)

    def take_turn(self, turn: Turn, seconds: float) -> bool:
        """Return True if no worker has taken the turn in the last `seconds`: then this one has it."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            offset = _TURN_OFFSET + turn * _TURN.size
            (taken_at,) = _TURN.unpack_from(self._memory, offset)
            now = time.monotonic()
            if taken_at and now - taken_at < seconds:
                return False
            _TURN.pack_into(self._memory, offset, now)
            return True
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def clear(self) -> None:
        """Set the counts to 0: the worker is gone."""
        for group in range(1 + TOKENS):
            self._counts[group * MAX_WORKERS + self._worker] = 0

    def _sum(self, group: int) -> int:
        return sum(self._counts[group * MAX_WORKERS : (group + 1) * MAX_WORKERS])

    def _add(self, group: int, change: int) -> None:
        self._counts[group * MAX_WORKERS + self._worker] += change


def _group(token: int) -> int:
    return 1 + token % TOKENS
