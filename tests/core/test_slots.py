"""Slots: which machine may work now, for how long, and what happens if it does not come back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core import machine
from app.core.chart import Chart, OnExpire
from app.core.errors import BadRequestError, ConflictError
from app.core.position import (
    Claim,
    Evict,
    Happening,
    Kind,
    Pause,
    Position,
    Reason,
    Release,
    Report,
    Reset,
    Resume,
    Step,
    Tick,
    Update,
    Verdict,
)
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
    rule,
    started,
    when,
)
from tests.support.model import Model


def model(definition: Chart, *claims: str) -> Model:
    made = Model()
    made.import_chart(definition, NOON)
    for name in claims:
        made.do(Claim("reboot", name), NOON)
    return made


def claim(made: Model, name: str, seconds: float = 0, *, again: bool = False) -> Step:
    return made.do(Claim("reboot", name, again=again), after(seconds))


# Claim


def test_claim_takes_a_slot() -> None:
    made = model(rolling(2))
    step = claim(made, "m1")
    (entry,) = step.entries
    assert (step.verdict, step.reason) == (Verdict.ACCEPTED, Reason.UPDATED)
    assert (entry.kind, entry.machine, entry.value_before, entry.value_after) == (Kind.CLAIM, "m1", None, 1)
    assert made.here.slots["m1"].fence == 1


def test_claim_again_is_the_same_slot_and_writes_nothing_without_a_lease() -> None:
    made = model(rolling(2), "m1")
    step = claim(made, "m1", 60)
    assert (step.reason, step.entries) == (Reason.REPLAY, ())


def test_claim_again_renews_the_lease_of_the_same_slot() -> None:
    made = model(rolling(2, lease=100), "m1")
    step = claim(made, "m1", 60)
    slot = made.here.slots["m1"]
    assert (step.reason, slot.fence, slot.claimed_at, slot.renewed_at) == (Reason.REPLAY, 1, NOON, after(60))
    assert (slot.expires_at, step.due_at) == (after(160), after(160))


def test_claim_is_refused_when_all_slots_are_held() -> None:
    step = claim(model(rolling(2), "m1", "m2"), "m3")
    assert (step.verdict, step.reason, step.entries) == (Verdict.REFUSED, Reason.FULL, ())


def test_holder_is_not_refused_when_all_slots_are_held() -> None:
    assert claim(model(rolling(2), "m1", "m2"), "m2").reason is Reason.REPLAY


def test_fence_rises_with_every_claim_of_the_chart() -> None:
    made = model(rolling(2), "m1", "m2")
    made.put("reboot", NOON, "m1")
    claim(made, "m3")
    assert (made.here.slots["m3"].fence, made.here.fence) == (3, 3)


def test_fence_rises_across_runs() -> None:
    made = model(rolling(2), "m1")
    made.do(Reset("again"), NOON)
    claim(made, "m1")
    assert made.here.slots["m1"].fence == 2


ROSTER = replace(rolling(), roster=("m1",))
REFUSED_CLAIMS = [
    pytest.param(rolling(), started(rolling()), "nowhere", "m1", Reason.UNKNOWN_STATE, id="unknown state"),
    pytest.param(rolling(), paused(started(rolling())), "reboot", "m1", Reason.PAUSED, id="paused"),
    pytest.param(rolling(), started(rolling()), "done", "m1", Reason.NOT_CURRENT, id="another state"),
    pytest.param(ROSTER, started(ROSTER), "reboot", "m2", Reason.NOT_ON_ROSTER, id="not on the roster"),
    pytest.param(rolling(), paused(started(rolling())), "done", "m1", Reason.PAUSED, id="paused before current"),
    pytest.param(ROSTER, started(ROSTER), "done", "m2", Reason.NOT_CURRENT, id="current before roster"),
]


@pytest.mark.parametrize(("definition", "position", "state", "name", "reason"), REFUSED_CLAIMS)
def test_claim_is_refused(definition: Chart, position: Position, state: str, name: str, reason: Reason) -> None:
    step = machine.step(definition, position, Claim(state, name), NOON)
    assert (step.verdict, step.reason, step.entries) == (Verdict.REFUSED, reason, ())


def test_claim_on_a_state_without_slots_is_an_error() -> None:
    with pytest.raises(BadRequestError, match="state 'canary' has no slots"):
        machine.step(canary(), started(canary()), Claim("canary", "m1"), NOON)


# A report gives the slot back


def test_accepted_put_gives_the_slot_back() -> None:
    made = model(rolling(1), "m1")
    step = made.put("reboot", NOON, "m1")
    assert (step.reason, [entry.kind for entry in step.entries]) == (Reason.UPDATED, [Kind.UPDATE])
    assert made.here.slots == {}


def test_put_from_a_machine_without_a_slot_is_refused() -> None:
    assert model(rolling(1), "m1").put("reboot", NOON, "m2").reason is Reason.NO_SLOT


def test_replay_is_accepted_without_a_slot() -> None:
    made = model(rolling(1), "m1")
    made.put("reboot", NOON, "m1")
    assert made.put("reboot", NOON, "m1").reason is Reason.REPLAY


def test_replay_gives_back_a_slot_that_was_claimed_again() -> None:
    made = model(rolling(1), "m1")
    made.put("reboot", NOON, "m1")
    claim(made, "m1", again=True)
    step = made.put("reboot", NOON, "m1")
    assert (step.reason, [entry.kind for entry in step.entries]) == (Reason.REPLAY, [Kind.RELEASE])
    assert (made.here.slots, made.here.values["count"]) == ({}, 1)


def test_machine_needs_a_slot_to_move_its_report() -> None:
    made = model(rolling(1), "m1")
    made.put("reboot", NOON, "m1")
    assert made.put("reboot", NOON, "m1", "failed").reason is Reason.NO_SLOT


def test_slots_end_with_the_visit() -> None:
    made = model(rolling(2, target=1), "m1", "m2")
    made.put("reboot", NOON, "m1")
    assert (made.here.state, made.here.slots) == ("done", {})


# Release and evict


def test_release_gives_the_slot_back() -> None:
    made = model(rolling(1), "m1")
    step = made.do(Release("reboot", "m1"), NOON)
    (entry,) = step.entries
    assert (step.reason, entry.kind, entry.machine, entry.value_before) == (Reason.UPDATED, Kind.RELEASE, "m1", 1)
    assert made.here.slots == {}


@pytest.mark.parametrize(("state", "name"), [("reboot", "m2"), ("done", "m1"), ("nowhere", "m1")])
def test_release_without_a_slot_is_accepted_and_writes_nothing(state: str, name: str) -> None:
    step = model(rolling(1), "m1").do(Release(state, name), NOON)
    assert (step.verdict, step.reason, step.entries) == (Verdict.ACCEPTED, Reason.REPLAY, ())


def test_report_while_paused_gives_the_slot_back() -> None:
    made = model(rolling(1), "m1")
    made.do(Pause("look"), NOON)
    step = made.put("reboot", NOON, "m1")
    assert (step.reason, dict(step.position.slots)) == (Reason.UPDATED, {})


def test_release_works_while_paused() -> None:
    made = model(rolling(1), "m1")
    made.do(Pause("look"), NOON)
    assert made.do(Release("reboot", "m1"), NOON).reason is Reason.UPDATED


def test_evict_takes_the_slot_away_with_a_reason() -> None:
    made = model(rolling(1), "m1")
    (entry,) = made.do(Evict("m1", "burnt down"), NOON).entries
    assert (entry.kind, entry.machine, entry.value_before, entry.reason) == (Kind.EVICT, "m1", 1, "burnt down")
    assert made.here.slots == {}


def test_evict_of_a_machine_without_a_slot_is_a_conflict() -> None:
    with pytest.raises(ConflictError, match="machine 'm2' holds no slot"):
        model(rolling(1), "m1").do(Evict("m2", "why"), NOON)


# Stages widen as machines report

STAGES = [(0, 1), (1, 5), (5, 5), (6, 2), (7, 2), (8, 2), (100, 2)]


@pytest.mark.parametrize(("reported", "limit"), STAGES)
def test_limit_widens_by_stages(reported: int, limit: int) -> None:
    assert rule(1, 5, 2).limit(reported) == limit


def test_slots_widen_as_machines_report() -> None:
    made = model(rolling(1, 2), "m1")
    assert claim(made, "m2").reason is Reason.FULL
    made.put("reboot", NOON, "m1")
    assert [claim(made, name).reason for name in ("m2", "m3", "m4")] == [Reason.UPDATED, Reason.UPDATED, Reason.FULL]


def test_failure_does_not_widen_the_slots() -> None:
    made = model(rolling(1, 2), "m1")
    made.put("reboot", NOON, "m1", "failed")
    assert [claim(made, name).reason for name in ("m2", "m3")] == [Reason.UPDATED, Reason.FULL]


def test_report_that_moves_to_failed_narrows_the_slots_again() -> None:
    made = model(rolling(1, 2), "m1")
    made.put("reboot", NOON, "m1")
    claim(made, "m1", again=True)
    made.put("reboot", NOON, "m1", "failed")
    assert [claim(made, name).reason for name in ("m2", "m3")] == [Reason.UPDATED, Reason.FULL]


def test_failure_that_moves_to_the_first_attribute_widens_the_slots() -> None:
    made = model(rolling(1, 2), "m1")
    made.put("reboot", NOON, "m1", "failed")
    claim(made, "m1")
    made.put("reboot", NOON, "m1")
    assert [claim(made, name).reason for name in ("m2", "m3", "m4")] == [Reason.UPDATED, Reason.UPDATED, Reason.FULL]


def test_step_counts_the_machines_on_the_first_attribute() -> None:
    definition = rolling(1, 2)
    here = machine.step(
        definition, holding(started(definition), "m1", "m2"), Update(state="reboot", machine="m1"), NOON
    ).position
    assert here.succeeded == 1
    here = machine.step(definition, here, Update(state="reboot", machine="m2", key="failed"), NOON).position
    assert here.succeeded == 1


# Leases


def expired(on_expire: OnExpire, *claims: str, seconds: float = 100) -> tuple[Model, Step]:
    made = model(rolling(5, lease=100, on_expire=on_expire), *claims)
    return made, made.do(Tick(), after(seconds))


@pytest.mark.parametrize("on_expire", OnExpire)
def test_lease_lasts_until_its_end(on_expire: OnExpire) -> None:
    made, step = expired(on_expire, "m1", seconds=99)
    assert (step.entries, step.due_at, list(made.here.slots)) == ((), after(100), ["m1"])


def test_hold_keeps_the_slot_and_logs_the_expiry_once() -> None:
    made, step = expired(OnExpire.HOLD, "m1")
    (entry,) = step.entries
    assert (entry.kind, entry.machine, entry.value_before, entry.reason) == (Kind.EXPIRE, "m1", 1, "hold")
    assert (made.here.slots["m1"].expired_at, step.due_at) == (after(100), None)
    assert not made.do(Tick(), after(200)).entries


def test_holder_whose_lease_ran_out_may_still_report() -> None:
    made, _ = expired(OnExpire.HOLD, "m1")
    assert made.put("reboot", after(200), "m1").reason is Reason.UPDATED


def test_holder_whose_lease_ran_out_may_renew_it() -> None:
    made, _ = expired(OnExpire.HOLD, "m1")
    claim(made, "m1", 200)
    slot = made.here.slots["m1"]
    assert (slot.fence, slot.expires_at, slot.expired_at) == (1, after(300), None)


def test_free_gives_the_slot_to_the_next() -> None:
    made, step = expired(OnExpire.FREE, "m1")
    assert [(entry.kind, entry.reason) for entry in step.entries] == [(Kind.EXPIRE, "free")]
    assert (made.here.slots, made.here.values["failed"]) == ({}, 0)


def test_fail_counts_the_holder_as_failed() -> None:
    made, step = expired(OnExpire.FAIL, "m1")
    (entry,) = step.entries
    assert (entry.kind, entry.machine, entry.reason) == (Kind.EXPIRE, "m1", "fail")
    assert (entry.key, entry.value_before, entry.value_after) == ("failed", 0, 1)
    assert (made.here.slots, made.current_reports) == ({}, {"m1": "failed"})


def test_fail_moves_the_chart_when_the_budget_is_spent() -> None:
    made, step = expired(OnExpire.FAIL, "m1", "m2", "m3")
    assert [(entry.kind, entry.machine) for entry in step.entries] == [
        (Kind.EXPIRE, "m1"),
        (Kind.EXPIRE, "m2"),
        (Kind.TIMEOUT, None),
    ]
    assert (step.entries[-1].to_state, step.entries[-1].reason) == ("halted", "failed >= 2")
    assert (made.here.state, made.here.slots) == ("halted", {})


def test_fail_may_move_the_chart_into_the_same_state_again() -> None:
    state = counted(
        "reboot",
        when("reboot", "failed", 1),
        when("end", "count", 9),
        slots=rule(1, lease=100, on_expire=OnExpire.FAIL),
    )
    made = model(chart(state, final("end")), "m1")
    made.do(Tick(), after(100))
    assert (made.here.visit, made.here.values["failed"], made.rows[-1].kind) == (2, 0, "timeout")


def test_fail_moves_an_earlier_report() -> None:
    made = model(rolling(5, lease=100, on_expire=OnExpire.FAIL), "m1")
    made.put("reboot", NOON, "m1")
    claim(made, "m1", again=True)
    made.do(Tick(), after(100))
    assert (made.here.values, made.here.succeeded) == ({"count": 0, "failed": 1}, 0)


def test_fail_counts_a_machine_once() -> None:
    made, _ = expired(OnExpire.FAIL, "m1")
    claim(made, "m1", 100)
    step = made.do(Tick(), after(200))
    assert [(entry.value_before, entry.value_after) for entry in step.entries] == [(1, 1)]
    assert (made.here.values["failed"], made.here.slots) == (1, {})


def test_machine_that_was_failed_may_come_back_and_report_success() -> None:
    made, _ = expired(OnExpire.FAIL, "m1")
    claim(made, "m1", 200)
    made.put("reboot", after(200), "m1")
    assert made.here.values == {"count": 1, "failed": 0}


def test_put_of_a_failure_that_the_lease_has_just_counted_is_a_replay() -> None:
    made = model(rolling(5, lease=100, on_expire=OnExpire.FAIL), "m1")
    step = made.put("reboot", after(100), "m1", "failed")
    assert (step.reason, [entry.kind for entry in step.entries]) == (Reason.REPLAY, [Kind.EXPIRE])


def test_put_of_success_after_the_lease_ran_out_is_refused() -> None:
    made = model(rolling(5, lease=100, on_expire=OnExpire.FAIL), "m1")
    assert made.put("reboot", after(100), "m1").reason is Reason.NO_SLOT


def test_leases_are_ended_in_the_order_in_which_they_run_out() -> None:
    made = model(rolling(5, lease=100), "m1")
    claim(made, "m2", 10)
    claim(made, "m1", 20)
    step = made.do(Tick(), after(500))
    assert [entry.machine for entry in step.entries] == ["m2", "m1"]


def test_clock_transition_is_taken_before_a_due_lease_is_ended() -> None:
    state = counted("reboot", old("end", 100), slots=rule(1, lease=100, on_expire=OnExpire.FAIL))
    made = model(chart(state, final("end")), "m1")
    assert [entry.kind for entry in made.do(Tick(), after(100)).entries] == [Kind.TIMEOUT]


def test_pause_extends_running_leases() -> None:
    made = model(rolling(5, lease=100), "m1")
    made.do(Pause("look"), after(40))
    assert not made.do(Tick(), after(500)).entries
    step = made.do(Resume("on"), after(540))
    assert (made.here.slots["m1"].expires_at, step.due_at) == (after(600), after(600))


def test_pause_first_ends_a_lease_that_ran_out_before() -> None:
    made = model(rolling(5, lease=100), "m1")
    step = made.do(Pause("look"), after(100))
    assert [entry.kind for entry in step.entries] == [Kind.EXPIRE, Kind.PAUSE]


def test_pause_does_not_extend_a_lease_that_is_over() -> None:
    made, _ = expired(OnExpire.HOLD, "m1")
    made.do(Pause("look"), after(200))
    made.do(Resume("on"), after(300))
    assert made.here.slots["m1"].expires_at == after(100)


@pytest.mark.parametrize("happening", [Claim("reboot", "m2"), Release("reboot", "m2"), Evict("m2", "why"), Tick()])
def test_every_happening_first_ends_the_lease_that_ran_out(happening: Happening) -> None:
    here = holding(holding(started(rolling(2, lease=100)), "m1", expires=100), "m2", expires=200)
    step = machine.step(rolling(2, lease=100), here, happening, after(100))
    assert (step.entries[0].kind, step.entries[0].machine) == (Kind.EXPIRE, "m1")


# Leases after an upgrade


def releasing(made: Model, seconds: float, *, lease: float | None, on_expire: OnExpire = OnExpire.FREE) -> Step:
    """Upgrade the chart of `made` to another lease."""
    return made.import_chart(rolling(5, lease=lease, on_expire=on_expire), after(seconds))


def test_upgrade_gives_a_slot_without_a_lease_one_that_counts_from_the_import() -> None:
    made = model(rolling(5), "m1")
    assert releasing(made, 50, lease=100).due_at == after(150)
    assert made.rows[-1].reason == "version 1 to 2; held slots get its leases"
    step = made.do(Tick(), after(150))
    assert ([entry.kind for entry in step.entries], dict(made.here.slots)) == ([Kind.EXPIRE], {})


@pytest.mark.parametrize(("lease", "due"), [(30, 40), (500, 510)])
def test_upgrade_counts_the_new_lease_from_the_last_claim(lease: float, due: float) -> None:
    made = model(rolling(5, lease=100), "m1")
    claim(made, "m1", 10)
    assert releasing(made, 20, lease=lease).due_at == after(due)


def test_upgrade_to_a_lease_that_is_over_ends_it_at_once() -> None:
    made = model(rolling(5, lease=100), "m1")
    step = releasing(made, 50, lease=30, on_expire=OnExpire.FAIL)
    assert [entry.kind for entry in step.entries] == [Kind.UPGRADE, Kind.EXPIRE]
    assert (dict(made.here.slots), made.here.values["failed"]) == ({}, 1)


def test_upgrade_without_a_lease_ends_no_slot() -> None:
    made = model(rolling(5, lease=100), "m1")
    assert releasing(made, 50, lease=None, on_expire=OnExpire.HOLD).due_at is None
    assert not made.do(Tick(), after(1000)).entries


def test_upgrade_counts_no_time_paused_towards_the_new_lease() -> None:
    made = model(rolling(5, lease=100), "m1")
    made.do(Pause("look"), after(10))
    made.do(Resume("on"), after(40))
    assert releasing(made, 50, lease=200).due_at == after(230)


def test_upgrade_while_paused_lets_the_lease_of_a_slot_without_one_begin_at_the_resume() -> None:
    made = model(rolling(5), "m1")
    made.do(Pause("look"), after(10))
    releasing(made, 30, lease=100)
    assert made.do(Resume("on"), after(40)).due_at == after(140)


def test_upgrade_to_free_frees_a_slot_whose_lease_was_over() -> None:
    made = model(rolling(5, lease=100), "m1")
    made.do(Tick(), after(100))
    step = releasing(made, 200, lease=100)
    assert ([entry.kind for entry in step.entries], dict(made.here.slots)) == ([Kind.UPGRADE, Kind.EXPIRE], {})


def test_upgrade_under_hold_ends_a_lease_once() -> None:
    made = model(rolling(5, lease=100), "m1")
    made.do(Tick(), after(100))
    assert [entry.kind for entry in releasing(made, 200, lease=50, on_expire=OnExpire.HOLD).entries] == [Kind.UPGRADE]


def test_upgrade_to_a_longer_lease_lets_a_lease_that_was_over_run_again() -> None:
    made = model(rolling(5, lease=100), "m1")
    made.do(Tick(), after(100))
    assert releasing(made, 200, lease=300, on_expire=OnExpire.HOLD).due_at == after(300)
    assert made.here.slots["m1"].expired_at is None


def test_upgrade_with_the_same_lease_says_nothing_of_leases() -> None:
    made = model(rolling(5, lease=100, on_expire=OnExpire.FREE), "m1")
    releasing(made, 20, lease=100)
    assert made.rows[-1].reason == "version 1 to 2"


# A failure that the end of the lease reported is taken back


def taking_back(made: Model, seconds: float, *, failed_by_lease: bool) -> Step:
    report = Report(1, "m1", made.current_reports["m1"]) if "m1" in made.current_reports else None
    update = Update(
        state="reboot", machine="m1", report=report, takes_back=True, failed_by_lease=failed_by_lease, was_entered=True
    )
    return made.do(update, after(seconds))


def test_machine_that_its_lease_failed_may_take_that_back_without_a_slot() -> None:
    made, _ = expired(OnExpire.FAIL, "m1")
    step = taking_back(made, 101, failed_by_lease=True)
    assert (step.reason, step.position.values) == (Reason.UPDATED, {"count": 1, "failed": 0})


def test_machine_whose_lease_ends_in_the_same_step_may_take_that_back() -> None:
    made = model(rolling(5, lease=100, on_expire=OnExpire.FAIL), "m1")
    step = taking_back(made, 100, failed_by_lease=False)
    assert [entry.kind for entry in step.entries] == [Kind.EXPIRE, Kind.UPDATE]
    assert step.position.values == {"count": 1, "failed": 0}


def test_failure_that_the_machine_reported_itself_is_not_taken_back() -> None:
    made = model(rolling(5), "m1")
    made.put("reboot", NOON, "m1", "failed")
    assert taking_back(made, 1, failed_by_lease=False).reason is Reason.NO_SLOT
