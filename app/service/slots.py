"""Slots: at most so many machines at work at a time.

A lease is not mutual exclusion: a machine that sleeps past its lease does not know it. What it changes elsewhere
should carry its fencing number, which rises with every claim of the chart, and be refused where a higher one was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

from app import store
from app.core import machine as chart_machine
from app.core.chart import Chart
from app.core.errors import DatabaseUnavailableError
from app.core.position import Claim, Position, Reason, Release, Step
from app.db import asking, retrying, snapshot, transaction
from app.service.answers import Answer, SlotCount, answer_step
from app.service.context import Service, read_position
from app.service.update import Put, update
from app.waiting import Topic

# Reasons that a wait may change.
_MAY_PASS = frozenset({Reason.FULL, Reason.NOT_CURRENT})


def claim(
    service: Service, name: str, state: str | None, machine: str, author: store.Author, wait: float = 0
) -> Answer:
    """Give `machine` a slot of `state` (None: of the current state), waiting up to `wait` seconds for one.

    Claiming again returns the same slot and renews its lease. Raises ChartNotFoundError, BadRequestError,
    TooManyWaitersError, DatabaseUnavailableError.
    """
    answer = _claim(service, name, state, machine, author)
    if wait == 0 or answer.is_yes or not _may_pass(service, answer):
        return answer
    deadline = time.monotonic() + wait
    with service.hub.waiting(Topic(name, rows=True)) as waiter, _noted(service, name, machine, wait):
        answer = _claim(service, name, state, machine, author)
        while not answer.is_yes and _may_pass(service, answer):
            if not waiter.sleep(deadline - time.monotonic()):
                return _claim(service, name, state, machine, author)
            # Those that wait in this process try for the slots that are free, and no more of them than there are.
            if waiter.share(lambda: _Tickets(service, name)).take():
                answer = _claim(service, name, state, machine, author)
        return answer


def _may_pass(service: Service, answer: Answer) -> bool:
    if answer.reason not in _MAY_PASS:
        return False
    with asking(service.database) as connection:
        row = store.get_chart(connection, answer.chart)
        return not service.definitions.get(connection, row).states[row.state].is_final


class _Tickets:
    """As many tries as there were free slots when a change was noticed; any number where the state has changed."""

    def __init__(self, service: Service, name: str) -> None:
        self._lock = threading.Lock()
        with snapshot(service.database) as connection:
            row = store.get_chart(connection, name)
            chart = service.definitions.get(connection, row)
            position, _ = read_position(service, connection, row, chart)
        rule = chart.states[row.state].slots
        self._left = None if rule is None else rule.limit(position.reported) - len(position.slots)

    def take(self) -> bool:
        """True where one more may try."""
        with self._lock:
            if self._left is None:
                return True
            self._left -= 1
            return self._left >= 0


@contextmanager
def _noted(service: Service, name: str, machine: str, seconds: float) -> Iterator[None]:
    """Let people see that `machine` waits; what they see must never keep it from its slot."""
    try:
        with transaction(service.database) as connection:
            row = store.get_chart(connection, name)
            now = service.now(store.read_now(connection))
            store.add_slot_waiter(connection, row.id, machine, now, now + timedelta(seconds=seconds))
    except DatabaseUnavailableError:
        yield
        return
    try:
        yield
    finally:
        try:
            with transaction(service.database) as connection:
                store.remove_slot_waiter(connection, row.id, machine)
        except DatabaseUnavailableError:
            # Its row ends by itself, at `until`.
            pass


@retrying
def _claim(service: Service, name: str, state: str | None, machine: str, author: store.Author) -> Answer:
    with transaction(service.database) as connection:
        row = store.lock_chart(connection, name)
        chart = service.definitions.get(connection, row)
        position, now = read_position(service, connection, row, chart)
        wanted = state if state is not None else row.state
        step = chart_machine.step(chart, position, Claim(wanted, machine), now)
        after = store.record(connection, row, position, step, now, author, service.database.log_key)
    service.tell(name, step)
    return _answer(row, after, chart, wanted, machine, step)


@retrying
def release(service: Service, name: str, state: str, machine: str, author: store.Author) -> Answer:
    """Take back the slot that `machine` holds of `state`, without a report; a yes also where it held none.

    Raises ChartNotFoundError, DatabaseUnavailableError.
    """
    with transaction(service.database) as connection:
        row = store.lock_chart(connection, name)
        chart = service.definitions.get(connection, row)
        position, now = read_position(service, connection, row, chart)
        step = chart_machine.step(chart, position, Release(state, machine), now)
        after = store.record(connection, row, position, step, now, author, service.database.log_key)
    service.tell(name, step)
    return _answer(row, after, chart, state, machine, step)


def report_if_held(service: Service, name: str, machine: str, author: store.Author) -> Answer | None:
    """Report `machine` as done in the current state if it holds a slot there; None where it holds none.

    Raises ChartNotFoundError, DatabaseUnavailableError.
    """
    with snapshot(service.database) as connection:
        row = store.get_chart(connection, name)
        held, _, _ = store.read_slots(connection, row)
    if machine not in held:
        return None
    return update(service, name, Put(row.state, machine), author)


def _answer(
    before: store.ChartRow, after: store.ChartRow, chart: Chart, state: str, machine: str, step: Step
) -> Answer:
    return replace(answer_step(before, after, state, step), slots=_count(chart, step.position, machine))


def _count(chart: Chart, position: Position, machine: str) -> SlotCount:
    rule = chart.states[position.state].slots
    held = position.slots.get(machine)
    limit = 0 if rule is None else rule.limit(position.reported)
    return SlotCount(limit, len(position.slots), None if held is None else held.fence)
