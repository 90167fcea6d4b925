"""A machine asks "may I?", "was it?" and "is there anything for me?".

Questions that arrive while the database works are answered from one reading of each chart that they are about. No lock
is taken: if a chart's clock has something to do, the answer says so, and the caller has it done first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app import store
from app.core import machine
from app.core.chart import Approvers, Chart
from app.core.errors import ChartNotFoundError, ConflictError, StateServiceError
from app.core.expect import Reporters
from app.core.position import Reason, Tick, is_due
from app.core.window import NO_HOURS, NO_LABELS, Labels, Opening, judge
from app.db import Connection, asking, retrying
from app.service.context import Service, read_position
from app.service.crowds import Knowledge
from app.service.hours import CalendarEvents, Closed, describe_closed, read_labels
from app.service.put import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a machine asks of which chart.

    `state` is None if the machine asks for its turn: may it act in the state that is current, whichever that is?
    `reached` asks whether the state was entered in this run. `run` is the run that the machine means; None means the
    current one. A machine that has done its part in this visit hears a yes only if it asks `again`. `approver` is the
    name of the sender's token if that may approve: under this name a person may act in a state of approvers.
    """

    chart: str
    state: str | None
    machine: str | None = None
    reached: bool = False
    run: int | None = None
    again: bool = False
    approver: str | None = None


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
            chart, known = service.definitions.get(connection, row), service.know(connection, row)
            if chart.looks_up:
                known = known.about([question.machine for question in questions if question.machine is not None])
            views[name] = _look(service, connection, row, chart=chart, now=now, known=known)
        done = _find_done(connection, views, questions)
        return [
            views[question.chart].find(question, is_done=_report_of(views, question) in done)
            if question.chart in views
            else ChartNotFoundError(question.chart)
            for question in questions
        ]


def _look(
    service: Service,
    connection: Connection,
    row: store.charts.ChartRow,
    *,
    chart: Chart,
    now: datetime,
    known: Knowledge,
) -> _View:
    """Return the chart as it stands once its clock has done what is due by `now`, which is not written.

    A cycle of clock guards is left to the sweeper: it has never done what is due.
    """
    if row.due_at is None or row.due_at > now:
        return _View(connection, row, chart, now, known=known, is_due=False, events=service.events)
    position, _ = read_position(service, connection, row, chart)
    try:
        step = machine.step(chart, position, Tick(), now, known)
    except ConflictError:
        # An attribute would leave its range: the sweeper says so in the log.
        return _View(connection, row, chart, now, known=known, is_due=False, events=service.events)
    if is_due(chart, step.position, now):
        return _View(connection, row, chart, now, known=known, is_due=False, events=service.events)
    after = row._replace(**store.charts.position_columns(step, row.updated_at, row.seq, row.last_hash))
    view = _View(connection, after, chart, now, known=known, is_due=True, events=service.events)
    view.enter(visit.state for visit in step.visits)
    return view


def _find_done(
    connection: Connection, views: Mapping[str, _View], questions: Sequence[Question]
) -> Collection[store.machines.AskedReport]:
    """Return the reports, of those that can make an answer `done`, that do so. One read serves all questions."""
    asked = {report for question in questions if (report := _report_of(views, question)) is not None}
    if not asked:
        return ()
    first_keys = {view.row.id: view.first_key for view in views.values()}
    found = store.machines.find_standing_reports(connection, asked)
    return {report for report, key in found.items() if key is not None and key == first_keys[report.chart_id]}


def _report_of(views: Mapping[str, _View], question: Question) -> store.machines.AskedReport | None:
    """Return the report that decides whether the machine of `question` is done; None if no report can."""
    view = views.get(question.chart)
    if view is None or question.machine is None or question.again or question.reached or view.first_key is None:
        return None
    if question.state not in (None, view.row.state):
        return None
    return store.machines.AskedReport(view.row.id, view.row.run, view.row.visit, question.machine)


