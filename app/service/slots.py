"""Slots: at most so many machines at work at a time.

A lease is not mutual exclusion: a machine that sleeps past its lease does not know it. What it changes elsewhere
should carry its fencing number, which rises with every claim of the chart, and be refused where a higher one was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from app import store
from app.core import machine as chart_machine
from app.core.chart import Chart
from app.core.errors import StateServiceError
from app.core.log import Author
from app.core.position import Claim, Position, Reason, Release, Step, Tick, Verdict
from app.db import retrying, snapshot, transaction
from app.service.batching import Ticket
from app.service.context import Service, read_position
from app.service.locked import Held, hold, record
from app.service.put import Answer, Put, SlotCount, answer_step, tick, update
from app.waiting.hub import Topic

# Reasons that a wait may change.
_MAY_PASS = frozenset({Reason.FULL, Reason.NOT_CURRENT})
# Why the report of a machine that held a slot a moment ago is refused.
_SLOT_IS_GONE = frozenset({Reason.NO_SLOT, Reason.NOT_CURRENT, Reason.LATE, Reason.UNKNOWN_STATE, Reason.FINAL})


def claim(service: Service, name: str, state: str, machine: str, author: Author, wait: float = 0) -> Answer:
    """Give `machine` a slot of `state`, waiting up to `wait` seconds for one.

    Claiming again returns the same slot and renews its lease. Raises ChartNotFoundError, BadRequestError,
    TooManyWaitersError, DatabaseUnavailableError.
    """
    found = _look(service, name).find_no(state, machine) or _claim(service, name, state, machine, author)
    if wait == 0 or not found.may_pass:
        return found.answer
    deadline = time.monotonic() + wait
    look = partial(_look, service, name)
    with service.hub.waiting(Topic(name, rows=True)) as waiter, service.hub.waiting_for_slot(name, machine):
        view: _View = waiter.share(look, is_fresh=True)
        while True:
            no = view.find_no(state, machine)
            if no is None and view.lets_try(state, machine):
                no = _try(service, name, state, machine, author)
            if no is not None and not no.may_pass:
                return no.answer
            is_woken = waiter.sleep(deadline - time.monotonic())
            view = waiter.share(look, is_fresh=not is_woken)
            if not is_woken:
                # Time is up, or the server was told to stop: the last word is a fresh one.
                return (view.find_no(state, machine) or _claim(service, name, state, machine, author)).answer


def claim_current(service: Service, name: str, machine: str, author: Author) -> Answer:
    """Give `machine` a slot of the current state, whichever that is; else as `claim`."""
    view = _look(service, name)
    return (view.find_no(view.state, machine) or _claim(service, name, None, machine, author)).answer


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The answer to a claim, and whether waiting may turn it into a yes."""

    answer: Answer
    may_pass: bool


class _View:
    """Where a chart stood when it was looked at, without its lock: most claims are refused, and need none for that.

    Shared by all who wait for a slot of it in this process, it lets as many of them try as there were free slots;
    with each row that is then written they look again.
    """

    def __init__(self, service: Service, name: str) -> None:
        self._lock = threading.Lock()
        with snapshot(service.database, is_long=False) as connection:
            self._row = store.charts.get_chart(connection, name)
            self._chart = service.definitions.get(connection, self._row)
            self._position, self._now = read_position(service, connection, self._row, self._chart)
        self.is_due = not self._decide(Tick()).changes_nothing
        rule = self._chart.states[self.state].slots
        self._left = 0 if rule is None else rule.limit(self._position.reported) - len(self._position.slots)

    @property
    def state(self) -> str:
        """The current state."""
        return self._position.state

    def find_no(self, state: str, machine: str) -> _Outcome | None:
        """The no that a claim would get; None where it is worth a try. Raises BadRequestError."""
        step = self._decide(Claim(state, machine))
        if step.verdict is Verdict.ACCEPTED:
            return None
        return _conclude(self._row.name, self._row.seq, self._chart, state, machine, step)

    def lets_try(self, state: str, machine: str) -> bool:
        """True where a claim that is worth a try is not left to others that wait."""
        if self._decide(Claim(state, machine)).reason is Reason.REPLAY:
            return True
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def _decide(self, happening: Claim | Tick) -> Step:
        return chart_machine.step(self._chart, self._position, happening, self._now)


