"""The service on a real database against the pure core with a memory, whatever happens in whatever order.

Each example is the life of one chart: PUTs by few machines, retried at random with Idempotency-Keys, alone and
several in one transaction, slots, an operator's acts, upgrades, archives, and a clock that is moved by hand.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app import store
from app.chart_file import dump, parse
from app.core import machine
from app.core.chart import Chart
from app.core.decision import MOVES_PER_STEP
from app.core.errors import StateServiceError
from app.core.log import Author, LogRow
from app.core.position import Archive, Claim, Happening, Position, Reason, Release, Tick, Verdict, is_due
from app.db import snapshot
from app.service import machines
from app.service.context import Service
from app.service.operate import ImportRequest, Outcome, act, archive, import_chart
from app.service.put import Answer, Applied, Put, Sent, apply, sweep
from app.service.upkeep import verify
from tests.service.support import NOBODY, Clock, query, rows
from tests.support import requests
from tests.support.examples import examples
from tests.support.happenings import RandomPut, acts, likely, puts, random_homes, small_charts, successors, takes_puts
from tests.support.model import Model
from tests.support.requests import Question, ask, update

EXAMPLES = examples(40, few=4)
SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
# Reasons of a yes that has a row of its own.
COUNTED = (Reason.UPDATED, Reason.TRANSITIONED, Reason.RECORDED)
LENGTHS = st.sampled_from([0, 1, 20, 100])
_numbers = itertools.count(1)

Outcomes = tuple[Any, ...] | str


def outcome(decide: Callable[[], Outcomes]) -> Outcomes:
    """What `decide` returns, or the error that it raises, as a text."""
    try:
        return decide()
    except StateServiceError as error:
        return f"{type(error).__name__}: {error}"


class Agreement(RuleBasedStateMachine):
    """One chart in the service and in the model."""

    service: Service

    def __init__(self) -> None:
        super().__init__()
        self.name = f"c{next(_numbers)}"
        self.model = Model()
        self.sent: list[RandomPut] = []
        self.text = ""
        self.clock = Clock()
        self.service.database.clock = self.clock

    @initialize(chart=small_charts())
    def begin(self, chart: Chart) -> None:
        self._import(chart, {})

    # What happens

    @precondition(lambda self: not self.model.is_archived)
    @rule(data=st.data(), count=st.integers(1, 5))
    def live(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            self.clock.advance(data.draw(st.just(0) | LENGTHS))
            if data.draw(st.sampled_from(likely(self.model))) == "put":
                self._put(data.draw(puts(self.model.chart, self.model.here)))
            else:
                self._act(data.draw(acts(self.model.chart, self.model.here)))

    @precondition(lambda self: self.sent and not self.model.is_archived)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        self._put(data.draw(st.sampled_from(self.sent)))

    @precondition(lambda self: takes_puts(self.model))
    @rule(data=st.data())
    def put_several_in_one_transaction(self, data: st.DataObject) -> None:
        new = puts(self.model.chart, self.model.here)
        asked = data.draw(st.lists(new | st.sampled_from(self.sent) if self.sent else new, min_size=2, max_size=5))
        sent = [Sent(self.name, _put(put), Author(idempotency_key=put.idempotency_key)) for put in asked]
        answers = apply(self.service, sent)
        self.sent.extend(asked)
        self.model.moves = MOVES_PER_STEP
        for put, answer in zip(asked, answers, strict=True):
            assert outcome(lambda answer=answer: _told(_take(answer))) == outcome(lambda put=put: self._model_put(put))
        self.model.moves = None

    @precondition(lambda self: not self.model.is_archived)
    @rule(data=st.data(), reached=st.booleans(), seconds=LENGTHS)
    def ask(self, data: st.DataObject, reached: bool, seconds: int) -> None:
        self.clock.advance(seconds)
        state = data.draw(st.sampled_from([*self.model.chart.states, "nowhere"]))
        if not self._is_in_a_cycle():
            self._tick_if_due()
        answer = ask(self.service, self.name, Question(state, reached=reached))
        assert answer.reason is self._expected_reason(state, reached)

    @rule(seconds=LENGTHS)
    def let_the_sweeper_pass(self, seconds: int) -> None:
        self.clock.advance(seconds)
        sweep(self.service)
        self._tick_if_due()

    @precondition(lambda self: not self.model.is_archived)
    @rule(data=st.data(), is_tried_first=st.booleans())
    def upgrade(self, data: st.DataObject, is_tried_first: bool) -> None:
        new = data.draw(successors(self.model.chart, self.model.here))
        homes = data.draw(random_homes(self.model.chart, new))
        self._import(new, homes, is_tried_first=is_tried_first)

    @precondition(lambda self: not self.model.is_archived and len(self.model.rows) > 8)
    @rule()
    def archive(self) -> None:
        archive(self.service, self.name, "why", NOBODY)
        self.model.do(Archive("why"), self.clock.now)

    @precondition(lambda self: self.model.is_archived)
    @rule(chart=st.none() | small_charts())
    def bring_back(self, chart: Chart | None) -> None:
        self._import(chart or self.model.chart, {})

    # What must be the same

    @invariant()
    def tables_are_where_the_core_stands(self) -> None:
        if self.model.position is None:
            return
        with snapshot(self.service.database) as connection:
            row = store.charts.get_chart_even_archived(connection, self.name)
            held = store.machines.read_held_slots(connection, row)
            position = replace(
                store.charts.build_position(row, store.charts.read_values(connection, row.id)), slots=held
            )
            reports = store.machines.read_reports(connection, row)
        assert position == _bare(self.model.position)
        assert (reports, row.seq, row.due_at) == (self.model.current_reports, len(self.model.rows), self.model.due_at)
        assert (row.archived_at is not None) is self.model.is_archived

    def teardown(self) -> None:
        if self.model.position is None:
            return
        assert [_nameless(row) for row in rows(self.service, self.name)] == self.model.rows
        visits = query(
            self.service,
            "SELECT v.run, v.visit, v.state FROM visits v JOIN charts c ON c.id = v.chart_id WHERE c.name = :name",
            name=self.name,
        )
        assert sorted(visits) == sorted((visit.run, visit.visit, visit.state) for visit in self.model.visits)
        assert verify(self.service, self.name).differences == ()
        if not self.model.is_archived:
            # The next example's sweeper shall not find it.
            archive(self.service, self.name, "over", NOBODY)

    # How it is done

    def _put(self, put: RandomPut) -> None:
        self.sent.append(put)
        expected = outcome(lambda: self._model_put(put))
        author = Author(idempotency_key=put.idempotency_key)
        assert outcome(lambda: _told(update(self.service, self.name, _put(put), author))) == expected

    def _model_put(self, put: RandomPut) -> Outcomes:
        step = self.model.put(put.state, self.clock.now, put.machine, put.key, put.idempotency_key)
        seq = self.model.find_update() if step.reason in COUNTED else len(self.model.rows)
        seq = seq if step.repeated is None else step.repeated.seq
        return step.verdict is Verdict.ACCEPTED, step.reason, step.key, step.value, seq, step.position.state

    def _act(self, happening: Happening) -> None:
        expected = outcome(lambda: self._decided(happening))
        assert outcome(lambda: self._do(happening)) == expected

    def _decided(self, happening: Happening) -> Outcomes:
        step = self.model.do(happening, self.clock.now)
        return (step.verdict is Verdict.ACCEPTED, step.reason) if isinstance(happening, Claim | Release) else ()

    def _do(self, happening: Happening) -> Outcomes:
        match happening:
            case Claim():
                answer = requests.claim(self.service, self.name, happening.state, happening.machine, NOBODY)
            case Release():
                answer = requests.release(self.service, self.name, happening.state, happening.machine, NOBODY)
            case _:
                act(self.service, self.name, happening, NOBODY)
                return ()
        return answer.is_yes, answer.reason

    def _tick_if_due(self) -> None:
        if self.model.due_at is not None and self.model.due_at <= self.clock.now:
            self.model.do(Tick(), self.clock.now)

    def _is_in_a_cycle(self) -> bool:
        """Return whether the clock has more to do than one transaction may; a question leaves that to the sweeper."""
        step = machine.step(self.model.chart, self.model.here, Tick(), self.clock.now)
        return is_due(self.model.chart, step.position, self.clock.now)

    def _expected_reason(self, state: str, reached: bool) -> Reason:
        here = self.model.here
        if state not in self.model.chart.states:
            return Reason.UNKNOWN_STATE
        if reached:
            was = any(visit.run == here.run and visit.state == state for visit in self.model.visits)
            return Reason.REACHED if was else Reason.NOT_REACHED
        if here.is_paused:
            return Reason.PAUSED
        return Reason.CURRENT if state == here.state else Reason.NOT_CURRENT

    def _import(self, chart: Chart, homes: dict[str, str], *, is_tried_first: bool = False) -> None:
        text = dump(chart, state=chart.initial, values=chart.states[chart.initial].initial_values())
        request = ImportRequest(text, name=self.name, maps=[f"{old}:{new}" for old, new in homes.items()])
        tried = None
        if is_tried_first:
            tried = outcome(lambda: _imported(import_chart(self.service, replace(request, dry_run=True), NOBODY)))
        found = outcome(lambda: _imported(import_chart(self.service, request, NOBODY)))
        assert tried in (None, found)
        assert found == outcome(lambda: self._model_import(parse(text, name=self.name).chart, text, homes))

    def _model_import(self, chart: Chart, text: str, homes: dict[str, str]) -> Outcomes:
        if text == self.text and not self.model.is_archived:
            return Outcome.UNCHANGED, (), self.model.here.state
        is_new = self.model.position is None or self.model.is_archived
        step = self.model.import_chart(chart, self.clock.now, homes, hashlib.sha256(text.encode()).hexdigest())
        self.text = text
        return Outcome.CREATED if is_new else Outcome.UPGRADED, step.entries, step.position.state


def _put(put: RandomPut) -> Put:
    return Put(put.state, put.machine, put.key)


def _take(found: Applied | StateServiceError) -> Answer:
    """Return the answer, or raise the error, of one request of a batch."""
    if isinstance(found, StateServiceError):
        raise found
    return found.answer


def _told(answer: Any) -> Outcomes:
    return answer.is_yes, answer.reason, answer.key, answer.value, answer.seq, answer.current_state


def _imported(imported: Any) -> Outcomes:
    return imported.outcome, imported.entries, imported.status.current_state


def _bare(position: Position) -> Position:
    return replace(position, succeeded=0, holder_reports={})


def _nameless(row: LogRow) -> LogRow:
    return replace(row, chart="web")


# `make prove ARGS=--short` chooses the properties by this mark, which only `@given` gives by itself.
@pytest.mark.hypothesis
def test_service_agrees_with_the_core(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine too, a question has what is due written before it is answered.
    monkeypatch.setattr(machines, "TICK_SECONDS", 60)
    agreement = type("Agreement", (Agreement,), {"service": service})
    run_state_machine_as_test(agreement, settings=SETTINGS)


CYCLE = """\
current_state: a
states:
- name: a
  func: increment
  slots: 1
  current: {key: count, value: 0}
  target: [{name: a, when: {key: clock, value: "2001-01-01T00:00:00"}}, {name: end, when: {key: count, value: 9}}]
- {name: end}
"""


def test_claim_of_the_current_state_agrees_with_the_core_in_a_clock_cycle(service: Service) -> None:
    """A claim that first runs the clock, to know which state is current, has one budget of transitions for both."""
    model, clock = Model(), Clock()
    service.database.clock = clock
    import_chart(service, ImportRequest(CYCLE, name="web"), NOBODY)
    model.import_chart(parse(CYCLE, name="web").chart, clock.now, sha256=hashlib.sha256(CYCLE.encode()).hexdigest())
    clock.advance(1)
    answer = requests.claim_current(service, "web", "m1")
    assert answer.reason is model.do(Claim("a", "m1"), clock.now).reason
    assert [row.kind for row in model.rows].count("timeout") == 200
    assert [_nameless(row) for row in rows(service, "web")] == model.rows
