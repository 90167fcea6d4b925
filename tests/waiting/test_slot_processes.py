"""Slots and more than one process: who waits in one hears of what another one does, and is seen there."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from tests.support.http import Reply
from tests.support.processes import PATIENCE, until
from tests.support.servers import JSON, Server, chart_path, running, wait_for_listeners
from tests.support.slots import rolling

# The promise is a second from the commit; the rest is for a busy machine.

Pair = tuple[Server, Server]
numbers = itertools.count()
ONE_SLOT = rolling("1", expect="[m1, m2, m3]", count="3")


@pytest.fixture(scope="module")
def pair(shared_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two servers of one worker each on one database."""
    folder = tmp_path_factory.mktemp("pair")
    with running(shared_url, folder, workers="1") as one, running(shared_url, folder, workers="1") as other:
        wait_for_listeners(one, 2)
        yield one, other


@pytest.fixture
def chart() -> str:
    """The name of a chart of the test's own."""
    return f"web-{next(numbers)}"


def slot(server: Server, chart: str, machine: str, method: str = "PUT", **more: str) -> Reply:
    path = chart_path(chart, "slot", state="reboot", machine=machine, **more)
    return server.ask(method, path, **JSON)


def wait(server: Server, chart: str, machine: str) -> Future[Reply]:
    """Begin to wait for a slot, and return once the server holds the request."""
    before = server.waiters()
    held = server.callers.submit(slot, server, chart, machine, wait="30")
    until(lambda: server.waiters() > before or held.done(), f"{machine} waits")
    return held


def kinds(server: Server, chart: str) -> list[str]:
    text = server.ask("GET", chart_path(chart, "history", format="ndjson")).body
    return [json.loads(line)["kind"] for line in text.splitlines()]


def are_seen(server: Server, chart: str, machines: list[str]) -> bool:
    """True where the chart's status says that `machines` wait, and no other."""
    return sorted(server.status(chart)["slots"]["waiting"]) == machines


Release = Callable[[Server, str], object]
RELEASES: dict[str, Release] = {
    "report": lambda server, chart: server.put(chart, "reboot", machine="m1"),
    "release": lambda server, chart: slot(server, chart, "m1", "DELETE"),
    "eviction": lambda server, chart: server.act(chart, "evict", machine="m1"),
    "upgrade": lambda server, chart: server.import_chart(chart, ONE_SLOT.replace("slots: 1", "slots: 2", 1)),
    "reset": lambda server, chart: server.act(chart, "reset"),
}


@pytest.mark.parametrize("release", RELEASES)
def test_waiter_hears_of_what_another_process_does(pair: Pair, chart: str, release: str) -> None:
    one, other = pair
    one.import_chart(chart, ONE_SLOT)
    assert slot(one, chart, "m1").json()["fence"] == 1
    held = wait(one, chart, "m2")
    RELEASES[release](other, chart)
    reply = held.result(PATIENCE)
    assert (reply.status, reply.json()["fence"]) == (200, 2)


def test_waiter_gets_the_slot_whose_lease_ends_and_nobody_touches_the_chart(pair: Pair, chart: str) -> None:
    one, other = pair
    one.import_chart(chart, rolling("1", lease="1s", on_expire="free"))
    slot(other, chart, "m1")
    reply = wait(one, chart, "m2").result(PATIENCE)
    assert (reply.status, reply.json()["fence"]) == (200, 2)
    assert kinds(one, chart) == ["import", "claim", "expire", "claim"]


@pytest.mark.parametrize(("verb", "state"), [("goto", "done")])
def test_waiter_is_told_no_when_another_process_ends_its_hope(pair: Pair, chart: str, verb: str, state: str) -> None:
    one, other = pair
    one.import_chart(chart, ONE_SLOT)
    slot(one, chart, "m1")
    held = wait(one, chart, "m2")
    other.act(chart, verb, state=state)
    assert held.result(PATIENCE).status == 406


def test_every_waiter_of_two_processes_gets_its_turn(pair: Pair, chart: str) -> None:
    one, other = pair
    one.import_chart(chart, rolling("1", count="9"))
    slot(one, chart, "first")
    held = {f"m{number}": wait(pair[number % 2], chart, f"m{number}") for number in range(6)}
    one.put(chart, "reboot", machine="first")
    while held:
        done = until(lambda: [name for name, one in held.items() if one.done()], f"one of {list(held)}")
        for name in done:
            assert held.pop(name).result().status == 200
            other.put(chart, "reboot", machine=name)


def test_one_machine_that_claims_everywhere_at_once_holds_one_slot(pair: Pair, chart: str) -> None:
    pair[0].import_chart(chart, rolling("3"))
    held = [server.callers.submit(slot, server, chart, "m1") for server in pair * 8]
    assert {one.result().json()["fence"] for one in held} == {1}
    assert kinds(pair[0], chart) == ["import", "claim"]


def test_machines_that_claim_at_once_get_as_many_slots_as_there_are(pair: Pair, chart: str) -> None:
    pair[0].import_chart(chart, rolling("7", count="99"))
    held = [
        server.callers.submit(slot, server, chart, f"m{number}-{at}")
        for at, server in enumerate(pair)
        for number in range(20)
    ]
    found = [one.result() for one in held]
    assert sorted(one.status for one in found) == [200] * 7 + [406] * 33
    assert sorted(one.json()["fence"] for one in found if one.status == 200) == list(range(1, 8))
    pair[0].verify()  # every chart that the tests above left behind, too


# The last one here: it stops a server that the others share.


def test_waiters_of_a_server_that_stops_leave_its_list(pair: Pair, chart: str) -> None:
    one, other = pair
    one.import_chart(chart, ONE_SLOT)
    slot(one, chart, "m1")
    held = [wait(one, chart, "m2"), wait(other, chart, "m3")]
    assert one.send(signal.SIGTERM)
    assert held[0].result(PATIENCE).status == 406
    slot(other, chart, "m1", "DELETE")
    assert held[1].result(PATIENCE).status == 200
