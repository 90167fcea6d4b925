"""What machines send and ask, for tests of the service: each call returns its answer on the test's own thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from app.core.log import Author
from app.core.position import Claim, Release
from app.service import ask as asking
from app.service.context import Service
from app.service.machines import Machines
from app.service.put import Answer, ClaimCurrent, Put, apply_one

NOBODY = Author()


@dataclass(frozen=True, slots=True)
class Question:
    """What a machine asks about, as the service's own question has it, but for the chart."""

    state: str | None
    machine: str | None = None
    reached: bool = False
    run: int | None = None
    again: bool = False


@contextmanager
def opened_machines(service: Service) -> Iterator[Machines]:
    """The requests of machines to `service`, on an event loop of their own."""
    machines = Machines(service)
    try:
        yield machines
    finally:
        machines.close()


# One event loop for each service, as in a process that serves; kept, so that no other service gets its place.
_MACHINES: dict[int, Machines] = {}
_LOCK = threading.Lock()


def _call(service: Service, act: Callable[[Machines], Coroutine[Any, Any, Answer]]) -> Answer:
    with _LOCK:
        machines = _MACHINES.setdefault(id(service), Machines(service))
    return machines.call(act(machines))


def update(service: Service, name: str, put: Put, author: Author = NOBODY) -> Answer:
    """Report, in a transaction of its own."""
    return apply_one(service, name, put, author)


def ask(service: Service, name: str, question: Question, wait: float = 0) -> Answer:
    """Ask, and wait."""
    asked = asking.Question(chart=name, **asdict(question))
    return _call(service, lambda machines: machines.ask(asked, wait))


def claim(service: Service, name: str, state: str, machine: str, author: Author = NOBODY, wait: float = 0) -> Answer:
    """Claim a slot, and wait for it."""
    if wait == 0:
        return apply_one(service, name, Claim(state, machine), author)
    return _call(service, lambda machines: machines.claim(name, Claim(state, machine), author, wait))


def claim_current(service: Service, name: str, machine: str, author: Author = NOBODY) -> Answer:
    """Claim a slot of the current state."""
    return apply_one(service, name, ClaimCurrent(machine), author)


def release(service: Service, name: str, state: str, machine: str, author: Author = NOBODY) -> Answer:
    """Give a slot back."""
    return apply_one(service, name, Release(state, machine), author)
