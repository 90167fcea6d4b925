"""Statuses, bodies and headers of `/charts/C/slot` and `/charts/C/evict`; `tests/core/test_slots.py` has every case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.service.context import Service
from tests.service.support import Clock, kinds, rows
from tests.support.apps import import_text
from tests.support.databases import ON_ONE_DATABASE
from tests.support.slots import is_sound, rolling

# The subject is HTTP; the tests of the service run on both databases.
pytestmark = ON_ONE_DATABASE


@pytest.fixture
def charts() -> Sequence[str]:
    return []


@pytest.fixture
def time_source() -> Clock:
    """The service's time stands still until a test advances it."""
    return Clock()


JSON = {"Accept": "application/json"}
SLOT = "/charts/web/slot?state=reboot"
STATE = "/charts/web/state?state=reboot"


@pytest.fixture(autouse=True)
def chart(app: Flask) -> None:
    import_text(app, rolling(lease="100s", expect="[m1, m2, m3, m4]", count="4"))


def claim(client: FlaskClient, machine: str, **options: Any) -> TestResponse:
    return client.put(f"{SLOT}&machine={machine}", **options)


def claim_json(client: FlaskClient, machine: str) -> dict[str, Any]:
    found: dict[str, Any] = claim(client, machine, headers=JSON).get_json()
    return found


def report(client: FlaskClient, machine: str, key: str = "count", **options: Any) -> TestResponse:
    return client.put(f"{STATE}&machine={machine}&key={key}", **options)


def act(client: FlaskClient, verb: str, **fields: str) -> TestResponse:
    return client.post(f"/charts/web/{verb}", json={"reason": "test", **fields})


def test_claim_is_200_and_the_state(client: FlaskClient) -> None:
    response = claim(client, "m1")
    assert (response.status_code, response.text) == (200, "reboot")


def test_claim_when_full_is_406_and_empty(client: FlaskClient) -> None:
    claim(client, "m1")
    claim(client, "m2")
    response = claim(client, "m3")
    assert (response.status_code, response.text) == (406, "")


def test_claim_says_slots_held_and_fence(client: FlaskClient) -> None:
    claim(client, "m1")
    assert claim_json(client, "m2") == {
        "chart": "web",
        "run": 1,
        "visit": 1,
        "seq": 3,
        "state": "reboot",
        "current_state": "reboot",
        "answer": "yes",
        "reason": "updated",
        "key": None,
        "value": None,
        "replay": False,
        "slots": 2,
        "held": 2,
        "fence": 2,
    }


def test_claim_when_full_says_so(client: FlaskClient) -> None:
    claim(client, "m1")
    claim(client, "m2")
    found = claim_json(client, "m3")
    assert (found["answer"], found["reason"], found["slots"], found["held"], found["fence"]) == (
        "no",
        "full",
        2,
        2,
        None,
    )
    assert found["seq"] == 3


def test_claim_again_is_the_same_slot_with_its_lease_renewed(client: FlaskClient, clock: Clock) -> None:
    first = claim_json(client, "m1")
    clock.advance(60)
    second = claim_json(client, "m1")
    assert (second["answer"], second["reason"], second["replay"]) == ("yes", "replay", True)
    assert (second["fence"], second["held"]) == (first["fence"], 1)
    (holder,) = client.get("/charts/web", headers=JSON).get_json()["slots"]["holders"]
    assert (holder["claimed_at"], holder["renewed_at"], holder["expires_at"]) == (
        "2026-01-31T12:00:00.000000Z",
        "2026-01-31T12:01:00.000000Z",
        "2026-01-31T12:02:40.000000Z",
    )


def test_claim_by_header_is_a_claim_by_parameter(client: FlaskClient) -> None:
    assert client.put(SLOT, headers={"X-Machine": "m1", **JSON}).get_json()["fence"] == 1
    assert claim_json(client, "m1")["replay"] is True


