"""FleetLock by its published text: what is asked, what is answered, in every condition a chart can be in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.core.errors import DatabaseUnavailableError
from app.service import operate, reading, tokens
from app.service import put as putting
from app.service.context import Service
from app.web import fleetlock
from app.wiring import service_of
from tests.service.support import ANN, NOBODY, Clock, import_text, kinds, put, rows
from tests.support import requests
from tests.support.apps import opened_app
from tests.support.databases import ON_ONE_DATABASE
from tests.support.slots import claim_all, is_sound, rolling

# The subject is HTTP; the tests of the service run on both databases.
pytestmark = ON_ONE_DATABASE


@pytest.fixture
def charts() -> Sequence[str]:
    return []


@pytest.fixture
def time_source() -> Clock:
    """The service's time stands still until a test advances it."""
    return Clock()


LOCK, UNLOCK = "/v1/pre-reboot", "/v1/steady-state"
HEADER = {"fleet-lock-protocol": "true"}
ENDPOINTS = pytest.mark.parametrize("path", [LOCK, UNLOCK])


@pytest.fixture(autouse=True)
def chart(service: Service) -> None:
    import_text(service, rolling("1", lease="100s", on_expire="fail", expect="[m1, m2, m3]", count="3"))


def body(machine: Any = "m1", group: Any = "web") -> dict[str, Any]:
    return {"client_params": {"id": machine, "group": group}}


def send(client: FlaskClient, path: str, machine: Any = "m1", group: Any = "web", **options: Any) -> TestResponse:
    return client.post(path, **{"data": json.dumps(body(machine, group)), "headers": HEADER, **options})


def error(response: TestResponse) -> tuple[int, str]:
    """The status and the kind; fails where the body is not the protocol's."""
    found = response.get_json()
    assert response.mimetype == "application/json"
    assert set(found) == {"kind", "value"}
    assert all(isinstance(text, str) and text for text in found.values())
    return response.status_code, found["kind"]


def holders(service: Service) -> list[str]:
    found = reading.get_status(service, "web").slots
    return [] if found is None else [slot.machine for slot in found.holders]


# Lock and unlock


def test_lock_takes_a_slot(client: FlaskClient, service: Service) -> None:
    response = send(client, LOCK)
    assert (response.status_code, response.get_json()) == (200, {})
    assert (holders(service), kinds(service)) == (["m1"], ["import", "claim"])


def test_lock_again_is_the_same_slot(client: FlaskClient, service: Service) -> None:
    for _ in range(3):
        assert send(client, LOCK).status_code == 200
    assert {row.value_after for row in rows(service, kind="claim")} == {1}


def test_lock_when_full_is_409(client: FlaskClient) -> None:
    send(client, LOCK)
    response = send(client, LOCK, "m2")
    assert error(response) == (409, "failed_lock")
    assert response.get_json()["value"] == "no slot of reboot for m2: full"


def test_unlock_reports_and_gives_the_slot_back(client: FlaskClient, service: Service) -> None:
    send(client, LOCK)
    response = send(client, UNLOCK)
    assert (response.status_code, response.get_json()) == (200, {})
    assert (holders(service), reading.get_status(service, "web").values["count"]) == ([], 1)
    assert is_sound(service)


def test_unlock_again_is_200_and_counts_once(client: FlaskClient, service: Service) -> None:
    send(client, LOCK)
    for _ in range(3):
        assert send(client, UNLOCK).status_code == 200
    assert kinds(service) == ["import", "claim", "update"]


def test_unlock_of_what_was_never_locked_is_200_and_counts_nothing(client: FlaskClient, service: Service) -> None:
    send(client, LOCK, "m2")
    assert send(client, UNLOCK).status_code == 200
    assert (holders(service), kinds(service)) == (["m2"], ["import", "claim"])


def test_second_reboot_in_a_visit_takes_and_gives_a_slot_and_counts_once(client: FlaskClient, service: Service) -> None:
    for _ in range(2):
        assert send(client, LOCK).status_code == 200
        assert send(client, UNLOCK).status_code == 200
    assert (kinds(service), is_sound(service)) == (["import", "claim", "update", "claim", "release"], True)


def test_slot_is_the_same_through_either_door(client: FlaskClient, service: Service) -> None:
    send(client, LOCK)
    assert client.put("/charts/web/slot?state=reboot&machine=m1").status_code == 200
    assert client.put("/charts/web/state?state=reboot&machine=m1").status_code == 200
    assert send(client, UNLOCK).status_code == 200
    assert holders(service) == []


@pytest.mark.parametrize("is_swept", [True, False], ids=["swept", "not yet swept"])
def test_unlock_after_the_lease_ran_out_takes_the_failure_back(
    client: FlaskClient, service: Service, clock: Clock, is_swept: bool
) -> None:
    send(client, LOCK)
    clock.advance(100)
    if is_swept:
        putting.sweep(service)
    for _ in range(2):
        assert send(client, UNLOCK).status_code == 200
    assert reading.get_status(service, "web").values == {"count": 1, "failed": 0}
    assert (kinds(service), is_sound(service)) == (["import", "claim", "expire", "update"], True)


