"""Requests that share one turn at the database, instead of queueing for it one by one.

While the database works on one batch, the next one gathers. A batch runs in a thread; everything else here runs on the
event loop, so the queues need no lock. docs/concurrency.md tells the whole story.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from app.core.errors import DatabaseUnavailableError, StateServiceError

# The most requests in one batch: it bounds how long one transaction can take.
MAX_BATCH = 128

T = TypeVar("T")
Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
# One answer, or the error that this request alone has, for each request of the batch, in its order.
Run = Callable[[str, list[Asked]], Sequence[Answered | StateServiceError]]


class ThreadPool(ThreadPoolExecutor):
    """A pool that works on with the threads it has when the system grants no further one."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` on a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self, work)

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                # The item that was queued would wait for ever.
                raise DatabaseUnavailableError("the system grants no thread to work on this request") from None


class Batcher(Generic[Asked, Answered]):
    """Gathers requests by key; at most one batch of a key is worked on at a time.

    `run` gets the key and a batch. It answers each request alone, or raises; then none of the batch was done.
    Requests whose caller is gone before their batch begins are dropped.
    """

    def __init__(
        self, run: Run[Asked, Answered], pick_pool: Callable[[str], ThreadPool], limit: int = MAX_BATCH
    ) -> None:
        self._run = run
        self._pick_pool = pick_pool
        self._limit = limit
        self._queues: dict[str, deque[tuple[Asked, asyncio.Future[Answered]]]] = {}

    def is_busy(self, key: str) -> bool:
        """True while a batch of `key` is worked on."""
        return key in self._queues

    async def ask(self, key: str, asked: Asked) -> Answered:
        """Have `asked` answered in the next batch of `key`. Raises the error of this request only."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answered] = loop.create_future()
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
            # A moment later, so that requests that arrived together share the batch.
            loop.call_soon(self._start, key)
        queue.append((asked, answer))
        return await answer

    def _start(self, key: str) -> None:
        batch = self._take(key)
        if not batch:
            del self._queues[key]
            return
        loop = asyncio.get_running_loop()
        try:
            work = loop.run_in_executor(self._pick_pool(key), self._work, key, [asked for asked, _ in batch])
        except DatabaseUnavailableError as error:
            self._settle(batch, [error] * len(batch))
            loop.call_soon(self._start, key)
            return
        work.add_done_callback(lambda done: self._finish(key, batch, done))

    def _take(self, key: str) -> list[tuple[Asked, asyncio.Future[Answered]]]:
        queue = self._queues[key]
        batch: list[tuple[Asked, asyncio.Future[Answered]]] = []
        while queue and len(batch) < self._limit:
            asked, answer = queue.popleft()
            if not answer.done():
                batch.append((asked, answer))
        return batch

    def _work(self, key: str, batch: list[Asked]) -> Sequence[Answered | Exception]:
        """Run the batch on a thread of the pool. Return an answer or an error for each request."""
        try:
            return self._run(key, batch)
        except DatabaseUnavailableError as error:
            return [error] * len(batch)
        except Exception as error:
            if len(batch) == 1:
                return [error]
        # One request provoked this error; the others must not suffer for it. Each runs once more, alone.
        answers: list[Answered | Exception] = []
        for asked in batch:
            answers += self._work(key, [asked])
            if isinstance(answers[-1], DatabaseUnavailableError):
                # The requests before it are committed; those after it were not begun, and would only wait as long.
                answers += [_not_applied(answers[-1])] * (len(batch) - len(answers))
                break
        return answers

    def _finish(
        self,
        key: str,
        batch: list[tuple[Asked, asyncio.Future[Answered]]],
        done: asyncio.Future[Sequence[Answered | Exception]],
    ) -> None:
        error = done.exception()
        answers: Sequence[Any] = [error] * len(batch) if error is not None else done.result()
        self._settle(batch, answers)
        if answers and isinstance(answers[-1], DatabaseUnavailableError):
            # What gathered meanwhile has waited as long, and each further batch would wait again.
            waiting = self._queues[key]
            self._settle(list(waiting), [_not_applied(answers[-1])] * len(waiting))
            waiting.clear()
        self._start(key)

    def _settle(
        self, batch: Sequence[tuple[Asked, asyncio.Future[Answered]]], answers: Sequence[Answered | BaseException]
    ) -> None:
        for (_, waiting), answer in zip(batch, answers, strict=True):
            if waiting.done():
                continue
            if isinstance(answer, StopIteration):
                # A future refuses this one, and its caller would wait for ever.
                waiting.set_exception(RuntimeError(f"{answer!r} escaped from a batch"))
            elif isinstance(answer, BaseException):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)


def _not_applied(error: Exception) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(str(error))
