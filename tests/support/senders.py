"""Many client processes that send at the same time. Standard library only: a new process starts in no time."""

from __future__ import annotations

import http.client
import multiprocessing
import queue
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

SECONDS = 120


@dataclass(frozen=True, slots=True)
class Sent:
    """A PUT and its answer; `status` is 0 where the connection broke."""

    path: str
    status: int
    body: str


@dataclass(frozen=True, slots=True)
class Put:
    """A PUT to send."""

    path: str
    headers: dict[str, str] = field(default_factory=dict)


class Clients:
    """Client processes that walk lists of PUTs, each with several threads.

    The threads that a barrier binds send each entry of their list at the same moment: those of one process, or
    (`is_one_volley`) those of all processes, which then walk the same list.
    """

    def __init__(self, port: int, lists: list[list[Put]], threads: int, *, is_one_volley: bool = False) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._out = self._context.Queue()
        # Kept, or it would be gone before the processes have opened it.
        self._shared = self._context.Barrier(threads * len(lists)) if is_one_volley else None
        self._processes = [
            self._context.Process(target=_walk, args=(port, puts, threads, self._shared, self._out)) for puts in lists
        ]

    def run(self) -> list[Sent]:
        """Send everything and return every answer."""
        for process in self._processes:
            process.start()
        answers = [sent for _ in self._processes for sent in self._receive()]
        for process in self._processes:
            process.join(SECONDS)
        return answers

    def _receive(self) -> list[Sent]:
        while all(process.exitcode in (None, 0) for process in self._processes):
            with suppress(queue.Empty):
                sent: list[Sent] = self._out.get(timeout=1)
                return sent
        raise AssertionError("a client process failed")


def _walk(port: int, puts: list[Put], threads: int, shared: Any, out: Any) -> None:
    barrier = threading.Barrier(threads) if shared is None else shared
    sent: list[Sent] = []
    walkers = [threading.Thread(target=_send_all, args=(port, puts, barrier, sent)) for _ in range(threads)]
    for walker in walkers:
        walker.start()
    for walker in walkers:
        walker.join()
    out.put(sent)


def _send_all(port: int, puts: list[Put], barrier: Any, sent: list[Sent]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    for put in puts:
        barrier.wait(SECONDS)
        try:
            connection.request("PUT", put.path, headers=put.headers)
            response = connection.getresponse()
            sent.append(Sent(put.path, response.status, response.read().decode()))
        except (OSError, http.client.HTTPException):
            connection.close()
            sent.append(Sent(put.path, 0, ""))
    connection.close()


def deal(puts: list[Put], processes: int) -> list[list[Put]]:
    """Deal PUTs to processes, in turn."""
    return [puts[number::processes] for number in range(processes)]
