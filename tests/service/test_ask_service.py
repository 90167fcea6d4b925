from __future__ import annotations

import time

import pytest

from app.core.errors import ChartNotFoundError
from app.core.position import Reason
from app.service import operate
from app.service.context import Service, locked
from tests.service.support import ANN, CANARY, Clock, import_text, kinds, put
from tests.support.processes import PATIENCE
from tests.support.requests import Question, ask


@pytest.fixture(autouse=True)
def canary(service: Service) -> None:
    import_text(service, CANARY)


def reason(service: Service, state: str, **fields: object) -> Reason:
    return ask(service, "web", Question(state, **fields)).reason  # type: ignore[arg-type]


STATES = [
    ("canary", Reason.CURRENT),
    ("soak", Reason.NOT_CURRENT),
    ("done", Reason.NOT_CURRENT),
    ("x", Reason.UNKNOWN_STATE),
]


@pytest.mark.parametrize(("state", "expected"), STATES)
def test_get_is_yes_for_the_current_state_alone(service: Service, state: str, expected: Reason) -> None:
    answer = ask(service, "web", Question(state))
    assert (answer.is_yes, answer.reason) == (expected is Reason.CURRENT, expected)
    assert (answer.chart, answer.run, answer.visit, answer.seq, answer.current_state) == ("web", 1, 1, 1, "canary")


def test_get_is_yes_for_a_final_state_that_is_current(service: Service) -> None:
    put(service, "canary", key="failed")
    assert reason(service, "rollback") is Reason.CURRENT


def test_get_is_no_while_paused(service: Service) -> None:
    operate.pause(service, "web", "look", ANN)
    assert [reason(service, state) for state in ("canary", "soak")] == [Reason.PAUSED, Reason.PAUSED]


def test_get_is_no_for_a_machine_that_is_not_on_the_roster(service: Service) -> None:
    import_text(service, CANARY.replace("chart: web", "expect: [m1, m2, m3, m4, m5]"), name="web")
    found = [reason(service, "canary", machine=name) for name in ("m1", "m9", None)]
    assert found == [Reason.CURRENT, Reason.NOT_ON_ROSTER, Reason.CURRENT]


@pytest.mark.parametrize("reached", [False, True])
def test_question_about_an_unknown_chart_is_an_error(service: Service, reached: bool) -> None:
    with pytest.raises(ChartNotFoundError):
        ask(service, "nowhere", Question("canary", reached=reached))


def test_question_about_an_archived_chart_is_an_error(service: Service) -> None:
    operate.archive(service, "web", "over", ANN)
    with pytest.raises(ChartNotFoundError):
        reason(service, "canary")


# The clock


def test_get_takes_the_clock_transition_that_is_due(service: Service, clock: Clock) -> None:
    operate.goto(service, "web", "soak", "there", ANN)
    clock.advance(60)
    assert reason(service, "done") is Reason.CURRENT
    assert kinds(service)[-1] == "timeout"


def test_get_writes_nothing_where_nothing_is_due(service: Service, clock: Clock) -> None:
    operate.goto(service, "web", "soak", "there", ANN)
    clock.advance(59)
    assert reason(service, "soak") is Reason.CURRENT
    assert kinds(service) == ["import", "goto"]


def test_clock_waits_while_paused(service: Service, clock: Clock) -> None:
    operate.goto(service, "web", "soak", "there", ANN)
    operate.pause(service, "web", "look", ANN)
    clock.advance(3600)
    assert (reason(service, "soak"), kinds(service)[-1]) == (Reason.PAUSED, "pause")
    operate.resume(service, "web", "on", ANN)
    assert reason(service, "soak") is Reason.CURRENT


# Reached


def test_reached_is_yes_for_every_state_entered_in_this_run(service: Service) -> None:
    put(service, "canary", "m1")
    put(service, "canary", "m2")
    found = {state: reason(service, state, reached=True) for state in ("canary", "soak", "done", "x")}
    assert found == {
        "canary": Reason.REACHED,
        "soak": Reason.REACHED,
        "done": Reason.NOT_REACHED,
        "x": Reason.UNKNOWN_STATE,
    }


def test_reached_still_answers_while_paused(service: Service) -> None:
    operate.pause(service, "web", "look", ANN)
    assert reason(service, "canary", reached=True) is Reason.REACHED


def test_reached_begins_anew_with_every_run(service: Service) -> None:
    operate.goto(service, "web", "soak", "there", ANN)
    operate.reset(service, "web", "again", ANN)
    assert reason(service, "soak", reached=True) is Reason.NOT_REACHED


def test_reached_follows_a_state_to_its_new_home(service: Service) -> None:
    operate.goto(service, "web", "soak", "there", ANN)
    import_text(service, CANARY.replace("canary", "first"), maps=("canary:first",))
    assert reason(service, "first", reached=True) is Reason.REACHED


def test_get_leaves_a_clock_cycle_to_the_sweeper(service: Service, clock: Clock) -> None:
    import_text(service, CYCLE, name="cycle")
    before = kinds(service, "cycle")
    clock.advance(1)
    assert ask(service, "cycle", Question("a")).is_yes
    assert kinds(service, "cycle") == before


CYCLE = """\
current_state: a
states:
- name: a
  func: time
  target: [{name: a, when: {key: elapsed, value: 0s}}, {name: end, when: {key: elapsed, value: 1d}}]
- {name: end}
"""


def test_get_is_answered_past_a_deadline_while_another_holds_the_chart(service: Service, clock: Clock) -> None:
    operate.goto(service, "web", "soak", "there", ANN)
    clock.advance(60)
    began = time.monotonic()
    with locked(service, "web"):
        answers = [ask(service, "web", Question(state)) for state in ("soak", "done")]
        reached = ask(service, "web", Question("done", reached=True))
    assert time.monotonic() - began < PATIENCE
    assert [answer.is_yes for answer in (*answers, reached)] == [False, True, True]
    assert (answers[1].current_state, answers[1].visit) == ("done", 3)
    assert ask(service, "web", Question("done")).seq == 3
