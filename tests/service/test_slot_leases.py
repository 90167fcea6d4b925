"""What the tables and the log hold when a lease ends; `tests/core/test_slots.py` has every case of the decision."""

from __future__ import annotations

from collections.abc import Callable
from threading import Barrier, Thread

import pytest

from app.config import Config
from app.core.chart import OnExpire
from app.core.position import Reason
from app.service import operate, reading
from app.service import put as putting
from app.service.context import Service
from app.service.status import SlotStatus
from app.wiring import create_app, service_of
from tests.service.support import ANN, NOBODY, Clock, import_text, kinds, put, query, rows
from tests.support import requests
from tests.support.requests import Question, ask
from tests.support.slots import claim, claim_all, is_sound, rolling

LEASE = 100


@pytest.fixture(params=["hold", "free", "fail"])
def on_expire(request: pytest.FixtureRequest, service: Service) -> OnExpire:
    word: str = request.param
    import_text(service, rolling(lease=f"{LEASE}s", on_expire=word, failed="9"))
    return OnExpire(word)


def chart(service: Service, on_expire: str, **options: str) -> None:
    import_text(service, rolling(lease=f"{LEASE}s", on_expire=on_expire, **options))


def status(service: Service) -> SlotStatus:
    found = reading.get_status(service, "web").slots
    assert found is not None
    return found


def values(service: Service) -> dict[str, int]:
    return dict(reading.get_status(service, "web").values)


def holders(service: Service) -> list[str]:
    return [slot.machine for slot in status(service).holders]


def test_lease_ends_as_the_chart_says(service: Service, clock: Clock, on_expire: OnExpire) -> None:
    claim_all(service, "m1")
    clock.advance(LEASE)
    assert putting.sweep(service) == 1
    row = rows(service)[-1]
    is_fail = on_expire is OnExpire.FAIL
    assert (row.kind, row.machine, row.reason, row.actor) == ("expire", "m1", str(on_expire), None)
    assert (row.key, row.value_before, row.value_after) == (("failed", 0, 1) if is_fail else (None, 1, None))
    assert holders(service) == (["m1"] if on_expire is OnExpire.HOLD else [])
    assert values(service) == {"count": 0, "failed": int(is_fail)}
    assert is_sound(service)


TOUCHES: dict[str, Callable[[Service], object]] = {
    "the sweeper": putting.sweep,
    "a question": lambda service: ask(service, "web", Question("reboot")),
    "a claim": lambda service: claim(service, "m9"),
    "a report": lambda service: put(service, "reboot", "m9"),
    "a release": lambda service: requests.release(service, "web", "reboot", "m9", NOBODY),
    "an eviction": lambda service: operate.evict(service, "web", "m2", "why", ANN),
    "a pause": lambda service: operate.pause(service, "web", "why", ANN),
    "an upgrade": lambda service: import_text(service, rolling(lease="1h", on_expire="fail", failed="8")),
    "a goto": lambda service: operate.goto(service, "web", "restart", "why", ANN),
}


@pytest.mark.parametrize("touch", TOUCHES)
def test_lease_that_is_over_is_ended_first_by(service: Service, clock: Clock, touch: str) -> None:
    chart(service, "fail", failed="9")
    claim_all(service, "m1")
    clock.advance(LEASE / 2)
    claim_all(service, "m2")
    clock.advance(LEASE / 2)
    TOUCHES[touch](service)
    row = rows(service)[3]
    assert (row.kind, row.machine, row.seq) == ("expire", "m1", 4)
    assert kinds(service).count("expire") == 1
    assert is_sound(service)


def test_lease_is_ended_once_by_two_services_at_once(service: Service, clock: Clock, database_url: str) -> None:
    chart(service, "fail", failed="9")
    claim_all(service, "m1", "m2")
    other = service_of(create_app(Config(database_url=database_url)))
    other.database.clock = clock
    clock.advance(LEASE)
    barrier = Barrier(8)

    def sweep(one: Service) -> None:
        barrier.wait()
        putting.sweep(one)

    threads = [Thread(target=sweep, args=(one,)) for one in (service, other) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.database.engine.dispose()
    assert kinds(service) == ["import", "claim", "claim", "expire", "expire"]
    assert (values(service)["failed"], is_sound(service)) == (2, True)


def test_holder_past_its_lease_may_claim_again(service: Service, clock: Clock) -> None:
    chart(service, "hold")
    claim_all(service, "m1")
    clock.advance(2 * LEASE)
    answer = claim(service, "m1")
    (slot,) = status(service).holders
    assert (answer.reason, slot.fence, slot.expired_at) == (Reason.REPLAY, 1, None)
    clock.advance(LEASE)
    putting.sweep(service)
    assert (kinds(service), is_sound(service)) == (["import", "claim", "expire", "claim", "expire"], True)


def test_fail_reports_the_machine_and_gives_the_slot_back(service: Service, clock: Clock) -> None:
    chart(service, "fail")
    claim_all(service, "m1")
    clock.advance(LEASE)
    putting.sweep(service)
    assert query(service, "SELECT machine, key, seq FROM reports") == [("m1", "failed", 3)]


def test_fail_that_spends_the_budget_moves_the_chart(service: Service, clock: Clock) -> None:
    chart(service, "fail")
    claim_all(service, "m1", "m2")
    clock.advance(LEASE)
    putting.sweep(service)
    assert kinds(service) == ["import", "claim", "claim", "expire", "expire", "timeout"]
    row = rows(service)[-1]
    assert (row.from_state, row.to_state, row.reason, row.machine) == ("reboot", "halted", "failed >= 2", None)
    assert (reading.get_status(service, "web").current_state, is_sound(service)) == ("halted", True)


def test_claim_that_ends_its_own_lease_leaves_the_report_its_row(service: Service, clock: Clock) -> None:
    chart(service, "fail")
    claim_all(service, "m1")
    clock.advance(LEASE)
    claim_all(service, "m1")
    assert kinds(service) == ["import", "claim", "expire", "claim"]
    assert query(service, "SELECT machine, key, seq FROM reports") == [("m1", "failed", 3)]
    assert is_sound(service)


# Paused time does not count


def test_pause_is_not_counted(service: Service, clock: Clock, on_expire: OnExpire) -> None:
    claim_all(service, "m1")
    clock.advance(60)
    operate.pause(service, "web", "look", ANN)
    clock.advance(10 * LEASE)
    assert putting.sweep(service) == 0
    operate.resume(service, "web", "on", ANN)
    clock.advance(LEASE - 60 - 0.001)
    assert putting.sweep(service) == 0
    clock.advance(0.001)
    assert putting.sweep(service) == 1
    assert kinds(service) == ["import", "claim", "pause", "resume", "expire"]
    assert is_sound(service)


def test_lease_that_ran_out_before_the_pause_ends_before_it(service: Service, clock: Clock) -> None:
    chart(service, "free")
    claim_all(service, "m1")
    clock.advance(LEASE)
    operate.pause(service, "web", "look", ANN)
    assert kinds(service) == ["import", "claim", "expire", "pause"]