def test_unlock_leaves_a_failure_that_the_machine_reported(client: FlaskClient, service: Service) -> None:
    send(client, LOCK)
    assert client.put("/charts/web/state?state=reboot&machine=m1&key=failed").status_code == 200
    assert send(client, UNLOCK).status_code == 200
    assert (reading.get_status(service, "web").values, is_sound(service)) == ({"count": 0, "failed": 1}, True)


def test_report_by_the_other_door_after_the_lease_ran_out_still_needs_a_slot(
    client: FlaskClient, service: Service, clock: Clock
) -> None:
    send(client, LOCK)
    clock.advance(100)
    assert client.put("/charts/web/state?state=reboot&machine=m1").status_code == 406


# Where the chart stands


def test_lock_follows_the_current_state(client: FlaskClient, service: Service) -> None:
    operate.goto(service, "web", "restart", "on", ANN)
    assert send(client, LOCK).status_code == 200
    assert rows(service)[-1].from_state == "restart"


def test_lock_claims_of_the_state_that_the_clock_has_just_entered(
    client: FlaskClient, service: Service, clock: Clock
) -> None:
    import_text(service, rolling("1", deadline="60s"))
    clock.advance(60)
    assert send(client, LOCK).status_code == 200
    assert [row.kind for row in rows(service)[-2:]] == ["timeout", "claim"]
    assert rows(service)[-1].from_state == "restart"


@pytest.mark.parametrize("state", ["plain", "done"])
def test_state_without_slots_locks_nobody_and_unlocks_everybody(
    client: FlaskClient, service: Service, state: str
) -> None:
    send(client, LOCK)
    operate.goto(service, "web", state, "on", ANN)
    response = send(client, LOCK)
    assert error(response) == (409, "refused")
    assert response.get_json()["value"] == f"state {state!r} has no slots"
    assert send(client, UNLOCK).status_code == 200


def test_paused_chart_locks_nobody(client: FlaskClient, service: Service) -> None:
    operate.pause(service, "web", "look", ANN)
    assert error(send(client, LOCK)) == (409, "failed_lock")
    assert send(client, UNLOCK).status_code == 200


def test_paused_chart_counts_the_machine_that_unlocks(client: FlaskClient, service: Service) -> None:
    send(client, LOCK)
    operate.pause(service, "web", "look", ANN)
    assert send(client, UNLOCK).status_code == 200
    assert (holders(service), kinds(service)[-1], is_sound(service)) == ([], "update", True)


def test_machine_that_is_not_on_the_roster_gets_no_slot(client: FlaskClient) -> None:
    assert error(send(client, LOCK, "m9")) == (409, "failed_lock")
    assert send(client, UNLOCK, "m9").status_code == 200


LOST: dict[str, Any] = {
    "its visit": lambda service: operate.goto(service, "web", "restart", "on", ANN),
    "its run": lambda service: operate.reset(service, "web", "again", ANN),
    "its slot": lambda service: requests.release(service, "web", "reboot", "m1", NOBODY),
    "the chart's run": lambda service: operate.goto(service, "web", "done", "on", ANN),
}


@pytest.mark.parametrize("lost", LOST)
def test_unlock_is_200_when_the_slot_is_lost_meanwhile(
    client: FlaskClient, service: Service, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    claim_all(service, "m1")
    real = putting.apply_one

    def losing(*arguments: Any) -> Any:
        LOST[lost](service)
        return real(*arguments)

    monkeypatch.setattr(putting, "apply_one", losing)
    assert send(client, UNLOCK).status_code == 200


# What is not the protocol


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "a/b", None]
)
@ENDPOINTS
def test_body_is_read_whatever_its_content_type(client: FlaskClient, path: str, kind: str | None) -> None:
    assert send(client, path, content_type=kind).status_code == 200


@pytest.mark.parametrize("sent", [{}, {"fleet-lock-protocol": "false"}, {"fleet-lock-protocol": ""}])
@ENDPOINTS
def test_header_is_required(client: FlaskClient, service: Service, path: str, sent: dict[str, str]) -> None:
    assert error(send(client, path, headers=sent)) == (400, "bad_request")
    assert kinds(service) == ["import"]


