"""Threads that want the same lock share one transaction, instead of queueing for it one transaction each.

The first to come leads: it runs what has gathered, and passes the lead on to one of those that came meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from app.core.errors import DatabaseUnavailableError, StateServiceError

# The most that share a transaction: it bounds how long one of them can take.
MAX_BATCH = 64
Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class Ticket(Generic[Asked, Answered]):
    """One thread's request in a batch, and what came of it."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.answer: Answered | None = None
        self.error: Exception | None = None
        self.leads = False
        # Held until this ticket is answered, or leads; cheaper than an Event.
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def sleep(self) -> None:
        """Return once `wake` was called, by whichever thread."""
        self._asleep.acquire()

    def wake(self) -> None:
        """End the sleep."""
        self._asleep.release()

    def settle(self, decide: Callable[[Asked], Answered]) -> None:
        """Note what `decide` makes of what was asked: its answer, or why it refuses."""
        self.answer, self.error = None, None
        try:
            self.answer = decide(self.asked)
        except StateServiceError as error:
            self.error = error

    def take(self) -> Answered:
        """Return the answer, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.answer is not None  # a ticket that is done has one or the other
        return self.answer


Run = Callable[[list[Ticket[Asked, Answered]]], None]


class Turns(Generic[Asked, Answered]):
    """Gathers requests by key."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Ticket[Asked, Answered]]] = {}
        self._lock = threading.Lock()

    def request(self, key: str, asked: Asked, run: Run[Asked, Answered]) -> Answered:
        """Have `asked` answered by `run` with what else is asked under `key` now; raises its own error only.

        `run` answers tickets in the order in which they came, all or none.
        """
        ticket: Ticket[Asked, Answered] = Ticket(asked)
        if not self._enter(key, ticket):
            ticket.sleep()
            if not ticket.leads:
                return ticket.take()
        batch = self._gather(key, ticket)
        try:
            _answer(batch, run)
        except DatabaseUnavailableError as error:
            batch += self._fail_waiting(key, error)
        except BaseException:
            # The thread is made to end, perhaps between decision and commit: an answer may be there, and no row.
            _fail(batch, DatabaseUnavailableError("the request was interrupted", "unknown"))
            raise
        finally:
            self._pass_on(key)
            for other in batch[1:]:
                other.wake()
        return ticket.take()

    def is_asked(self, key: str) -> bool:
        """True while something is asked under `key`."""
        return key in self._waiting

    def _enter(self, key: str, ticket: Ticket[Asked, Answered]) -> bool:
        """Queue up; True where there is no leader, and this one is it."""
        with self._lock:
            waiting = self._waiting.get(key)
            if waiting is None:
                self._waiting[key] = deque()
                return True
            waiting.append(ticket)
            return False

    def _gather(self, key: str, leader: Ticket[Asked, Answered]) -> list[Ticket[Asked, Answered]]:
        with self._lock:
            waiting = self._waiting[key]
            return [leader, *(waiting.popleft() for _ in range(min(len(waiting), MAX_BATCH - 1)))]

    def _fail_waiting(self, key: str, error: DatabaseUnavailableError) -> list[Ticket[Asked, Answered]]:
        """Answer those that came meanwhile, too: they waited as long, and each batch of them would wait again."""
        with self._lock:
            waiting = list(self._waiting[key])
            self._waiting[key].clear()
        _fail(waiting, DatabaseUnavailableError(str(error)))
        return waiting

    def _pass_on(self, key: str) -> None:
        with self._lock:
            waiting = self._waiting[key]
            if not waiting:
                del self._waiting[key]
                return
            successor = waiting.popleft()
            successor.leads = True
        successor.wake()


def _answer(batch: list[Ticket[Asked, Answered]], run: Run[Asked, Answered]) -> None:
    """Run the batch. Raises DatabaseUnavailableError once those whom that concerns have it."""
    try:
        run(batch)
    except DatabaseUnavailableError as error:
        _fail(batch, error)
        raise
    except Exception as error:
        if len(batch) == 1:
            _fail(batch, error)
            return
        _answer_each(batch, run)


def _answer_each(batch: list[Ticket[Asked, Answered]], run: Run[Asked, Answered]) -> None:
    # A fault that one of them provokes must not be the others': each once more, alone.
    for number, ticket in enumerate(batch, 1):
        try:
            _answer([ticket], run)
        except DatabaseUnavailableError as error:
            # Those before are committed and keep their answers; those after were not begun.
            _fail(batch[number:], DatabaseUnavailableError(str(error)))
            raise


def _fail(batch: list[Ticket[Asked, Answered]], error: Exception) -> None:
    for ticket in batch:
        ticket.answer, ticket.error = None, error
