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
from functools import partial

from app import store
from app.core import machine as chart_machine
from app.core.chart import Chart
from app.core.errors import DatabaseUnavailableError, StateServiceError
from app.core.position import Claim, Position, Reason, Release, Step, Tick
from app.db import retrying, snapshot, transaction
from app.service.answers import Answer, SlotCount, answer_step
from app.service.context import Service, read_position
from app.service.update import Put, update
from app.waiting import Topic

# Reasons that a wait may change.
_MAY_PASS = frozenset({Reason.FULL, Reason.NOT_CURRENT})
# Why the report of a machine that held a slot a moment ago is refused.
_SLOT_IS_GONE = frozenset({Reason.NO_SLOT, Reason.NOT_CURRENT, Reason.LATE, Reason.UNKNOWN_STATE, Reason.FINAL})


def claim(service: Service, name: str, state: str, machine: str, author: store.Author, wait: float = 0) -> Answer:
    """Give `machine` a slot of `state`, waiting up to `wait` seconds for one.

    Claiming again returns the same slot and renews its lease. Raises ChartNotFoundError, BadRequestError,
    TooManyWaitersError, DatabaseUnavailableError.
    """
    answer, may_pass = _claim(service, name, state, machine, author)
    if wait == 0 or not may_pass:
        return answer
    deadline = time.monotonic() + wait
    with service.hub.waiting(Topic(name, rows=True)) as waiter, _noted(service, name, machine, wait):
        view: _View = waiter.share(partial(_View, service, name), is_fresh=True)
        while True:
            if view.lets_try(Claim(state, machine)):
                answer, may_pass = _try(service, name, state, machine, author)
                if not may_pass:
                    return answer
            if not waiter.sleep(deadline - time.monotonic()):
                # Time is up, or the server was told to stop: the last word is a fresh one.
                return _claim(service, name, state, machine, author)[0]
            view = waiter.share(partial(_View, service, name))


def claim_current(service: Service, name: str, machine: str, author: store.Author) -> Answer:
    """Give `machine` a slot of the current state, whichever that is; else as `claim`."""
    return _claim(service, name, None, machine, author)[0]


class _View:
    """Where the chart stood when a change was noticed, shared by all who wait for a slot of it in this process.

    It lets as many of them try as there were free slots; with each row that is then written they look again.
    """

    def __init__(self, service: Service, name: str) -> None:
        self._lock = threading.Lock()
        with snapshot(service.database) as connection:
            row = store.get_chart(connection, name)
            self._chart = service.definitions.get(connection, row)
            position, self._now = read_position(service, connection, row, self._chart)
        self._position = chart_machine.step(self._chart, position, Tick(), self._now).position
        rule = self._chart.states[self._position.state].slots
        self._left = 0 if rule is None else rule.limit(self._position.reported) - len(self._position.slots)

    def lets_try(self, wanted: Claim) -> bool:
        """False where `wanted` would be in vain, or others are at it; True also where the answer is a no for good."""
        step = chart_machine.step(self._chart, self._position, wanted, self._now)
        if _may_pass(self._chart, wanted.state, step):
            return False
        return step.reason is not Reason.UPDATED or self._take()

    def _take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0


def _try(service: Service, name: str, state: str, machine: str, author: store.Author) -> tuple[Answer, bool]:
    try:
        return _claim(service, name, state, machine, author)
    except StateServiceError:
        # It was let in front of others, who hear of its turn by no row of the log.
        service.hub.tell_rows(name)
        raise


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
def _claim(service: Service, name: str, state: str | None, machine: str, author: store.Author) -> tuple[Answer, bool]:
    """Claim in one transaction. The second value: whether waiting may turn a no into a yes."""
    with transaction(service.database) as connection:
        row = store.lock_chart(connection, name)
        chart = service.definitions.get(connection, row)
        position, now = read_position(service, connection, row, chart)
        # The current state is that after the clock has done what is due.
        wanted = state or chart_machine.step(chart, position, Tick(), now).position.state
        step = chart_machine.step(chart, position, Claim(wanted, machine), now)
        store.record(connection, row, position, step, now, author, service.database.log_key)
    service.tell(name, step)
    return _answer(row, chart, wanted, machine, step), _may_pass(chart, wanted, step)


def _may_pass(chart: Chart, state: str, step: Step) -> bool:
    if step.reason not in _MAY_PASS:
        return False
    return chart.states[state].slots is not None and not chart.states[step.position.state].is_final


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
        store.record(connection, row, position, step, now, author, service.database.log_key)
    service.tell(name, step)
    return _answer(row, chart, state, machine, step)


def report_if_held(service: Service, name: str, machine: str, author: store.Author) -> Answer | None:
    """Report `machine` as done in the current state if it holds a slot there; None where it holds none.

    Raises ChartNotFoundError, DatabaseUnavailableError.
    """
    with snapshot(service.database) as connection:
        row = store.get_chart(connection, name)
        held, _, _ = store.read_slots(connection, row)
    if machine not in held:
        return None
    answer = update(service, name, Put(row.state, machine), author)
    # Between the look and the report it may have lost its slot, by the clock or with the visit.
    return None if answer.reason in _SLOT_IS_GONE else answer


def _answer(row: store.ChartRow, chart: Chart, state: str, machine: str, step: Step) -> Answer:
    return replace(answer_step(row.name, row.seq, state, step), slots=_count(chart, step.position, machine))


def _count(chart: Chart, position: Position, machine: str) -> SlotCount:
    rule = chart.states[position.state].slots
    held = position.slots.get(machine)
    limit = 0 if rule is None else rule.limit(position.reported)
    return SlotCount(limit, len(position.slots), None if held is None else held.fence)
