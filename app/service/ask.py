"""A machine asks "may I?" and "was it?"."""

from __future__ import annotations

from dataclasses import dataclass

from app import store
from app.core.chart import Chart
from app.core.position import Reason
from app.db import asking
from app.service.answers import Answer
from app.service.context import Service
from app.service.update import tick


@dataclass(frozen=True, slots=True)
class Question:
    """What a machine asks about; `reached` asks whether the state was entered in this run."""

    state: str
    machine: str | None = None
    reached: bool = False


def ask(service: Service, name: str, question: Question) -> Answer:
    """Answer from one SELECT; the chart's lock is taken only where its clock has something to do.

    Raises ChartNotFoundError, DatabaseUnavailableError.
    """
    row, chart, is_due = _read(service, name)
    if is_due:
        tick(service, name)
        row, chart, _ = _read(service, name)
    was_entered = question.reached and _was_entered(service, row, question.state)
    return judge(chart, row, question, was_entered)


def _read(service: Service, name: str) -> tuple[store.ChartRow, Chart, bool]:
    with asking(service.database) as connection:
        row, read = store.get_chart_and_now(connection, name)
        chart = service.definitions.get(connection, row)
    return row, chart, row.due_at is not None and row.due_at <= service.now(read)


def _was_entered(service: Service, row: store.ChartRow, state: str) -> bool:
    if state == row.state:
        return True
    with asking(service.database) as connection:
        return store.was_entered(connection, row, state)


def judge(chart: Chart, row: store.ChartRow, question: Question, was_entered: bool) -> Answer:
    """The answer to `question` where the chart stands at `row`."""
    reason = _find_reason(chart, row, question, was_entered)
    is_yes = reason in (Reason.CURRENT, Reason.REACHED)
    return Answer(row.name, row.run, row.visit, row.seq, question.state, row.state, is_yes, reason)


def _find_reason(chart: Chart, row: store.ChartRow, question: Question, was_entered: bool) -> Reason:
    if question.state not in chart.states:
        return Reason.UNKNOWN_STATE
    if question.reached:
        return Reason.REACHED if was_entered else Reason.NOT_REACHED
    if row.paused_at is not None:
        return Reason.PAUSED
    if question.state != row.state:
        return Reason.NOT_CURRENT
    if question.machine is not None and not chart.is_on_roster(question.machine):
        return Reason.NOT_ON_ROSTER
    return Reason.CURRENT
