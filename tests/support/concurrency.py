"""Threads and processes that meet at one chart."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from app import store
from app.core.errors import DatabaseUnavailableError
from app.core.log import Author
from app.service.context import Service
from app.service.operate import ImportRequest, import_chart
from app.service.put import Put
from tests.service.support import opened_service
from tests.support.requests import update

PATIENCE = 30


def counting_chart(target: int) -> str:
    return f"""\
chart: web
current_state: a
states:
- name: a
  func: increment
  current: {{key: count, value: 0}}
  target: {{name: b, when: {{key: count, value: {target}}}}}
- {{name: b}}
"""


class Hold:
    """Stops one thread right after its statement has locked the chart's row, until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_held, self.released = threading.Event(), threading.Event()
        self._stops = threading.local()
        for name in ("lock_chart", "lock_charts", "lock_free_charts"):
            monkeypatch.setattr(store.charts, name, partial(self._lock_and_wait, getattr(store.charts, name)))

    def _lock_and_wait(self, lock: Callable[..., Any], *arguments: Any) -> Any:
        found = lock(*arguments)
        if found and getattr(self._stops, "here", False):
            self.is_held.set()
            assert self.released.wait(PATIENCE)
        return found

    def stopping(self, act: Callable[[], Any]) -> Callable[[], Any]:
        """Return `act` for a thread that is to be stopped."""

        def run() -> Any:
            self._stops.here = True
            return act()

        return run


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that are all there before the first one begins."""
    with ThreadPoolExecutor(count) as pool:
        ready = threading.Barrier(count)
        for future in [pool.submit(ready.wait, PATIENCE) for _ in range(count)]:
            future.result()
        yield pool


def at_once(count: int, act: Callable[[int], Any]) -> list[Any]:
    """What `act(0)` to `act(count - 1)` return, each begun in a thread of its own at the same moment."""
    start = threading.Barrier(count)

    def run(number: int) -> Any:
        start.wait(PATIENCE)
        return act(number)

    with threads(count) as pool:
        futures: list[Future[Any]] = [pool.submit(run, number) for number in range(count)]
        return [future.result(PATIENCE) for future in futures]


# Other processes

_start: Any = None


def _remember(start: Any) -> None:
    global _start
    _start = start


def in_processes(count: int, act: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `act(*arguments)` returns in each of `count` new processes; it calls `wait_for_the_others` to begin."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(count)
    with ProcessPoolExecutor(count, mp_context=context, initializer=_remember, initargs=(start,)) as pool:
        futures = [pool.submit(act, *arguments) for _ in range(count)]
        return [future.result(PATIENCE * 4) for future in futures]


def wait_for_the_others() -> None:
    _start.wait(PATIENCE * 2)


def put_many(url: str, count: int, thread_count: int) -> Counter[str]:
    """Send `count` PUTs from as many threads; return how many were answered with which reason. Runs in a process."""
    with opened_service(url, pool_size=thread_count) as service, threads(thread_count) as pool:
        wait_for_the_others()
        return Counter(pool.map(lambda _: put_patiently(service), range(count)))


def put_patiently(service: Service) -> str:
    """Send a PUT until it is answered: one that was certainly not applied is sent again, as any client does."""
    while True:
        try:
            return str(update(service, "web", Put("a"), Author()).reason)
        except DatabaseUnavailableError as error:
            if error.outcome != "not_applied":
                raise


def import_at_once(url: str, text: str) -> str:
    """Import a chart at the same moment as the other processes; return what it came to."""
    with opened_service(url) as service:
        service.database.engine.connect().close()
        wait_for_the_others()
        return str(import_chart(service, ImportRequest(text), Author()).outcome)
