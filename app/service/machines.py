"""What a machine can ask and say, as coroutines: its request shares a batch with others, and may wait for a yes.

While the database works on one batch, the next one gathers, so requests share a turn instead of queueing for it one by
one. A batch runs in a thread; everything else here runs on the event loop of the process, so the queues need no lock.
A waiting request is a coroutine that sleeps in the hub: it holds no thread, no transaction and no connection.
docs/concurrency.md tells the whole story.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from app.core.errors import DatabaseUnavailableError, StateServiceError
from app.core.log import Author
from app.core.position import Claim, Release, Tick
from app.service.ask import Found, Question, answer_all
from app.service.context import NOBODY, Service, find_default_chart
from app.service.put import Answer, Applied, ChartLockedError, Join, Put, Sent, apply
from app.waiting.hub import Topic

# The most requests in one batch: it bounds how long one transaction can take.
MAX_BATCH = 128

T = TypeVar("T")
Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
# One answer, or the error that this request alone has, for each request of the batch, in its order. The last argument
# adds to the batch what has gathered since it began.
Run = Callable[[str, list[Asked], Join], Sequence[Answered | StateServiceError]]


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

    `run` gets the key, a batch, and a function that adds to the batch what has gathered meanwhile. It answers each
    request alone, or raises; then none of the batch was done. A request is dropped if its caller is gone before the
    request is in a batch.
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
        batch = self._take(key, self._limit)
        if not batch:
            del self._queues[key]
            return
        loop = asyncio.get_running_loop()
        asked = [item for item, _ in batch]

        def join() -> None:
            # On the thread of the batch: the queue's ends are safe to use from two threads.
            for item, answer in self._take(key, self._limit - len(batch)):
                batch.append((item, answer))
                asked.append(item)

        try:
            work = loop.run_in_executor(self._pick_pool(key), self._work, key, asked, join)
        except DatabaseUnavailableError as error:
            self._settle(batch, [error] * len(batch))
            loop.call_soon(self._start, key)
            return
        work.add_done_callback(lambda done: self._finish(key, batch, done))

    def _take(self, key: str, limit: int) -> list[tuple[Asked, asyncio.Future[Answered]]]:
        queue = self._queues[key]
        batch: list[tuple[Asked, asyncio.Future[Answered]]] = []
        while queue and len(batch) < limit:
            asked, answer = queue.popleft()
            if not answer.done():
                batch.append((asked, answer))
        return batch

    def _work(self, key: str, batch: list[Asked], join: Join = lambda: None) -> Sequence[Answered | Exception]:
        """Run the batch on a thread of the pool. Return an answer or an error for each request, in its place."""
        try:
            return self._run(key, batch, join)
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


# The requests of machines

# Seconds after a chart was found locked, by another worker most likely, during which what is sent to it does not try to
# share a transaction with what is sent to other charts.
CONTENDED_SECONDS = 0.25
# Questions cost little each, and thousands of waiters ask at once when a chart moves.
MAX_QUESTIONS = 1024
# Threads for charts that other workers have locked: each may wait there as long as a lock may be waited for.
LOCKED_CHART_THREADS = 4
READING_THREADS = 2
# How often a waiting request looks again while the database is away, in seconds.
AWAY_SECONDS = 1.0
# A waiting request looks again this many seconds after a window has opened, so that it does not come too early.
OPENING_MARGIN = 0.01
# Seconds for which a question waits for the chart's clock to be written: another transaction may hold the chart's row.
TICK_SECONDS = 0.25
# The key of the batches for any chart; no chart has this name.
ANY_CHART = ""


class Machines:
    """The requests of machines on one event loop."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._shared = ThreadPool(1, "writing")
        # SQLite has one lock for all charts, so that one thread does all writing.
        self._apart = self._shared if service.database.is_sqlite else ThreadPool(LOCKED_CHART_THREADS, "locked")
        self._reading = ThreadPool(READING_THREADS, "reading")
        self._changes: Batcher[Sent, Applied] = Batcher(self._apply, self._pick_pool)
        self._questions: Batcher[Question, Found] = Batcher(self._answer, lambda key: self._reading, MAX_QUESTIONS)
        self._contended: dict[str, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()
        self._has_own_loop = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let `call` use the event loop that the worker runs."""
        self._loop = loop

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the event loop and return its result, for a caller on another thread.

        A server that runs no event loop of ours gets one on a thread of its own the first time.
        """
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._has_own_loop = True
                threading.Thread(target=_run_loop, args=[self._loop], name="machines", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def put(self, chart: str, put: Put, author: Author) -> Answer:
        """Apply a report under the chart's row lock, in one transaction with what others send meanwhile.

        Raises ChartNotFoundError, BadRequestError, KeyReusedError, ConflictError, DatabaseUnavailableError.
        """
        return (await self._send(Sent(chart, put, author))).answer

    async def claim(
        self, chart: str, claim: Claim, author: Author, wait: float = 0, token: int | None = None
    ) -> Answer:
        """Give a machine a slot, waiting up to `wait` seconds for one; claiming again renews the lease.

        Raises ChartNotFoundError, BadRequestError, TooManyWaitersError, DatabaseUnavailableError.
        """

        async def attempt() -> tuple[Answer, bool]:
            outcome = await self._send(Sent(chart, claim, author))
            return outcome.answer, outcome.answer.is_yes or not outcome.may_change

        topic = Topic(chart, rows=True)
        return await self.wait_until(topic, wait, attempt, claim.machine, token=token, opens_in=_seconds_to_opening)

    async def release(self, chart: str, release: Release, author: Author) -> Answer:
        """Take a slot back without a report; the answer is yes also if the machine held none.

        Raises ChartNotFoundError, DatabaseUnavailableError.
        """
        return (await self._send(Sent(chart, release, author))).answer

    async def ask(self, question: Question, wait: float = 0, token: int | None = None) -> Answer:
        """Answer a question, holding it for up to `wait` seconds until the answer is yes or can no longer become yes.

        `token` is the number of the token that asks.

        Raises ChartNotFoundError, TooManyWaitersError, DatabaseUnavailableError.
        """

        async def attempt() -> tuple[Answer, bool]:
            found = await self._questions.ask(ANY_CHART, question)
            if found.is_due and await self._tick(question.chart):
                found = await self._questions.ask(ANY_CHART, question)
            return found.answer, found.is_settled

        topic = Topic(question.chart)
        return await self.wait_until(topic, wait, attempt, token=token, opens_in=_seconds_to_opening)

    async def _tick(self, chart: str) -> bool:
        """Have what is due written; return False if that takes too long: the question has its answer already."""
        try:
            async with asyncio.timeout(TICK_SECONDS):
                await self._changes.ask(ANY_CHART, Sent(chart, Tick(), NOBODY))
        except (TimeoutError, ChartLockedError, DatabaseUnavailableError):
            return False
        return True

    async def read(self, read: Callable[[], T]) -> T:
        """Run `read`, which asks the database something short, on a reading thread."""
        return await self._reading.run(read)

    async def find_default_chart(self) -> str:
        """Return the name of the default chart. Raises NoDefaultChartError."""
        if self.service.default_chart is not None:
            return self.service.default_chart
        return await self.read(lambda: find_default_chart(self.service))

    async def wait_for_rows(
        self, chart: str, has_rows: Callable[[], bool], seconds: float, token: int | None = None
    ) -> None:
        """Return once `has_rows`, which asks the database, is true of the chart's log, or when `seconds` are over.

        Raises ChartNotFoundError, TooManyWaitersError, DatabaseUnavailableError.
        """

        async def attempt() -> tuple[None, bool]:
            return None, await self.read(has_rows)

        await self.wait_until(Topic(chart, rows=True), seconds, attempt, token=token)

    def close(self) -> None:
        """End the threads after the work in hand."""
        for pool in (self._shared, self._apart, self._reading):
            pool.shutdown(wait=False)
        if self._has_own_loop and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)

    async def wait_until(
        self,
        topic: Topic,
        seconds: float,
        attempt: Callable[[], Awaitable[tuple[T, bool]]],
        machine: str | None = None,
        *,
        token: int | None = None,
        opens_in: Callable[[T], float | None] = lambda answer: None,
    ) -> T:
        """Repeat `attempt`, which returns an answer and whether it is final, whenever the chart may have changed.

        Return the last answer: a final one, or the one when `seconds` are over or the server was told to stop.
        `machine` is shown among those that wait for a slot; `token` is the number of the token that waits. `opens_in`
        says in how many seconds the clock alone may change an answer. Raises TooManyWaitersError.
        """
        answer, is_settled = await attempt()
        if seconds == 0 or is_settled:
            return answer
        deadline = time.monotonic() + seconds
        with self.service.hub.waiting(topic, machine, token) as waiter:
            while (left := deadline - time.monotonic()) > 0 and not self.service.hub.is_closed:
                try:
                    # The waiter has its place before this attempt reads: it misses no change after it.
                    answer, is_settled = await attempt()
                except DatabaseUnavailableError:
                    # The database may be back before the time is up.
                    left = min(left, AWAY_SECONDS)
                if is_settled:
                    return answer
                opening = opens_in(answer)
                await waiter.sleep(left if opening is None else min(left, opening + OPENING_MARGIN))
            if not self.service.hub.is_closed:
                # Time is up: the last answer is a fresh one.
                answer, _ = await attempt()
            return answer

    async def _send(self, sent: Sent) -> Applied:
        """Have `sent` applied with what else was sent; alone with its chart if another worker has that locked."""
        if self.service.database.is_sqlite:
            return await self._changes.ask(ANY_CHART, sent)
        if not self._changes.is_busy(sent.chart) and not self._is_contended(sent.chart):
            try:
                return await self._changes.ask(ANY_CHART, sent)
            except ChartLockedError:
                self._contended[sent.chart] = time.monotonic()
        return await self._changes.ask(sent.chart, sent)

    def _is_contended(self, chart: str) -> bool:
        since = self._contended.get(chart)
        if since is None:
            return False
        if time.monotonic() - since < CONTENDED_SECONDS:
            return True
        del self._contended[chart]
        return False

    def _pick_pool(self, key: str) -> ThreadPool:
        return self._shared if key == ANY_CHART else self._apart

    def _apply(self, key: str, batch: Sequence[Sent], join: Join) -> Sequence[Applied | StateServiceError]:
        skips = key == ANY_CHART and not self.service.database.is_sqlite
        return apply(self.service, batch, skip_locked=skips, join=join)

    def _answer(self, key: str, batch: Sequence[Question], join: Join) -> Sequence[Found | StateServiceError]:
        return answer_all(self.service, batch)


def _seconds_to_opening(answer: Answer) -> float | None:
    return None if answer.closed is None else answer.closed.seconds


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Run an event loop until it is stopped."""
    loop.run_forever()
    loop.close()