class _View:
    """Where a chart stood when it was read; answers any number of questions."""

    def __init__(
        self,
        connection: Connection,
        row: store.charts.ChartRow,
        chart: Chart,
        now: datetime,
        *,
        is_due: bool,
        events: CalendarEvents,
        known: Knowledge,
    ) -> None:
        self._known = known
        self.row = row
        self.first_key = chart.states[row.state].default_key
        self._connection = connection
        self._chart = chart
        self._now = now
        self._is_due = is_due
        self._schedule = chart.find_schedule(row.state)
        self._openings: dict[str | None, tuple[Opening, Labels]] = {}
        self._hours = NO_HOURS
        if self._schedule is not None:
            self._hours = events.fill(connection, store.charts.find_hours(row), now, now)
        self._entered = {row.state: True}
        self._renamed = store.charts.read_renamed(row)

    def enter(self, states: Iterable[str]) -> None:
        """Take note of states that the run has entered, although the tables do not say so yet."""
        self._entered |= dict.fromkeys(states, True)

    def find(self, question: Question, *, is_done: bool) -> Found:
        """Return the answer to `question`; `is_done` is whether its machine has done its part in this visit."""
        row, here = self.row, self._chart.states[self.row.state]
        reason = self._find_reason(question, is_done)
        is_yes = reason in (Reason.CURRENT, Reason.REACHED)
        answer = Answer(
            chart=row.name,
            run=row.run,
            visit=row.visit,
            seq=row.seq,
            state=row.state if question.state is None else question.state,
            current_state=row.state,
            is_yes=is_yes,
            reason=reason,
            needs_slot=here.slots is not None if question.state is None else None,
            closed=self._find_closed(question) if reason is Reason.WINDOW else None,
        )
        return Found(answer, is_yes or self._is_settled(question, reason), self._is_due)

    def _find_reason(self, question: Question, is_done: bool) -> Reason:
        row, here = self.row, self._chart.states[self.row.state]
        if question.run is not None and question.run != row.run:
            return Reason.OTHER_RUN
        if question.reached and self._name_now(question.state) in self._chart.states:
            return Reason.REACHED if self._was_entered(self._name_now(question.state)) else Reason.NOT_REACHED
        if question.state is not None and question.state not in self._chart.states:
            return Reason.UNKNOWN_STATE
        if is_done:
            return Reason.DONE
        if row.paused_at is not None:
            return Reason.PAUSED
        if question.state is None and here.approvers is not None:
            refusal = self._refuse_person(question, here.approvers)
            if refusal is not None:
                return refusal
        if question.machine is not None and not self._takes_part(question.state or row.state, question.machine):
            return Reason.NOT_ON_ROSTER
        if question.state is not None:
            if question.state != row.state:
                return Reason.NOT_CURRENT
        elif here.is_final:
            return Reason.FINAL
        elif not here.is_counting:
            return Reason.TIME_DRIVEN
        return Reason.CURRENT if self._is_open(question.machine) else Reason.WINDOW

    def _refuse_person(self, question: Question, rule: Approvers) -> Reason | None:
        """Return why the caller may not approve. A machine may not; in open mode no caller is known to be a person."""
        if question.machine != question.approver:
            return Reason.APPROVERS
        return Reason.OWN_CHANGE if rule.not_importer and question.approver == self._chart.importer else None

    def _is_open(self, machine: str | None) -> bool:
        schedule = self._schedule
        if schedule is None:
            return True
        # Who asks makes a difference only if the machine's own time zone counts.
        asked = machine if schedule.needs_labels else None
        if asked not in self._openings:
            found = {} if asked is None else read_labels(self._connection, self.row, self._chart, {asked})
            labels = NO_LABELS if asked is None else found.get(asked, NO_LABELS)
            self._openings[asked] = judge(schedule, self._hours, self._now, labels), labels
        return self._openings[asked][0].is_open

    def _find_closed(self, question: Question) -> Closed | None:
        asked = question.machine if self._schedule is not None and self._schedule.needs_labels else None
        labels = self._openings[asked][1]
        return describe_closed(self._chart, self.row.state, self._hours, self._now, reason=Reason.WINDOW, labels=labels)

    def _is_settled(self, question: Question, reason: Reason) -> bool:
        """True if a no cannot become a yes by waiting. An operator's goto or reset is not waited for."""
        if reason in (Reason.OTHER_RUN, Reason.UNKNOWN_STATE):
            return True
        if reason is Reason.NOT_ON_ROSTER and (question.state is not None or not self._chart.has_own_sets):
            return True
        if question.state is not None:
            return reason is Reason.DONE or not self._chart.can_reach(self.row.state, self._name_now(question.state))
        # A pause and a closed window end where the chart is; else only another state can bring the machine's turn.
        ends_here = reason in (Reason.PAUSED, Reason.WINDOW) and self._chart.states[self.row.state].is_for_machines
        return not ends_here and not self._chart.leads_to_machines(self.row.state)

    def _name_now(self, state: str | None) -> str:
        """Return the name that a state has now, which an upgrade may have renamed in this run."""
        return self._renamed.get(str(state), str(state))

    def _takes_part(self, state: str, machine: str) -> bool:
        expect = self._chart.expect_of(state)
        if expect is None or not expect.names_machines:
            return True
        if isinstance(expect, Reporters) and state != self.row.state:
            # A machine that reports until then will take part.
            return True
        here = store.charts.build_position(self.row, {})
        return machine in expect.keep([machine], here, self._known)

    def _was_entered(self, state: str) -> bool:
        if state not in self._entered:
            self._entered[state] = store.machines.was_entered(self._connection, self.row, state)
        return self._entered[state]