REFUSED = [
    pytest.param("state=nowhere&machine=m1", "unknown_state", id="unknown state"),
    pytest.param("state=restart&machine=m1", "not_current", id="another state with slots"),
    pytest.param("state=plain&machine=m1", "not_current", id="another state without slots"),
    pytest.param("state=done&machine=m1", "not_current", id="a final state"),
    pytest.param("state=reboot&machine=m9", "not_on_roster", id="not on the roster"),
]


@pytest.mark.parametrize(("query", "reason"), REFUSED)
def test_claim_is_406(client: FlaskClient, query: str, reason: str) -> None:
    response = client.put(f"/charts/web/slot?{query}", headers=JSON)
    assert (response.status_code, response.get_json()["reason"]) == (406, reason)


def test_claim_while_paused_is_406(client: FlaskClient) -> None:
    act(client, "pause")
    response = claim(client, "m1", headers=JSON)
    assert (response.status_code, response.get_json()["reason"]) == (406, "paused")


ERRORS = [
    pytest.param("PUT", "/charts/web/slot?state=reboot", 400, "machine", id="claim without machine"),
    pytest.param("PUT", "/charts/web/slot?machine=m1", 400, "state", id="claim without state"),
    pytest.param("PUT", "/charts/web/slot?state=reboot&machine=", 400, "machine", id="empty machine"),
    pytest.param("PUT", "/charts/web/slot?state=reboot&state=done&machine=m1", 400, "state", id="two states"),
    pytest.param("PUT", "/charts/web/slot?state=reboot&machine=m1&machine=m2", 400, "machine", id="two machines"),
    pytest.param("PUT", "/charts/web/slot?state=reboot&machine=m1&wait=56", 400, "wait", id="too long a wait"),
    pytest.param("PUT", "/charts/web/slot?state=reboot&machine=m1&wait=x", 400, "wait", id="no number"),
    pytest.param("PUT", f"/charts/web/slot?state=reboot&machine={'m' * 256}", 400, "machine", id="long machine"),
    pytest.param("PUT", "/charts/none/slot?state=reboot&machine=m1", 404, "none", id="claim, no chart"),
    pytest.param("DELETE", "/charts/web/slot?state=reboot", 400, "machine", id="give back without machine"),
    pytest.param("DELETE", "/charts/web/slot?machine=m1", 400, "state", id="give back without state"),
    pytest.param("DELETE", "/charts/none/slot?state=reboot&machine=m1", 404, "none", id="give back, no chart"),
    pytest.param("GET", "/charts/web/slot?state=reboot&machine=m1", 405, "GET", id="get"),
    pytest.param("POST", "/charts/web/slot?state=reboot&machine=m1", 405, "POST", id="post"),
]


@pytest.mark.parametrize(("method", "path", "status", "culprit"), ERRORS)
def test_slot_error_names_the_culprit(client: FlaskClient, method: str, path: str, status: int, culprit: str) -> None:
    response = client.open(path, method=method)
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")
    assert culprit in response.get_json()["detail"]


@pytest.mark.parametrize("state", ["plain", "done"])
def test_claim_on_a_current_state_without_slots_is_400(client: FlaskClient, state: str) -> None:
    act(client, "goto", state=state)
    response = client.put(f"/charts/web/slot?state={state}&machine=m1")
    assert (response.status_code, response.get_json()["detail"]) == (400, f"state {state!r} has no slots")


# A machine gives its slot back


def test_give_back_is_200_and_counts_nothing(client: FlaskClient, service: Service) -> None:
    claim(client, "m1")
    response = client.delete(f"{SLOT}&machine=m1", headers=JSON)
    assert response.status_code == 200
    found = response.get_json()
    assert (found["reason"], found["held"], found["fence"]) == ("updated", 0, None)
    assert client.get("/charts/web", headers=JSON).get_json()["values"] == {"count": 0, "failed": 0}
    assert (kinds(service), is_sound(service)) == (["import", "claim", "release"], True)


