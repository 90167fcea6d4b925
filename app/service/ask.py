"""A machine asks "may I?" and "was it?".

Questions that arrive while the database works are answered from one reading of each chart that they are about. No lock
is taken: if a chart's clock has something to do, the answer says so, and the caller has it done first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app import store
from app.core.chart import Chart
from app.core.errors import ChartNotFoundError, StateServiceError
from app.core.position import Reason
from app.db import Connection, asking, retrying
from app.service.context import Service
from app.service.put import Answer


@dataclass(frozen=True, slots=True)
class Question:
    """What a machine asks of which chart; `reached` asks whether the state was entered in this run."""

    chart: str
    state: str
    machine: str | None = None
    reached: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a question as the chart stood when it was read.

    `is_settled` is True if waiting cannot change the answer; `is_due` is True if the chart's clock has something to do
    that may change it.
    """

    answer: Answer
    is_settled: bool
    is_due: bool


@retrying
def answer_all(service: Service, questions: Sequence[Question]) -> list[Found | StateServiceError]:
    """Answer each question in its place, from one reading of each chart. Raises DatabaseUnavailableError."""
    with asking(service.database) as connection:
        names = {question.chart for question in questions}
        rows, now = store.charts.read_charts_and_now(connection, names)
        now = service.now(now)
        views = {}
        for name, row in rows.items():
            is_due = row.due_at is not None and row.due_at <= now
            views[name] = _View(connection, row, service.definitions.get(connection, row), is_due)
        return [
            views[question.chart].find(question) if question.chart in views else ChartNotFoundError(question.chart)
            for question in questions
        ]


class _View:
    """Where a chart stood when it was read; answers any number of questions."""

    def __init__(self, connection: Connection, row: store.charts.ChartRow, chart: Chart, is_due: bool) -> None:
        self._connection = connection
        self._row = row
        self._chart = chart
        self._is_due = is_due
        self._entered = {row.state: True}
        self._renamed = store.charts.read_renamed(row)

    def find(self, question: Question) -> Found:
        """Return the answer to `question`."""
        row, reason = self._row, self._find_reason(question)
        is_yes = reason in (Reason.CURRENT, Reason.REACHED)
        answer = Answer(
            chart=row.name,
            run=row.run,
            visit=row.visit,
            seq=row.seq,
            state=question.state,
            current_state=row.state,
            is_yes=is_yes,
            reason=reason,
        )
        return Found(answer, is_yes or self._is_settled(question, reason), self._is_due)

    def _find_reason(self, question: Question) -> Reason:
        if question.reached and self._name_now(question.state) in self._chart.states:
            return Reason.REACHED if self._was_entered(self._name_now(question.state)) else Reason.NOT_REACHED
        if question.state not in self._chart.states:
            return Reason.UNKNOWN_STATE
        if self._row.paused_at is not None:
            return Reason.PAUSED
        if question.machine is not None and not self._chart.is_on_roster(question.machine):
            return Reason.NOT_ON_ROSTER
        return Reason.CURRENT if question.state == self._row.state else Reason.NOT_CURRENT

    def _is_settled(self, question: Question, reason: Reason) -> bool:
        """True if a no cannot become a yes by waiting. An operator's goto or reset is not waited for."""
        if reason in (Reason.UNKNOWN_STATE, Reason.NOT_ON_ROSTER):
            return True
        return not self._chart.can_reach(self._row.state, self._name_now(question.state))

    def _name_now(self, state: str) -> str:
        """Return the name that a state has now, which an upgrade may have renamed in this run."""
        return self._renamed.get(state, state)

    def _was_entered(self, state: str) -> bool:
        if state not in self._entered:
            self._entered[state] = store.machines.was_entered(self._connection, self._row, state)
        return self._entered[state]
