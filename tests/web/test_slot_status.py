"""Who holds a slot, since when, with which fence, and who waits: on every page that says where a chart stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest
from flask.testing import FlaskClient

from app.service import operate, reading
from app.service import put as putting
from app.service.context import Service
from app.waiting.hub import Topic
from tests.service.support import ANN, Clock, import_text, put
from tests.support.slots import claim_all, rolling


@pytest.fixture
def charts() -> Sequence[str]:
    return []


@pytest.fixture
def time_source() -> Clock:
    """The service's time stands still until a test advances it."""
    return Clock()


TEXT = {"Accept": "text/plain"}
JSON = {"Accept": "application/json"}


WaitFor = Callable[..., None]


@pytest.fixture
def wait_for(service: Service) -> Iterator[WaitFor]:
    """Have machines wait for a slot of `web`, in the order given, until the test ends."""
    with asyncio.Runner() as runner, ExitStack() as stack:

        async def enter(machine: str) -> None:
            stack.enter_context(service.hub.waiting(Topic("web", rows=True), machine))

        def enter_all(*machines: str) -> None:
            for machine in machines:
                runner.run(enter(machine))

        yield enter_all


def line(client: FlaskClient) -> str:
    text = client.get("/charts/web", headers=TEXT).text
    (found,) = [line for line in text.splitlines() if line.startswith("slots:")]
    return found


def test_text_names_holders_their_age_and_fence(client: FlaskClient, service: Service, clock: Clock) -> None:
    import_text(service, rolling("3"))
    claim_all(service, "m1")
    clock.advance(150)
    claim_all(service, "m2")
    assert line(client) == "slots: 2 of 3 held: m1 (2 min 30 s, fence 1), m2 (0 s, fence 2)"


def test_text_without_a_holder(client: FlaskClient, service: Service) -> None:
    import_text(service, rolling("3"))
    assert line(client) == "slots: 0 of 3 held"


def test_text_names_who_waits(client: FlaskClient, service: Service, wait_for: WaitFor) -> None:
    import_text(service, rolling("1"))
    claim_all(service, "m1")
    wait_for("m3", "m2")
    assert line(client) == "slots: 1 of 1 held: m1 (0 s, fence 1); 2 waiting: m3, m2"


def test_text_counts_what_is_too_much_to_name(client: FlaskClient, service: Service, wait_for: WaitFor) -> None:
    import_text(service, rolling("12", count="20"))
    claim_all(service, *(f"m{number:02}" for number in range(12)))
    wait_for(*(f"w{number:02}" for number in range(11)))
    assert "m09 (0 s, fence 10) and 2 more; 11 waiting: w00," in line(client)
    assert line(client).endswith("w09 and 1 more")


def test_text_is_loud_about_a_lease_that_ran_out(client: FlaskClient, service: Service, clock: Clock) -> None:
    import_text(service, rolling("12", lease="100s", count="20"))
    claim_all(service, *(f"m{number:02}" for number in range(11)))
    clock.advance(50)
    for number in range(10):
        put(service, "reboot", f"m{number:02}")
    claim_all(service, *(f"n{number:02}" for number in range(10)))
    clock.advance(50)
    putting.sweep(service)
    clock.advance(7)
    assert line(client).startswith("slots: 11 of 12 held: m10 (LEASE RAN OUT 7 s ago, fence 11), n00 (57 s, fence 12),")
    last = client.get("/charts/web", headers=TEXT).text.splitlines()[-1]
    assert last.startswith("waits for m10 (LEASE RAN OUT 7 s ago, slot still held); ")


def test_renewal_ends_the_noise(client: FlaskClient, service: Service, clock: Clock) -> None:
    import_text(service, rolling(lease="100s"))
    claim_all(service, "m1")
    clock.advance(100)
    putting.sweep(service)
    assert "LEASE RAN OUT" in client.get("/charts/web", headers=TEXT).text
    client.put("/charts/web/slot?state=reboot&machine=m1")
    assert "LEASE RAN OUT" not in client.get("/charts/web", headers=TEXT).text


def test_json_has_holders_and_who_waits(client: FlaskClient, service: Service, clock: Clock, wait_for: WaitFor) -> None:
    import_text(service, rolling("[1, 2]", lease="100s"))
    claim_all(service, "m1")
    clock.advance(20)
    wait_for("m2")
    assert client.get("/charts/web", headers=JSON).get_json()["slots"] == {
        "slots": 1,
        "held": 1,
        "holders": [
            {
                "machine": "m1",
                "fence": 1,
                "claimed_at": "2026-01-31T12:00:00.000000Z",
                "renewed_at": "2026-01-31T12:00:00.000000Z",
                "expires_at": "2026-01-31T12:01:40.000000Z",
                "expired_at": None,
                "age": 20,
            }
        ],
        "waiting": ["m2"],
    }


def test_json_of_a_state_without_slots_is_null(client: FlaskClient, service: Service, wait_for: WaitFor) -> None:
    import_text(service, rolling())
    wait_for("m2")
    operate.goto(service, "web", "plain", "on", ANN)
    assert client.get("/charts/web", headers=JSON).get_json()["slots"] is None


def test_machine_that_got_its_slot_is_not_waiting(client: FlaskClient, service: Service, wait_for: WaitFor) -> None:
    import_text(service, rolling("1"))
    claim_all(service, "m1")
    wait_for("m1", "m3")
    assert client.get("/charts/web", headers=JSON).get_json()["slots"]["waiting"] == ["m3"]


def test_machine_that_waits_in_two_requests_is_named_once(
    client: FlaskClient, service: Service, wait_for: WaitFor
) -> None:
    import_text(service, rolling("1"))
    claim_all(service, "m1")
    wait_for("m2", "m3", "m2")
    assert client.get("/charts/web", headers=JSON).get_json()["slots"]["waiting"] == ["m2", "m3"]


def test_list_says_the_same_as_each_chart(
    client: FlaskClient, service: Service, clock: Clock, wait_for: WaitFor
) -> None:
    import_text(service, rolling("[1, 5]", lease="100s"))
    import_text(service, rolling("2"), name="other")
    claim_all(service, "m1")
    put(service, "reboot", "m1")
    claim_all(service, "m2", "m3")
    clock.advance(100)
    putting.sweep(service)
    wait_for("m4")
    (other, web) = client.get("/charts").get_json()
    assert (web["slots"]["slots"], web["slots"]["held"], web["slots"]["waiting"]) == (5, 2, ["m4"])
    assert (other["slots"]["slots"], other["slots"]["held"], other["slots"]["waiting"]) == (2, 0, [])
    for listed in (other, web):
        assert listed == client.get(f"/charts/{listed['chart']}", headers=JSON).get_json()
    assert "LEASE RAN OUT" in web["waits_for"]


@pytest.mark.parametrize("verb", ["evict", "pause"])
def test_answer_to_an_act_says_who_waits(client: FlaskClient, service: Service, wait_for: WaitFor, verb: str) -> None:
    import_text(service, rolling("1"))
    claim_all(service, "m1")
    wait_for("m2")
    found = client.post(f"/charts/web/{verb}", json={"reason": "why", "machine": "m1"}).get_json()
    assert found["slots"]["waiting"] == ["m2"]
    assert found["slots"] == reading.get_status(service, "web").as_json()["slots"]