@pytest.mark.parametrize("query", ["state=reboot&machine=m2", "state=done&machine=m1", "state=nowhere&machine=m1"])
def test_give_back_what_is_not_held_is_200_and_writes_nothing(
    client: FlaskClient, service: Service, query: str
) -> None:
    claim(client, "m1")
    response = client.delete(f"/charts/web/slot?{query}")
    assert (response.status_code, kinds(service)) == (200, ["import", "claim"])


# A machine reports


def test_report_without_a_slot_is_406(client: FlaskClient, service: Service) -> None:
    claim(client, "m2")
    response = report(client, "m1", headers=JSON)
    assert (response.status_code, response.get_json()["reason"]) == (406, "no_slot")
    assert kinds(service) == ["import", "claim"]


def test_report_without_a_machine_is_400_because_the_chart_has_a_roster(client: FlaskClient) -> None:
    claim(client, "m1")
    assert client.put(STATE, headers=JSON).status_code == 400


@pytest.mark.parametrize("key", ["count", "failed"])
def test_report_counts_and_gives_the_slot_back_in_one_row(client: FlaskClient, service: Service, key: str) -> None:
    claim(client, "m1")
    response = report(client, "m1", key)
    assert (response.status_code, response.text) == (200, "reboot")
    status = client.get("/charts/web", headers=JSON).get_json()
    assert (status["values"][key], status["slots"]["held"]) == (1, 0)
    assert (kinds(service), is_sound(service)) == (["import", "claim", "update"], True)


def test_report_repeated_by_its_key_after_claiming_again_gives_the_slot_back(
    client: FlaskClient, service: Service
) -> None:
    headers = {"Idempotency-Key": "m1-reboot", **JSON}
    claim(client, "m1")
    assert report(client, "m1", headers=headers).get_json()["reason"] == "updated"
    assert claim_json(client, "m1")["reason"] == "done"
    client.put(f"{SLOT}&machine=m1&again=1")
    assert report(client, "m1", headers=headers).get_json()["reason"] == "replay"
    assert (kinds(service), is_sound(service)) == (["import", "claim", "update", "claim", "release"], True)


# An operator evicts a machine


def test_evict_takes_the_slot_and_the_log_says_why(client: FlaskClient, service: Service) -> None:
    claim(client, "m1")
    response = client.post("/charts/web/evict", json={"machine": "m1", "reason": "burnt down"})
    assert (response.status_code, response.get_json()["slots"]["held"]) == (200, 0)
    row = rows(service)[-1]
    assert (row.kind, row.machine, row.value_before, row.reason) == ("evict", "m1", 1, "burnt down")
    assert is_sound(service)


EVICTIONS = [
    pytest.param({"machine": "m2", "reason": "why"}, 409, "m2", id="holds none"),
    pytest.param({"reason": "why"}, 400, "machine", id="no machine"),
    pytest.param({"machine": "m1"}, 422, "reason", id="no reason"),
    pytest.param({"machine": "m1", "reason": " "}, 422, "reason", id="blank reason"),
    pytest.param({"machine": 1, "reason": "why"}, 400, "machine", id="machine is a number"),
]


@pytest.mark.parametrize(("body", "status", "culprit"), EVICTIONS)
def test_evict_error_names_the_culprit(client: FlaskClient, body: Any, status: int, culprit: str) -> None:
    claim(client, "m1")
    response = client.post("/charts/web/evict", json=body)
    assert (response.status_code, culprit in response.get_json()["detail"]) == (status, True)
    assert client.get("/charts/web", headers=JSON).get_json()["slots"]["held"] == 1


# A client that searches the headers for a status finds none


@pytest.mark.parametrize("accept", ["text/plain", "application/json"])
def test_no_header_holds_the_digits_of_a_status(client: FlaskClient, accept: str) -> None:
    for machine in ("m1", "m2", "m3"):
        headers = claim(client, machine, headers={"Accept": accept}).headers
        assert not any(digits in str(value) for value in headers.values() for digits in ("200", "406", "500"))
