"""Slots and what else happens to a chart: stages, visits, runs, upgrades."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import BadRequestError
from app.core.position import Reason
from app.service import operate, reading
from app.service import put as putting
from app.service.context import Service
from app.service.status import SlotStatus
from tests.service.support import ANN, NOBODY, Clock, import_text, kinds, put, query, rows
from tests.support import requests
from tests.support.slots import Ledger, claim, claim_all, is_sound, rolling


def status(service: Service) -> SlotStatus:
    found = reading.get_status(service, "web").slots
    assert found is not None
    return found


def holders(service: Service) -> list[str]:
    return sorted(slot.machine for slot in status(service).holders)


def fence(service: Service, machine: str, state: str = "reboot") -> int | None:
    found = claim(service, machine, state).slots
    assert found is not None
    return found.fence


# Stages


def test_slots_widen_as_machines_succeed(service: Service) -> None:
    import_text(service, rolling('[1, 10, "5%"]', expect="400", count="400", failed="400"))
    limits = []
    for number in range(28):
        limits.append(status(service).limit)
        claim_all(service, f"m{number}")
        put(service, "reboot", f"m{number}", key="count" if number % 2 else "failed")
    assert limits == [1] * 2 + [10] * 20 + [20] * 6
    assert reading.list_statuses(service)[0].slots == status(service)
    assert Ledger({1: (1, 10, 20)}).read(rows(service)).most == 1
    assert is_sound(service)


def test_report_gives_as_many_machines_way_as_the_stage_lets(service: Service) -> None:
    import_text(service, rolling("[1, 2]"))
    claim_all(service, "m1")
    assert claim(service, "m2").reason is Reason.FULL
    put(service, "reboot", "m1")
    claim_all(service, "m2", "m3")
    assert claim(service, "m4").reason is Reason.FULL
    assert is_sound(service)


def test_stages_begin_again_with_the_visit(service: Service) -> None:
    import_text(service, rolling("[1, 5]"))
    claim_all(service, "m1")
    put(service, "reboot", "m1")
    operate.goto(service, "web", "reboot", "again", ANN)
    assert status(service).limit == 1


# Fence


def test_fence_rises_over_visits_states_runs_and_lives(service: Service) -> None:
    import_text(service, rolling())
    fences = [fence(service, "m1"), fence(service, "m2")]
    operate.goto(service, "web", "restart", "on", ANN)
    fences.append(fence(service, "m1", "restart"))
    operate.goto(service, "web", "reboot", "back", ANN)
    fences.append(fence(service, "m1"))
    operate.reset(service, "web", "again", ANN)
    fences.append(fence(service, "m2"))
    operate.archive(service, "web", "over", ANN)
    import_text(service, rolling("3"))
    fences += [fence(service, "m1"), fence(service, "m2"), fence(service, "m1")]
    assert fences == [1, 2, 3, 4, 5, 6, 7, 6]
    assert is_sound(service)


# A visit's slots end with it


def test_slots_end_with_the_report_that_moves_the_chart(service: Service) -> None:
    import_text(service, rolling(count="1"))
    claim_all(service, "m1", "m2")
    put(service, "reboot", "m1")
    assert (status(service).limit, holders(service)) == (1, [])
    assert query(service, "SELECT machine FROM slots") == []
    assert is_sound(service)


MOVES: list[Any] = [
    pytest.param(lambda service: operate.goto(service, "web", "reboot", "again", ANN), id="goto"),
    pytest.param(lambda service: operate.reset(service, "web", "again", ANN), id="reset"),
]


@pytest.mark.parametrize("move", MOVES)
def test_new_visit_of_the_same_state_begins_without_slots(service: Service, move: Any) -> None:
    import_text(service, rolling())
    claim_all(service, "m1", "m2")
    move(service)
    assert holders(service) == []
    assert put(service, "reboot", "m1").reason is Reason.NO_SLOT
    claim_all(service, "m3", "m4")
    assert is_sound(service)


def test_machine_of_the_state_before_is_late(service: Service) -> None:
    import_text(service, rolling())
    claim_all(service, "m1")
    operate.goto(service, "web", "restart", "on", ANN)
    claim(service, "m2", "restart")
    assert put(service, "reboot", "m1").reason is Reason.LATE
    assert requests.release(service, "web", "reboot", "m1", NOBODY).is_yes
    assert claim(service, "m1").reason is Reason.NOT_CURRENT
    assert claim(service, "m1", "restart").reason is Reason.FULL
    assert (holders(service), is_sound(service)) == (["m2"], True)


def test_archived_chart_comes_back_without_slots(service: Service) -> None:
    import_text(service, rolling())
    claim_all(service, "m1", "m2")
    operate.archive(service, "web", "over", ANN)
    assert is_sound(service)
    import_text(service, rolling("3"))
    assert holders(service) == []
    assert query(service, "SELECT machine FROM slots") == []
    assert is_sound(service)


# Upgrades


def test_upgrade_that_lowers_slots_evicts_nobody(service: Service) -> None:
    import_text(service, rolling("4"))
    claim_all(service, "m1", "m2", "m3", "m4")
    import_text(service, rolling("2"))
    assert (status(service).limit, holders(service)) == (2, ["m1", "m2", "m3", "m4"])
    assert claim(service, "m1").reason is Reason.REPLAY
    put(service, "reboot", "m1")
    put(service, "reboot", "m2")
    assert claim(service, "m5").reason is Reason.FULL
    put(service, "reboot", "m3")
    claim_all(service, "m5")
    assert (holders(service), is_sound(service)) == (["m4", "m5"], True)


def test_upgrade_that_raises_slots_lets_more_in(service: Service) -> None:
    import_text(service, rolling("1"))
    claim_all(service, "m1")
    import_text(service, rolling("3"))
    claim_all(service, "m2", "m3")
    assert (holders(service), is_sound(service)) == (["m1", "m2", "m3"], True)


WITHOUT = rolling().replace("  slots: 2\n", "")


def test_upgrade_that_removes_slots_frees_them_and_reports_need_none(service: Service) -> None:
    import_text(service, rolling())
    claim_all(service, "m1", "m2")
    import_text(service, WITHOUT)
    assert reading.get_status(service, "web").slots is None
    assert put(service, "reboot", "m1").reason is Reason.UPDATED
    assert put(service, "reboot", "m3").reason is Reason.UPDATED
    with pytest.raises(BadRequestError, match="state 'reboot' has no slots"):
        claim(service, "m4")
    assert is_sound(service)


def test_upgrade_that_brings_slots_counts_the_reports_there_are(service: Service) -> None:
    import_text(service, WITHOUT)
    put(service, "reboot", "m1")
    import_text(service, rolling("[1, 3]"))
    assert status(service).limit == 3
    assert put(service, "reboot", "m2").reason is Reason.NO_SLOT
    claim_all(service, "m2", "m3", "m4")
    assert is_sound(service)


def test_upgrade_that_renames_the_state_keeps_slots(service: Service) -> None:
    import_text(service, rolling())
    claim_all(service, "m1")
    import_text(service, rolling().replace("reboot", "kexec"), maps=("reboot:kexec",))
    assert holders(service) == ["m1"]
    assert put(service, "kexec", "m1").reason is Reason.UPDATED
    assert is_sound(service)


def test_upgrade_that_drops_failed_keeps_slots(service: Service, clock: Clock) -> None:
    import_text(service, rolling(lease="100s", on_expire="fail"))
    claim_all(service, "m1")
    put(service, "reboot", "m1", key="failed")
    claim_all(service, "m1")
    plain = rolling(lease="100s").replace(", {key: failed, value: 0}", "").replace("key: failed", "key: count")
    import_text(service, plain.replace("value: 2}", "value: 9}"))
    clock.advance(100)
    putting.sweep(service)
    assert (holders(service), is_sound(service)) == (["m1"], True)


def test_upgrade_gives_held_slots_its_lease(service: Service, clock: Clock) -> None:
    import_text(service, rolling(lease="100s", on_expire="free"))
    claim_all(service, "m1")
    clock.advance(60)
    claim_all(service, "m2")
    import_text(service, rolling(lease="50s", on_expire="free"))
    assert (holders(service), is_sound(service)) == (["m2"], True)
    clock.advance(50)
    assert putting.sweep(service) == 1
    assert (holders(service), is_sound(service)) == ([], True)


def test_sweeper_ends_a_lease_that_an_upgrade_added(service: Service, clock: Clock) -> None:
    import_text(service, rolling("1"))
    claim_all(service, "dead")
    import_text(service, rolling("1", lease="3s", on_expire="free"))
    assert claim(service, "b").reason is Reason.FULL
    clock.advance(3)
    assert putting.sweep(service) == 1
    assert claim(service, "b").reason is Reason.UPDATED
    assert is_sound(service)


def test_upgrade_that_removes_the_lease_takes_it_from_held_slots(service: Service, clock: Clock) -> None:
    import_text(service, rolling(lease="100s", on_expire="free"))
    claim_all(service, "m1", "m2")
    import_text(service, rolling())
    clock.advance(100)
    assert putting.sweep(service) == 0
    assert kinds(service) == ["import", "claim", "claim", "upgrade"]
    assert (holders(service), is_sound(service)) == (["m1", "m2"], True)


@pytest.mark.parametrize("ending", ["reports", "is evicted"])
def test_roster_that_loses_a_holder_leaves_it_its_slot_until_it_reports_or_is_evicted(
    service: Service, ending: str
) -> None:
    import_text(service, rolling(expect="[m1, m2]", count="2"))
    claim_all(service, "m1", "m2")
    import_text(service, rolling(expect="[m2, m3]", count="2"))
    assert claim(service, "m3").reason is Reason.FULL
    if ending == "reports":
        assert put(service, "reboot", "m1").reason is Reason.NOT_ON_ROSTER
    else:
        operate.evict(service, "web", "m1", "not ours any more", ANN)
    claim_all(service, "m3")
    assert is_sound(service)
