"""The waiting room of a chart, and the reading that its waiters share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.core.errors import StateServiceError


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
