"""Done is done: a machine whose report stands on the state's first attribute gets no second yes in that visit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core.position import Claim, Reason, Release
from app.service import operate
from app.service.ask import Question, answer_all
from app.service.context import Service
from app.service.put import Put, apply_one
from tests.service.support import ANN, CANARY, Clock, import_text, put, rows
from tests.support.requests import NOBODY, ask, claim, claim_current, release, update
from tests.support.requests import Question as Asked
from tests.support.slots import rolling


@pytest.fixture(autouse=True)
def canary(service: Service) -> None:
    import_text(service, CANARY)


def get(service: Service, machine: str | None, state: str | None = "canary", **fields: object) -> Reason:
    return ask(service, "web", Asked(state, machine, **fields)).reason  # type: ignore[arg-type]


def test_get_is_done_for_the_machine_that_reported_success_alone(service: Service) -> None:
    put(service, "canary", machine="m1")
    assert [get(service, machine) for machine in ("m1", "m2", None)] == [Reason.DONE, Reason.CURRENT, Reason.CURRENT]


def test_get_again_asks_regardless(service: Service) -> None:
    put(service, "canary", machine="m1")
    assert get(service, "m1", again=True) is Reason.CURRENT


def test_machine_that_reported_another_key_may_try_again(service: Service) -> None:
    import_text(
        service,
        CANARY.replace(
            "{name: rollback, when: {key: failed, value: 1}}", "{name: rollback, when: {key: failed, value: 9}}"
        ),
    )
    put(service, "canary", machine="m1", key="failed")
    assert get(service, "m1") is Reason.CURRENT
    put(service, "canary", machine="m1")
    assert get(service, "m1") is Reason.DONE


def test_done_lasts_for_the_visit(service: Service) -> None:
    put(service, "canary", machine="m1")
    operate.goto(service, "web", "canary", "once more", ANN)
    assert get(service, "m1") is Reason.CURRENT


def test_done_is_not_said_of_other_states(service: Service) -> None:
    put(service, "canary", machine="m1")
    assert get(service, "m1", "soak") is Reason.NOT_CURRENT


def test_put_of_a_machine_that_is_done_is_a_replay(service: Service) -> None:
    put(service, "canary", machine="m1")
    assert put(service, "canary", machine="m1").reason is Reason.REPLAY


def test_questions_about_many_charts_are_answered_each_from_its_own_reports(service: Service) -> None:
    import_text(service, CANARY, name="other")
    put(service, "canary", machine="m1")
    update(service, "other", Put("canary", "m2"))
    questions = [
        Question(chart=chart, state="canary", machine=machine) for chart in ("web", "other") for machine in ("m1", "m2")
    ]
    found = answer_all(service, [*questions, Question(chart="nowhere", state="canary", machine="m1")])
    reasons = [getattr(getattr(item, "answer", None), "reason", None) for item in found]
    assert reasons == [Reason.DONE, Reason.CURRENT, Reason.CURRENT, Reason.DONE, None]


# Slots


def rolling_chart(service: Service) -> None:
    import_text(service, rolling(slots="2", expect="[m1, m2, m3, m4]", count="4"), name="roll")
    assert claim(service, "roll", "reboot", "m1").is_yes
    assert update(service, "roll", Put("reboot", "m1")).is_yes


def test_claim_is_done_after_success_unless_it_asks_again(service: Service) -> None:
    rolling_chart(service)
    assert claim(service, "roll", "reboot", "m1").reason is Reason.DONE
    assert apply_one(service, "roll", Claim("reboot", "m1", again=True), NOBODY).reason is Reason.UPDATED
    # It holds a slot: the claim renews it.
    assert claim(service, "roll", "reboot", "m1").is_yes


def test_claim_of_the_current_state_asks_regardless(service: Service) -> None:
    rolling_chart(service)
    assert claim_current(service, "roll", "m1").is_yes


def test_claim_that_waits_is_answered_done_at_once(service: Service) -> None:
    rolling_chart(service)
    assert claim(service, "roll", "reboot", "m1", wait=30).reason is Reason.DONE


# Another run


def test_run_that_is_not_current_is_refused_and_changes_nothing(service: Service) -> None:
    rolling_chart(service)
    before = len(rows(service, "roll"))
    put_other = replace(Put("reboot", "m2"), run=2)
    assert update(service, "roll", put_other).reason is Reason.OTHER_RUN
    assert apply_one(service, "roll", Claim("reboot", "m2", run=2), NOBODY).reason is Reason.OTHER_RUN
    assert get(service, "m2", run=2) is Reason.OTHER_RUN
    assert get(service, "m2", run=2, reached=True) is Reason.OTHER_RUN
    assert get(service, "m2", None, run=2) is Reason.OTHER_RUN
    assert len(rows(service, "roll")) == before


def test_report_from_before_a_reset_is_refused_by_its_run(service: Service) -> None:
    assert get(service, "m1", run=1) is Reason.CURRENT
    operate.reset(service, "web", "from the start", ANN)
    assert update(service, "web", Put("canary", "m1", run=1)).reason is Reason.OTHER_RUN
    assert update(service, "web", Put("canary", "m1", run=2)).reason is Reason.UPDATED


def test_release_of_another_run_is_refused_and_the_slot_stays(service: Service) -> None:
    rolling_chart(service)
    claim(service, "roll", "reboot", "m2")
    assert apply_one(service, "roll", Release("reboot", "m2", 7), NOBODY).reason is Reason.OTHER_RUN
    assert release(service, "roll", "reboot", "m2").reason is Reason.UPDATED


# Turn


def turn(service: Service, machine: str = "m1", wait: float = 0, **fields: object) -> tuple[str, Reason, bool | None]:
    answer = ask(service, "web", Asked(None, machine, **fields), wait)  # type: ignore[arg-type]
    return answer.state, answer.reason, answer.needs_slot


def test_turn_is_yes_with_the_current_state(service: Service) -> None:
    assert turn(service) == ("canary", Reason.CURRENT, False)


def test_turn_says_where_a_claim_must_follow(service: Service) -> None:
    rolling_chart(service)
    found = [ask(service, "roll", Asked(None, machine)) for machine in ("m1", "m2", "m9")]
    assert [item.reason for item in found] == [Reason.DONE, Reason.CURRENT, Reason.NOT_ON_ROSTER]
    assert found[1].needs_slot is True


# A machine's turn comes in canary and in fleet, and not in the two states between and after them.
STAGES = """\
chart: web
current_state: canary
states:
- name: canary
  func: increment
  current: [{key: count, value: 0}]
  target: {name: soak, when: {key: count, value: 2}}
