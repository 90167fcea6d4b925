"""A machine counts once per visit, and may move its report to another attribute."""

from __future__ import annotations

import pytest

from app.core.chart import Chart, Func, Op
from app.core.position import Goto, Kind, Pause, Reason, Reset, Resume, Verdict
from tests.core.support import NOON, after, at, canary, chart, counted, final, old, timed, when
from tests.support.model import Model


def model(definition: Chart) -> Model:
    made = Model()
    made.import_chart(definition, NOON)
    return made


def values(made: Model) -> dict[str, int]:
    return dict(made.here.values)


def test_second_put_of_a_machine_is_a_replay_that_changes_nothing() -> None:
    made = model(canary(9))
    made.put("canary", NOON, "m1")
    step = made.put("canary", NOON, "m1")
    assert (step.verdict, step.reason, step.key, step.value) == (Verdict.ACCEPTED, Reason.REPLAY, "count", 1)
    assert not step.entries


def test_put_that_names_the_default_attribute_is_the_same_report() -> None:
    made = model(canary(9))
    made.put("canary", NOON, "m1")
    assert made.put("canary", NOON, "m1", "count").reason is Reason.REPLAY


def test_every_machine_counts() -> None:
    made = model(canary(9))
    for name in ("m1", "m2", "m3"):
        made.put("canary", NOON, name)
    assert values(made)["count"] == 3


def test_anonymous_puts_count_in_addition_to_named_ones() -> None:
    made = model(canary(9))
    for name in ("m1", None, None, "m1"):
        made.put("canary", NOON, name)
    assert values(made)["count"] == 3


@pytest.mark.parametrize(("func", "result"), [(Func.INCREMENT, 1), (Func.DECREMENT, -1)])
def test_report_on_another_attribute_moves(func: Func, result: int) -> None:
    guard = when("end", "count", 99, Op.EQ)
    made = model(chart(counted("a", guard, func=func), final("end")))
    made.put("a", NOON, "m1")
    step = made.put("a", NOON, "m1", "failed")
    assert values(made) == {"count": 0, "failed": result}
    assert (step.reason, step.key, step.value) == (Reason.UPDATED, "failed", result)


def test_moved_report_is_logged_with_its_old_attribute() -> None:
    made = model(canary(9))
    made.put("canary", NOON, "m1")
    (entry,) = made.put("canary", NOON, "m1", "failed").entries
    assert (entry.key, entry.value_before, entry.value_after, entry.reason) == ("failed", 0, 1, "moved from count")


def test_report_that_moves_back_counts_once() -> None:
    made = model(chart(counted("a", when("end", "count", 9)), final("end")))
    for key in ("count", "failed", "count"):
        made.put("a", NOON, "m1", key)
    assert values(made) == {"count": 1, "failed": 0}


def test_guards_see_both_attributes_of_a_moved_report_changed() -> None:
    """`count` falls to 0 in the same step in which `failed` rises; guards must see both changes together."""
    both = counted("a", when("zero", "count", 0, Op.EQ), when("bad", "failed", 1))
    made = model(chart(both, final("zero"), final("bad")))
    made.put("a", NOON, "m1")
    assert made.put("a", NOON, "m1", "failed").position.state == "zero"


def test_moved_report_takes_one_transition() -> None:
    made = model(canary(9))
    made.put("canary", NOON, "m1")
    step = made.put("canary", NOON, "m1", "failed")
    assert (step.reason, [entry.kind for entry in step.entries]) == (Reason.TRANSITIONED, [Kind.TRANSITION])


def test_replay_of_the_put_that_closed_a_state_is_accepted_after_the_move() -> None:
    made = model(canary(1))
    made.put("canary", NOON, "m1")
    step = made.put("canary", NOON, "m1")
    assert (step.verdict, step.reason, step.value) == (Verdict.ACCEPTED, Reason.REPLAY, None)


def test_machine_without_a_report_is_late() -> None:
    made = model(canary(1))
    made.put("canary", NOON, "m1")
    assert made.put("canary", NOON, "m2").reason is Reason.LATE


def test_machine_that_was_counted_may_say_more_after_the_move_and_nothing_moves() -> None:
    made = model(canary(1))
    made.put("canary", NOON, "m1")
    before = made.here
    step = made.put("canary", NOON, "m1", "failed")
    assert (step.verdict, step.reason, step.key) == (Verdict.ACCEPTED, Reason.RECORDED, "failed")
    assert (made.here, step.visits, step.moves) == (before, (), False)
    (entry,) = step.entries
    assert (entry.kind, entry.from_state, entry.to_state, entry.visit) == (Kind.LATE, "canary", "canary", 1)
    assert (entry.key, entry.machine, entry.value_before, entry.value_after) == ("failed", "m1", None, None)
    # Sent again, it is a replay of the machine's latest report.
    assert made.put("canary", NOON, "m1", "failed").reason is Reason.REPLAY