BAD_BODIES = {
    "nothing": b"",
    "no JSON": b"id=m1",
    "no object": b"[]",
    "no client_params": b"{}",
    "client_params is a text": b'{"client_params": "m1"}',
    "no id": b'{"client_params": {"group": "web"}}',
    "no group": b'{"client_params": {"id": "m1"}}',
    "id is a number": json.dumps(body(1)).encode(),
    "id is empty": json.dumps(body("")).encode(),
    "id is too long": json.dumps(body("m" * 256)).encode(),
    "id has a line break": json.dumps(body("m\n1")).encode(),
    "id has half a character": b'{"client_params": {"id": "\\ud800", "group": "web"}}',
    "group is null": json.dumps(body("m1", None)).encode(),
    "group is empty": json.dumps(body("m1", "")).encode(),
    "group has a slash": json.dumps(body("m1", "a/b")).encode(),
    "group has an underscore": json.dumps(body("m1", "a_b")).encode(),
    "group has a line break": json.dumps(body("m1", "web\n")).encode(),
    "group is too long": json.dumps(body("m1", "g" * 129)).encode(),
    "deep": b"[" * 30000,
    "long": json.dumps(body() | {"x": "y" * 70000}).encode(),
    "too long": json.dumps(body() | {"x": "y" * 2_000_000}).encode(),
    "no UTF-8": b'{"client_params": {"id": "\xff", "group": "web"}}',
}


@pytest.mark.parametrize("bad", BAD_BODIES)
@ENDPOINTS
def test_body_that_is_not_the_protocol_is_refused(client: FlaskClient, path: str, bad: str) -> None:
    status, kind = error(send(client, path, data=BAD_BODIES[bad]))
    assert (status, kind) == (413 if bad == "too long" else 400, "bad_request")


@ENDPOINTS
def test_more_than_the_protocol_says_is_let_pass(client: FlaskClient, path: str) -> None:
    sent = {"client_params": {"id": "m1", "group": "web", "node": "x"}, "more": [1]}
    assert send(client, path, data=json.dumps(sent)).status_code == 200


@pytest.mark.parametrize("group", ["default", "WEB", "a.b-C9"])
@ENDPOINTS
def test_unknown_group_is_404(client: FlaskClient, path: str, group: str) -> None:
    response = send(client, path, group=group)
    assert error(response) == (404, "unknown_group")
    assert group in response.get_json()["value"]


@ENDPOINTS
def test_group_that_was_put_away_is_404(client: FlaskClient, service: Service, path: str) -> None:
    operate.archive(service, "web", "over", ANN)
    assert error(send(client, path)) == (404, "unknown_group")


@ENDPOINTS
def test_other_methods_are_405(client: FlaskClient, path: str) -> None:
    assert [client.open(path, method=method).status_code for method in ("GET", "PUT", "OPTIONS")] == [405] * 3


@ENDPOINTS
def test_database_that_is_away_is_503(client: FlaskClient, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    def fail(*_: object) -> None:
        raise DatabaseUnavailableError("the database is away", "not_applied")

    monkeypatch.setattr(fleetlock, "apply_one", fail)
    monkeypatch.setattr(fleetlock, "report_if_held", fail)
    response = send(client, path)
    assert error(response) == (503, "unavailable")
    assert response.headers["Retry-After"] == "1"


# With tokens


@pytest.fixture
def guarded(database_url: str) -> Iterator[Flask]:
    for app in opened_app(database_url, auth="tokens"):
        service_of(app).database.clock = Clock()
        yield app


def token(app: Flask, role: str, pattern: str) -> dict[str, str]:
    secret = tokens.create_token(service_of(app), role, tokens.read_role(role), pattern, ANN)
    return {**HEADER, "Authorization": f"Bearer {secret}"}


@ENDPOINTS
def test_token_is_required(guarded: Flask, path: str) -> None:
    response = send(guarded.test_client(), path)
    assert error(response) == (401, "unauthorized")
    assert "WWW-Authenticate" in response.headers


@ENDPOINTS
def test_token_of_a_machine_is_enough(guarded: Flask, path: str) -> None:
    assert send(guarded.test_client(), path, headers=token(guarded, "machine", "w*")).status_code == 200


def test_lock_is_logged_with_the_token_that_took_it(guarded: Flask) -> None:
    send(guarded.test_client(), LOCK, headers=token(guarded, "machine", "web"))
    assert rows(service_of(guarded))[-1].actor == "machine"


@ENDPOINTS
def test_token_sent_as_curl_sends_a_password_is_enough(guarded: Flask, path: str) -> None:
    secret = token(guarded, "machine", "web")["Authorization"].removeprefix("Bearer ")
    response = send(guarded.test_client(), path, headers=HEADER, auth=("zincati", secret))
    assert response.status_code == 200


@pytest.mark.parametrize(("role", "pattern"), [("reader", "*"), ("machine", "db-*")])
@ENDPOINTS
def test_token_outside_its_role_or_pattern_is_403(guarded: Flask, path: str, role: str, pattern: str) -> None:
    client = guarded.test_client()
    headers = token(guarded, role, pattern)
    assert error(send(client, path, headers=headers)) == (403, "forbidden")
    assert error(send(client, path, group="nowhere", headers=headers)) == (403, "forbidden")


def test_slot_of_a_report_that_others_made_is_gone(client: FlaskClient, service: Service) -> None:
    send(client, LOCK)
    put(service, "reboot", "m1", key="failed")
    assert send(client, UNLOCK).status_code == 200
    assert reading.get_status(service, "web").values == {"count": 0, "failed": 1}
