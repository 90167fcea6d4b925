"""Waiting for a slot: who is let in, who is told no at once, and that nobody is forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.core.errors import BadRequestError, ChartNotFoundError
from app.core.position import Reason
from app.service import operate, reading
from app.service.context import Service
from app.service.put import Answer
from tests.service.support import ANN, NOBODY, Clock, import_text, kinds, put
from tests.support import requests
from tests.support.processes import PATIENCE, until
from tests.support.slots import claim, claim_all, is_sound, rolling


@pytest.fixture
def charts() -> Sequence[str]:
    return []


@pytest.fixture
def time_source() -> Clock:
    """The service's time stands still until a test advances it."""
    return Clock()


FULL = rolling("1", expect="[m1, m2, m3, m4]", count="4")


class Waiting:
    """Claims that wait, each in a thread of its own."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.threads = ThreadPoolExecutor(16)

    def __call__(self, machine: str, state: str = "reboot", seconds: float = 30) -> Future[Answer]:
        """Begin to wait, and return once the server holds the request."""
        before = self.service.hub.waiters
        found = self.threads.submit(claim, self.service, machine, state, seconds)
        until(lambda: self.service.hub.waiters > before or found.done(), f"{machine} waits")
        return found


@pytest.fixture
def waiting(service: Service) -> Iterator[Waiting]:
    import_text(service, FULL)
    service.hub.start()
    made = Waiting(service)
    yield made
    service.hub.close()
    made.threads.shutdown()
    service.hub._thread.join()  # its connection is closed when it has ended


def reason(held: Future[Answer]) -> Reason:
    return held.result(PATIENCE).reason


def waiters(service: Service) -> list[str]:
    found = reading.get_status(service, "web").slots
    return [] if found is None else list(found.waiting)


def is_seen(service: Service, *machines: str) -> bool:
    return sorted(waiters(service)) == sorted(machines)


RELEASES: dict[str, Callable[[Service], object]] = {
    "a report": lambda service: put(service, "reboot", "m1"),
    "a failure": lambda service: put(service, "reboot", "m1", key="failed"),
    "a release": lambda service: requests.release(service, "web", "reboot", "m1", NOBODY),
    "an eviction": lambda service: operate.evict(service, "web", "m1", "why", ANN),
    "an upgrade that widens": lambda service: import_text(service, FULL.replace("slots: 1", "slots: 2", 1)),
    "a visit": lambda service: operate.goto(service, "web", "reboot", "again", ANN),
    "a run": lambda service: operate.reset(service, "web", "again", ANN),
}


@pytest.mark.parametrize("release", RELEASES)
def test_waiter_gets_the_slot_that_comes_free(waiting: Waiting, service: Service, release: str) -> None:
    claim_all(service, "m1")
    held = waiting("m2")
    RELEASES[release](service)
    assert reason(held) is Reason.UPDATED
    assert is_sound(service)


def test_waiter_gets_its_slot_when_its_state_becomes_current(waiting: Waiting, service: Service) -> None:
    held = waiting("m2", "restart")
    operate.goto(service, "web", "restart", "on", ANN)
    assert reason(held) is Reason.UPDATED


def test_waiter_gets_the_slot_that_another_request_of_its_machine_got(waiting: Waiting, service: Service) -> None:
    claim_all(service, "m1")
    held = [waiting("m2"), waiting("m2")]
    put(service, "reboot", "m1")
    assert sorted(map(reason, held)) == [Reason.REPLAY, Reason.UPDATED]


ENDS: dict[str, Any] = {
    "the end": (lambda service: operate.goto(service, "web", "done", "over", ANN), Reason.NOT_CURRENT),
    "a roster": (
        lambda service: import_text(service, FULL.replace("m2", "m9")),
        Reason.NOT_ON_ROSTER,
    ),
    "a state that is gone": (
        lambda service: import_text(service, FULL.replace("reboot", "kexec"), maps=("reboot:kexec",)),
        Reason.UNKNOWN_STATE,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_waiter_is_told_no_at_once_when_it_cannot_become_yes(waiting: Waiting, service: Service, end: str) -> None:
    act, expected = ENDS[end]
    claim_all(service, "m1")
    held = [waiting("m2"), waiting("m2")]
    act(service)
    assert [reason(one) for one in held] == [expected] * 2


def test_waiter_of_a_chart_that_is_put_away_is_told_so(waiting: Waiting, service: Service) -> None:
    claim_all(service, "m1")
    held = waiting("m2")
    operate.archive(service, "web", "over", ANN)
    with pytest.raises(ChartNotFoundError):
        held.result(PATIENCE)


def test_waiter_of_a_state_whose_slots_are_gone_is_told_so(waiting: Waiting, service: Service) -> None:
    claim_all(service, "m1")
    held = waiting("m2")
    import_text(service, FULL.replace("  slots: 1\n", "", 1))
    with pytest.raises(BadRequestError, match="no slots"):
        held.result(PATIENCE)


def test_waiter_is_told_no_when_the_server_stops(waiting: Waiting, service: Service) -> None:
    claim_all(service, "m1")
    held = waiting("m2")
    service.hub.close()
    assert reason(held) is Reason.FULL


def test_waiter_is_told_no_when_time_is_up(waiting: Waiting, service: Service) -> None:
    claim_all(service, "m1")
    started = time.monotonic()
    assert claim(service, "m2", wait=0.5).reason is Reason.FULL
    assert 0.4 < time.monotonic() - started < PATIENCE
    assert (waiters(service), kinds(service)) == ([], ["import", "claim"])


AT_ONCE = [
    pytest.param("nowhere", "m2", Reason.UNKNOWN_STATE, id="unknown state"),
    pytest.param("plain", "m2", Reason.NOT_CURRENT, id="a state without slots"),
    pytest.param("reboot", "m9", Reason.NOT_ON_ROSTER, id="not on the roster"),
]


@pytest.mark.parametrize(("state", "machine", "expected"), AT_ONCE)
def test_wait_is_answered_at_once_when_it_is_in_vain(
    waiting: Waiting, service: Service, state: str, machine: str, expected: Reason
) -> None:
    started = time.monotonic()
    assert claim(service, machine, state, wait=30).reason is expected
    assert time.monotonic() - started < PATIENCE


def test_wait_is_406_at_once_when_the_chart_has_ended(waiting: Waiting, service: Service, client: FlaskClient) -> None:
    client.post("/charts/web/goto", json={"reason": "why", "state": "done"})
    started = time.monotonic()
    assert client.put("/charts/web/slot?state=reboot&machine=m2&wait=30").status_code == 406
    assert time.monotonic() - started < PATIENCE


# Nobody is forgotten


def test_every_waiter_gets_its_turn(waiting: Waiting, service: Service) -> None:
    import_text(service, rolling("2", count="20"))
    claim_all(service, "a1", "a2")
    held = {f"m{number}": waiting(f"m{number}") for number in range(8)}
    put(service, "reboot", "a1")
    put(service, "reboot", "a2")
    while held:
        done = until(lambda: [name for name, one in held.items() if one.done()], f"one of {list(held)}")
        for name in done:
            assert held.pop(name).result().reason is Reason.UPDATED
            put(service, "reboot", name)
    assert is_sound(service)


def test_waiters_for_another_state_take_no_turns(waiting: Waiting, service: Service) -> None:
    claim(service, "m1")
    for_later = [waiting("m3", "restart"), waiting("m4", "restart")]
    held = waiting("m2")
    operate.evict(service, "web", "m1", "why", ANN)
    assert reason(held) is Reason.UPDATED
    assert not any(one.done() for one in for_later)


# Seen by others


def test_waiting_machine_is_seen_until_it_is_answered(waiting: Waiting, service: Service) -> None:
    claim_all(service, "m1")
    held = [waiting("m2"), waiting("m3")]
    until(lambda: service.hub.list_slot_waiters("web") == ["m2", "m3"], "both are seen")
    put(service, "reboot", "m1")
    until(lambda: any(one.done() for one in held), "one is let in")
    until(lambda: len(service.hub.list_slot_waiters("web")) == 1, "one is seen")
    operate.goto(service, "web", "done", "over", ANN)
    until(lambda: all(one.done() for one in held), "the other is told no")
    until(lambda: service.hub.list_slot_waiters("web") == [], "no machine is seen")