- name: soak
  func: time
  target: {name: fleet, when: {key: elapsed, value: 60s}}
- name: fleet
  func: increment
  current: [{key: count, value: 0}]
  target: {name: done, when: {key: count, value: 5}}
- name: done
"""


def test_turn_is_no_in_a_state_that_counts_nothing(service: Service, clock: Clock) -> None:
    import_text(service, STAGES)
    operate.goto(service, "web", "soak", "there", ANN)
    assert turn(service) == ("soak", Reason.TIME_DRIVEN, False)
    clock.advance(60)
    assert turn(service) == ("fleet", Reason.CURRENT, False)
    operate.goto(service, "web", "done", "there", ANN)
    assert turn(service) == ("done", Reason.FINAL, False)


def test_turn_is_no_while_paused(service: Service) -> None:
    operate.pause(service, "web", "look", ANN)
    assert turn(service)[1] is Reason.PAUSED


WAITS = [("canary", "m1", True), ("soak", "m1", True), ("fleet", "m1", False), ("done", "m2", False)]


@pytest.mark.parametrize(("state", "machine", "waits"), WAITS)
def test_turn_is_waited_for_while_a_counting_state_can_come(
    service: Service, state: str, machine: str, waits: bool
) -> None:
    import_text(service, STAGES)
    operate.goto(service, "web", state, "there", ANN)
    if state in ("canary", "fleet"):
        put(service, state, machine=machine)
    (found,) = answer_all(service, [Question(chart="web", state=None, machine=machine)])
    assert (found.answer.is_yes, found.is_settled) == (False, not waits)  # type: ignore[union-attr]


def test_turn_on_a_paused_chart_is_waited_for(service: Service) -> None:
    operate.pause(service, "web", "look", ANN)
    (found,) = answer_all(service, [Question(chart="web", state=None, machine="m1")])
    assert not found.is_settled  # type: ignore[union-attr]
