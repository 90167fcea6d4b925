"""A new version takes over a run that has begun."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core import machine
from app.core.chart import Chart, Func, OnExpire, Op
from app.core.errors import ConflictError
from app.core.position import Claim, Kind, Position, Reason, Resume, Step, Tick, Upgrade
from tests.core.support import (
    NOON,
    after,
    canary,
    chart,
    counted,
    final,
    holding,
    old,
    paused,
    rolling,
    started,
    timed,
    when,
)
from tests.support.model import Model

CHART = canary(9)
HERE = replace(started(CHART), visit=4, values={"count": 3, "failed": 0})


def upgrade(new: Chart, position: Position = HERE, seconds: float = 10, **homes: str) -> Step:
    return machine.step(CHART, position, Upgrade(chart=new, version=2, homes=homes), after(seconds))


def kinds(step: Step) -> list[Kind]:
    return [entry.kind for entry in step.entries]


def test_upgrade_keeps_run_visit_and_values() -> None:
    assert upgrade(canary(8)).position == replace(HERE, version=2)


def test_upgrade_writes_one_row_with_the_new_version() -> None:
    (entry,) = upgrade(canary(8)).entries
    assert (entry.kind, entry.version, entry.visit) == (Kind.UPGRADE, 2, 4)
    assert (entry.from_state, entry.to_state, entry.reason) == ("canary", "canary", "version 1 to 2")


def test_upgrade_drops_old_attributes_and_adds_new_ones() -> None:
    state = counted("canary", when("done", "count", 9), values={"count": 0, "skipped": 7})
    assert upgrade(chart(state, final("done"))).position.values == {"count": 3, "skipped": 7}


def test_upgrade_keeps_the_time_of_entry() -> None:
    state = counted("canary", when("done", "count", 9), old("done", 60))
    assert upgrade(chart(state, final("done"))).due_at == after(60)


def test_upgrade_does_not_go_to_the_new_initial_state() -> None:
    first = counted("prepare", when("canary", "count", 1))
    assert upgrade(chart(first, *canary(9).states.values())).position.state == "canary"


def test_upgrade_without_the_current_state_is_a_conflict() -> None:
    with pytest.raises(ConflictError, match="state 'canary' is current and version 2 has no such state"):
        upgrade(chart(counted("a", when("end", "count", 1)), final("end")))


def test_upgrade_moves_a_mapped_state_to_its_new_home_in_the_same_visit() -> None:
    step = upgrade(chart(counted("a", when("end", "count", 9)), final("end")), canary="a")
    (entry,) = step.entries
    assert (step.position.state, step.position.visit, step.position.values["count"]) == ("a", 4, 3)
    assert (entry.from_state, entry.to_state) == ("canary", "a")


def test_upgrade_ignores_the_map_of_a_state_that_is_kept() -> None:
    assert upgrade(canary(8), canary="done").position.state == "canary"


# A guard that now holds


def test_upgrade_takes_a_guard_that_now_holds_at_once() -> None:
    step = upgrade(canary(3))
    assert (kinds(step), step.position.state) == ([Kind.UPGRADE, Kind.TRANSITION], "done")
    assert (step.entries[1].version, step.entries[1].reason, step.entries[1].key) == (2, "count >= 3", None)


def test_upgrade_takes_the_first_guard_that_now_holds() -> None:
    state = counted("canary", when("first", "count", 2), when("second", "count", 1))
    definition = chart(state, final("first"), final("second"))
    assert upgrade(definition).position.state == "first"


def test_upgrade_takes_a_clock_guard_that_is_due_in_the_new_version() -> None:
    state = counted("canary", when("done", "count", 9), old("late", 5))
    step = upgrade(chart(state, final("done"), final("late")))
    assert (kinds(step), step.position.state) == ([Kind.UPGRADE, Kind.TIMEOUT], "late")


def test_upgrade_runs_the_clock_in_the_state_that_a_count_led_to() -> None:
    definition = chart(counted("canary", when("b", "count", 3)), timed("b", old("end", 0)), final("end"))
    step = upgrade(definition)
    assert kinds(step) == [Kind.UPGRADE, Kind.TRANSITION, Kind.TIMEOUT]


def test_upgrade_while_paused_does_not_take_a_guard_that_holds() -> None:
    step = upgrade(canary(3), paused(HERE))
    assert (kinds(step), step.position.is_paused) == ([Kind.UPGRADE], True)
    resumed = machine.step(canary(3), step.position, Resume("on"), after(20))
    assert (kinds(resumed), resumed.position.state) == ([Kind.RESUME, Kind.TRANSITION], "done")


def test_upgrade_takes_the_old_version_s_clock_transition_first() -> None:
    definition = chart(timed("a", old("b", 5)), timed("b", old("end", 60)), final("end"))
    only_b = chart(timed("b", old("end", 60)), final("end"))
    step = machine.step(definition, started(definition), Upgrade(chart=only_b, version=2), after(10))
    assert [(entry.kind, entry.version) for entry in step.entries] == [(Kind.TIMEOUT, 1), (Kind.UPGRADE, 2)]


# Slots


def test_upgrade_keeps_slots_if_the_state_still_has_slots() -> None:
    here = holding(started(rolling(2)), "m1", "m2")
    step = machine.step(rolling(2), here, Upgrade(chart=rolling(1), version=2), NOON)
    assert list(step.position.slots) == ["m1", "m2"]


def test_upgrade_drops_slots_if_the_state_has_slots_no_longer() -> None:
    here = holding(started(rolling(2)), "m1")
    plain = chart(counted("reboot", when("done", "count", 9)), final("done"))
    step = machine.step(rolling(2), here, Upgrade(chart=plain, version=2), NOON)
    assert (step.position.slots, step.position.fence) == ({}, 1)


# Reports


def reported(*keys: str) -> Model:
    made = Model()
    made.import_chart(CHART, NOON)
    for number, key in enumerate(keys):
        made.put("canary", NOON, f"m{number}", key)
    return made


def test_upgrade_keeps_reports() -> None:
    made = reported("count")
    made.import_chart(canary(8), NOON)
    assert made.put("canary", NOON, "m0").reason is Reason.REPLAY


def test_report_on_a_dropped_attribute_has_no_attribute() -> None:
    made = reported("count")
    made.import_chart(chart(counted("canary", when("done", "new", 9), values={"new": 0}), final("done")), NOON)
    step = made.put("canary", NOON, "m0")
    assert (step.reason, made.here.values, step.entries[0].reason) == (Reason.UPDATED, {"new": 1}, None)


def test_reports_follow_a_state_to_its_new_home() -> None:
    made = reported("count")
    made.import_chart(chart(counted("a", when("end", "count", 9)), final("end")), NOON, {"canary": "a"})
    assert made.put("a", NOON, "m0").reason is Reason.REPLAY


def test_going_back_makes_another_version() -> None:
    made = reported("count")
    made.import_chart(canary(8), NOON)
    made.import_chart(CHART, NOON)
    assert (made.here.version, made.here.values["count"], made.do(Tick(), NOON).entries) == (3, 1, ())


# A roster that loses machines


FOUR = canary(4, roster=("a", "b", "c", "d"), expect=4)
THREE = canary(3, roster=("b", "c", "d"), expect=3)


def reporting(*names: str) -> Model:
    made = Model()
    made.import_chart(FOUR, NOON)
    for name in names:
        made.put("canary", NOON, name)
    return made


def test_roster_that_loses_a_machine_withdraws_its_report() -> None:
    made = reporting("a", "b")
    step = made.import_chart(THREE, after(10))
    assert [(row.kind, row.machine, row.key, row.value_before, row.value_after) for row in made.rows[-2:]] == [
        ("upgrade", None, None, None, None),
        ("withdraw", "a", "count", 2, 1),
    ]
    assert (step.position.values["count"], made.current_reports) == (1, {"b": "count"})
    made.put("canary", after(11), "c")
    assert made.here.state == "canary"
    assert made.put("canary", after(12), "d").position.state == "done"


def test_guards_are_judged_after_every_report_is_withdrawn() -> None:
    made = reporting("a", "b", "c")
    step = made.import_chart(replace(THREE, states=canary(2).states), after(10))
    assert kinds(step) == [Kind.UPGRADE, Kind.WITHDRAW, Kind.TRANSITION]
    made = reporting("a", "b")
    step = made.import_chart(replace(THREE, states=canary(2).states), after(10))
    assert kinds(step) == [Kind.UPGRADE, Kind.WITHDRAW]


def test_roster_that_keeps_its_machines_withdraws_nothing() -> None:
    made = reporting("a", "b")
    assert kinds(made.import_chart(canary(4, roster=("a", "b", "x", "y"), expect=4), after(10))) == [Kind.UPGRADE]


def test_upgrade_without_a_roster_withdraws_nothing() -> None:
    assert kinds(reporting("a").import_chart(canary(9), after(10))) == [Kind.UPGRADE]


def test_withdrawal_undoes_a_decrement() -> None:
    state = counted("a", when("end", "count", -9, Op.LE), func=Func.DECREMENT)
    old_chart = chart(state, final("end"))
    made = Model()
    made.import_chart(old_chart, NOON)
    made.put("a", NOON, "m1")
    made.import_chart(replace(old_chart, roster=("m2",), expect=1), NOON)
    assert (made.here.values["count"], made.current_reports) == (0, {})


def test_withdrawal_of_a_report_on_a_dropped_attribute_changes_no_value() -> None:
    made = reporting("a")
    state = counted("canary", when("done", "failed", 3), values={"failed": 0})
    made.import_chart(chart(state, final("done"), roster=("b",), expect=1), after(10))
    assert (made.rows[-1].kind, made.rows[-1].key, made.current_reports) == ("withdraw", None, {})


def test_reports_of_a_visit_that_the_clock_has_ended_are_not_withdrawn() -> None:
    first = counted("a", when("b", "count", 9), old("b", 10))
    old_chart = replace(
        chart(first, counted("b", when("end", "count", 9)), final("end")), expect=2, roster=("m1", "m2")
    )
    made = Model()
    made.import_chart(old_chart, NOON)
    made.put("a", NOON, "m1")
    step = made.import_chart(replace(old_chart, roster=("m2",), expect=1), after(20))
    assert kinds(step) == [Kind.TIMEOUT, Kind.UPGRADE]


def test_machine_that_comes_back_to_the_roster_counts_again() -> None:
    made = reporting("a")
    made.import_chart(THREE, after(10))
    made.import_chart(FOUR, after(20))
    assert made.put("canary", after(30), "a").reason is Reason.UPDATED


def test_machine_that_the_clock_fails_within_the_upgrade_is_checked_against_the_new_roster() -> None:
    made = Model()
    made.import_chart(rolling(1, lease=30, on_expire=OnExpire.FAIL), NOON)
    made.do(Claim("reboot", "m1"), NOON)
    new = replace(rolling(1, lease=30, on_expire=OnExpire.FAIL), roster=("m2", "m3"), expect=2)
    step = made.import_chart(new, after(60))
    assert kinds(step) == [Kind.EXPIRE, Kind.UPGRADE, Kind.WITHDRAW]
    assert (step.position.values["failed"], step.reports, made.current_reports) == (0, (), {})


def test_withdrawal_leaves_the_machine_its_slot_and_narrows_the_stages() -> None:
    made = Model()
    made.import_chart(rolling(1, 2), NOON)
    made.do(Claim("reboot", "m1"), NOON)
    made.put("reboot", NOON, "m1")
    made.do(Claim("reboot", "m1", again=True), NOON)
    step = made.import_chart(replace(rolling(1, 2), roster=("m2", "m3"), expect=2), NOON)
    assert (list(step.position.slots), step.position.succeeded, dict(step.position.holder_reports)) == (["m1"], 0, {})