@pytest.mark.parametrize("key", [None, "count", "failed"])
def test_report_from_before_an_upgrade_that_made_its_state_final_is_a_replay(key: str | None) -> None:
    made = model(canary(2))
    made.put("canary", NOON, "m1")
    new = chart(counted("rest", when("canary", "count", 1)), final("canary"))
    made.import_chart(new, NOON)
    made.do(Goto("rest", "on"), NOON)
    step = made.put("canary", NOON, "m1", key)
    assert (step.verdict, step.reason, step.key, step.entries) == (Verdict.ACCEPTED, Reason.REPLAY, None, ())


def test_late_report_is_recorded_while_the_chart_is_paused() -> None:
    made = model(canary(1))
    made.put("canary", NOON, "m1")
    made.do(Pause("look"), NOON)
    assert made.put("canary", NOON, "m1", "failed").reason is Reason.RECORDED


def test_machine_may_report_in_every_state() -> None:
    made = model(chart(counted("a", when("b", "count", 1)), counted("b", when("end", "count", 9)), final("end")))
    made.put("a", NOON, "m1")
    assert made.put("b", NOON, "m1").reason is Reason.UPDATED


def test_machine_counts_again_in_a_new_visit_of_the_same_state() -> None:
    made = model(chart(counted("a", when("a", "count", 2), when("end", "failed", 1)), final("end")))
    for name in ("m1", "m2", "m1"):
        made.put("a", NOON, name)
    assert (made.here.visit, values(made)["count"]) == (2, 1)


def test_replay_considers_only_the_latest_visit_of_the_state() -> None:
    loop = chart(counted("a", when("b", "count", 1)), counted("b", when("a", "count", 1), when("end", "failed", 1)))
    made = model(chart(*loop.states.values(), final("end")))
    made.put("a", NOON, "m1")
    made.put("b", NOON, "m1")
    made.put("a", NOON, "m2")
    assert made.put("a", NOON, "m1").reason is Reason.LATE


def test_report_of_a_visit_that_the_clock_has_just_begun_is_a_new_one() -> None:
    made = model(chart(counted("a", old("a", 60), when("end", "count", 9)), final("end")))
    made.put("a", NOON, "m1")
    step = made.put("a", after(60), "m1")
    assert (step.reason, made.here.visit, values(made)["count"]) == (Reason.UPDATED, 2, 1)


def test_machine_is_late_if_the_clock_has_just_left_the_state() -> None:
    made = model(chart(counted("a", when("end", "count", 9), at("end", after(60))), final("end")))
    assert made.put("a", after(60), "m1").reason is Reason.LATE


def test_machine_is_late_if_the_clock_has_just_passed_through_the_state() -> None:
    passed = timed("b", at("end", NOON))
    made = model(chart(timed("a", old("b", 60)), passed, final("end")))
    assert made.put("b", after(60), "m1").reason is Reason.LATE


def test_replay_is_accepted_while_paused() -> None:
    made = model(canary(9))
    made.put("canary", NOON, "m1")
    made.do(Pause("look"), NOON)
    assert made.put("canary", NOON, "m1").reason is Reason.REPLAY


# Reports while the chart is paused


def test_report_while_paused_is_counted_but_moves_nothing() -> None:
    made = model(canary(1))
    made.do(Pause("look"), NOON)
    step = made.put("canary", NOON, "m1")
    assert (step.reason, step.value, step.position.state) == (Reason.UPDATED, 1, "canary")
    assert [(entry.kind, entry.machine) for entry in step.entries] == [(Kind.UPDATE, "m1")]


def test_report_that_moves_to_another_attribute_while_paused_is_counted() -> None:
    made = model(canary(9))
    made.put("canary", NOON, "m1")
    made.do(Pause("look"), NOON)
    made.put("canary", NOON, "m1", "failed")
    assert (made.here.state, dict(made.here.values)) == ("canary", {"count": 0, "failed": 1})


def test_resume_judges_the_guards_that_reports_met_during_the_pause_in_their_order() -> None:
    made = model(canary(1))
    made.do(Pause("look"), NOON)
    made.put("canary", NOON, "m1")
    made.put("canary", NOON, "m2", "failed")
    assert made.do(Resume("on"), after(60)).position.state == "rollback"


def test_reports_are_kept_during_a_pause() -> None:
    made = model(canary(9))
    made.put("canary", NOON, "m1")
    made.do(Pause("look"), NOON)
    made.do(Resume("on"), after(60))
    assert made.put("canary", after(60), "m1").reason is Reason.REPLAY


def test_reset_starts_without_reports() -> None:
    made = model(canary(9))
    made.put("canary", NOON, "m1")
    made.do(Reset("again"), NOON)
    assert made.put("canary", NOON, "m1").reason is Reason.UPDATED


def test_key_is_still_known_after_a_reset() -> None:
    made = model(canary(9))
    made.put("canary", NOON, "m1", idempotency_key="k")
    made.do(Reset("again"), NOON)
    assert made.put("canary", NOON, "m1", idempotency_key="k").reason is Reason.REPLAY
