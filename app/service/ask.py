"""A machine asks "may I?" and "was it?"."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from app import store
from app.core.chart import Chart
from app.core.errors import DatabaseUnavailableError
from app.core.position import Reason
from app.db import asking
from app.service.batching import Ticket
from app.service.context import Service
from app.service.put import Answer, tick
from app.waiting.hub import Topic


@dataclass(frozen=True, slots=True)
class Question:
    """What a machine asks about; `reached` asks whether the state was entered in this run."""

    state: str
    machine: str | None = None
    reached: bool = False


def ask(service: Service, name: str, question: Question, wait: float = 0) -> Answer:
    """Answer a question, holding it for up to `wait` seconds until the answer is yes or can no longer be.

    Questions about one chart that come while it is being read share the next reading.
    Raises ChartNotFoundError, TooManyWaitersError, DatabaseUnavailableError.
    """
    view: View = service.looks.request(name, None, partial(_look_for_all, service, name))
    answer = view.answer(question)
    if wait == 0 or answer.is_yes or view.is_settled(question):
        return answer
    return _wait(service, name, question, wait)


def _wait(service: Service, name: str, question: Question, seconds: float) -> Answer:
    deadline = time.monotonic() + seconds
    with service.hub.waiting(Topic(name)) as waiter:
        view: View = waiter.share(lambda: look(service, name), is_fresh=True)
        while not view.answer(question).is_yes and not view.is_settled(question):
            is_woken = waiter.sleep(deadline - time.monotonic())
            if service.hub.is_closed:
                break
            # When time is up, the last word is a fresh one.
            view = waiter.share(lambda: look(service, name), is_fresh=not is_woken)
            if not is_woken:
                break
        return view.answer(question)


def _look_for_all(service: Service, name: str, tickets: Sequence[Ticket[None, View]]) -> None:
    # What is read now is no older than any of these questions: all had been asked.
    view = look(service, name)
    for ticket in tickets:
        ticket.answer = view


def look(service: Service, name: str) -> View:
    """Read where a chart stands, in one SELECT; its lock is taken only where its clock has something to do."""
    row, chart, is_due = _read(service, name)
    if is_due:
        tick(service, name)
        row, chart, _ = _read(service, name)
    return View(service, row, chart)


def _read(service: Service, name: str) -> tuple[store.charts.ChartRow, Chart, bool]:
    with asking(service.database) as connection:
        row, read = store.charts.get_chart_and_now(connection, name)
        chart = service.definitions.get(connection, row)
    return row, chart, row.due_at is not None and row.due_at <= service.now(read)


class View:
    """Where a chart stood when it was looked at; answers any number of questions."""

    def __init__(self, service: Service, row: store.charts.ChartRow, chart: Chart) -> None:
        self._service = service
        self._row = row
        self._chart = chart
        self._entered: dict[str, bool | DatabaseUnavailableError] = {row.state: True}
        self._lock = threading.Lock()

    def answer(self, question: Question) -> Answer:
        """Yes or no to `question`."""
        row, reason = self._row, self._find_reason(question)
        is_yes = reason in (Reason.CURRENT, Reason.REACHED)
        return Answer(row.name, row.run, row.visit, row.seq, question.state, row.state, is_yes, reason)

    def is_settled(self, question: Question) -> bool:
        """True where a no will not turn into a yes by waiting."""
        if question.state not in self._chart.states or self._chart.states[self._row.state].is_final:
            return True
        return not question.reached and self._find_reason(question) in (Reason.PAUSED, Reason.NOT_ON_ROSTER)

    def _find_reason(self, question: Question) -> Reason:
        if question.state not in self._chart.states:
            return Reason.UNKNOWN_STATE
        if question.reached:
            return Reason.REACHED if self._was_entered(question.state) else Reason.NOT_REACHED
        if self._row.paused_at is not None:
            return Reason.PAUSED
        if question.machine is not None and not self._chart.is_on_roster(question.machine):
            return Reason.NOT_ON_ROSTER
        return Reason.CURRENT if question.state == self._row.state else Reason.NOT_CURRENT

    def _was_entered(self, state: str) -> bool:
        # Once for all who share this view, be it in vain: each would wait as long as the first.
        with self._lock:
            if state not in self._entered:
                self._entered[state] = self._read_entered(state)
            found = self._entered[state]
        if isinstance(found, DatabaseUnavailableError):
            raise found
        return found

    def _read_entered(self, state: str) -> bool | DatabaseUnavailableError:
        try:
            with asking(self._service.database) as connection:
                return store.machines.was_entered(connection, self._row, state)
        except DatabaseUnavailableError as error:
            return error