def _look(service: Service, name: str) -> _View:
    """Look at a chart, once for all who want to; its lock is taken only where its clock has something to do."""

    def look(tickets: Sequence[Ticket[None, _View]]) -> None:
        view = _View(service, name)
        if view.is_due:
            tick(service, name)
            view = _View(service, name)
        for ticket in tickets:
            ticket.answer = view

    view: _View = service.turns.request(f"look at {name}", None, look)
    return view


def _try(service: Service, name: str, state: str, machine: str, author: Author) -> _Outcome:
    try:
        return _claim(service, name, state, machine, author)
    except StateServiceError:
        # It was let in front of others, who hear of its turn by no row of the log.
        service.hub.tell_rows(name)
        raise


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who claims a slot of which state (None: of the current state)."""

    state: str | None
    machine: str
    author: Author


def _claim(service: Service, name: str, state: str | None, machine: str, author: Author) -> _Outcome:
    """Claim under the chart's row lock, in one transaction with whoever else claims here meanwhile."""
    asked = _Asked(state, machine, author)
    found: _Outcome = service.turns.request(f"slots of {name}", asked, partial(_claim_all, service, name))
    return found


@retrying
def _claim_all(service: Service, name: str, tickets: Sequence[Ticket[_Asked, _Outcome]]) -> None:
    with transaction(service.database) as connection:
        held = hold(service, connection, name)
        # Which state is current is asked after the clock has done what is due.
        held.decide(Tick())
        for ticket in tickets:
            ticket.settle(partial(_judge, held))
        record(service, connection, held)
    for step in held.steps:
        service.tell(name, step)


def _judge(held: Held, asked: _Asked) -> _Outcome:
    seq, state = held.seq, asked.state or held.position.state
    step = held.decide(Claim(state, asked.machine), asked.author)
    return _conclude(held.row.name, seq, held.chart, state, asked.machine, step)


def _conclude(name: str, seq: int, chart: Chart, state: str, machine: str, step: Step) -> _Outcome:
    """The outcome of a claim; `seq` is the chart's last log row before it."""
    may_pass = (
        step.reason in _MAY_PASS
        and chart.states[state].slots is not None
        and not chart.states[step.position.state].is_final
    )
    return _Outcome(_answer(name, seq, chart, state, machine, step), may_pass)


@retrying
def release(service: Service, name: str, state: str, machine: str, author: Author) -> Answer:
    """Take back the slot that `machine` holds of `state`, without a report; a yes also where it held none.

    Raises ChartNotFoundError, DatabaseUnavailableError.
    """
    with transaction(service.database) as connection:
        held = hold(service, connection, name)
        step = held.decide(Release(state, machine), author)
        record(service, connection, held)
    service.tell(name, step)
    return _answer(name, held.row.seq, held.chart, state, machine, step)


def report_if_held(service: Service, name: str, machine: str, author: Author) -> Answer | None:
    """Report `machine` as done in the current state if it holds a slot there; None where it holds none.

    Raises ChartNotFoundError, DatabaseUnavailableError.
    """
    with snapshot(service.database, is_long=False) as connection:
        row = store.charts.get_chart(connection, name)
        held, _, _ = store.machines.read_slots(connection, row)
    if machine not in held:
        return None
    answer = update(service, name, Put(row.state, machine), author)
    # Between the look and the report it may have lost its slot, by the clock or with the visit.
    return None if answer.reason in _SLOT_IS_GONE else answer


def _answer(name: str, seq: int, chart: Chart, state: str, machine: str, step: Step) -> Answer:
    return replace(answer_step(name, seq, state, step), slots=_count(chart, step.position, machine))


def _count(chart: Chart, position: Position, machine: str) -> SlotCount:
    rule = chart.states[position.state].slots
    held = position.slots.get(machine)
    limit = 0 if rule is None else rule.limit(position.reported)
    return SlotCount(limit, len(position.slots), None if held is None else held.fence)
