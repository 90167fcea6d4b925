"""Who says it (`machine`, X-Machine), about what (`key`), and which repeat it is (Idempotency-Key)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.apps import import_text

PATH = "/charts/pair/state?state=work"
JSON = {"Accept": "application/json"}
PAIR = """
chart: pair
current_state: work
states:
  - name: work
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: stop, when: {key: failed, value: 5}}
      - {name: stop, when: {key: count, value: 5}}
  - name: stop
"""


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    import_text(app, PAIR)
    return app.test_client()


def values(client: FlaskClient) -> dict[str, int]:
    found: dict[str, int] = client.get("/charts/pair").get_json()["values"]
    return found


def put(client: FlaskClient, more: str = "", **headers: str) -> dict[str, Any]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    response = client.put(PATH + more, headers=JSON | sent)
    answer: dict[str, Any] = response.get_json()
    return answer | {"status": response.status_code}


def test_machine_counts_once_in_a_visit(client: FlaskClient) -> None:
    reasons = [put(client, "&machine=web-01")["reason"] for _ in range(3)]
    assert reasons == ["updated", "replay", "replay"]
    assert values(client) == {"count": 1, "failed": 0}


def test_anonymous_puts_count_each_time(client: FlaskClient) -> None:
    reasons = [put(client)["reason"] for _ in range(3)]
    assert reasons == ["updated"] * 3
    assert values(client)["count"] == 3


def test_header_and_parameter_name_the_same_machine(client: FlaskClient) -> None:
    assert put(client, "&machine=web-01")["reason"] == "updated"
    assert put(client, X_Machine="web-01")["reason"] == "replay"


def test_parameter_wins_over_the_header(client: FlaskClient) -> None:
    put(client, "&machine=web-01", X_Machine="web-02")
    assert put(client, "&machine=web-01")["reason"] == "replay"
    assert put(client, X_Machine="web-02")["reason"] == "updated"


def test_parameter_wins_over_a_header_that_is_no_text(client: FlaskClient) -> None:
    environ = {"HTTP_X_MACHINE": "\xff"}
    assert client.put(PATH + "&machine=web-01", environ_overrides=environ).status_code == 200


def test_header_is_utf8(client: FlaskClient) -> None:
    name = "büro-€-01"
    # A server hands the header's bytes over as Latin-1.
    environ = {"HTTP_X_MACHINE": name.encode().decode("latin-1")}
    assert client.put(PATH, environ_overrides=environ).status_code == 200
    assert put(client, f"&machine={quote(name)}")["reason"] == "replay"


@pytest.mark.parametrize("machine", ["m", "m" * 255, "a b", "a:b/c?d&e=f%25", "200", "日本語", "'; DROP TABLE x;--"])
def test_machine_may_be_any_printable_text(client: FlaskClient, machine: str) -> None:
    more = f"&machine={quote(machine, safe='')}"
    assert [put(client, more)["reason"] for _ in range(2)] == ["updated", "replay"]


def test_key_names_the_attribute(client: FlaskClient) -> None:
    answer = put(client, "&machine=web-01&key=failed")
    assert (answer["key"], answer["value"]) == ("failed", 1)
    assert values(client) == {"count": 0, "failed": 1}


def test_report_moves_to_another_key(client: FlaskClient) -> None:
    put(client, "&machine=web-01")
    assert put(client, "&machine=web-01&key=failed")["reason"] == "updated"
    assert values(client) == {"count": 0, "failed": 1}


def test_get_takes_a_machine_and_ignores_a_key(client: FlaskClient) -> None:
    assert client.get(PATH + "&machine=web-01&key=nothing").data == b"work"


# Idempotency-Key


def test_key_repeats_the_answer_without_doing_it_again(client: FlaskClient) -> None:
    first = put(client, Idempotency_Key="k1")
    again = put(client, Idempotency_Key="k1")
    assert (first["reason"], again["reason"], again["replay"]) == ("updated", "replay", True)
    assert values(client)["count"] == 1


def test_another_key_counts_again(client: FlaskClient) -> None:
    put(client, Idempotency_Key="k1")
    assert put(client, Idempotency_Key="k2")["reason"] == "updated"


@pytest.mark.parametrize("name", ["Idempotency-Key", "idempotency_key"])
def test_key_is_not_a_query_parameter(client: FlaskClient, name: str) -> None:
    answer = put(client, f"&{name}=k1")
    assert (answer["status"], answer["detail"]) == (400, f"unknown parameter '{name}'")


def test_key_repeats_after_the_chart_moved_on(client: FlaskClient) -> None:
    for number in range(5):
        put(client, Idempotency_Key=f"k{number}")
    answer = put(client, Idempotency_Key="k4")
    assert (answer["status"], answer["reason"], answer["current_state"]) == (200, "replay", "stop")


@pytest.mark.parametrize("more", ["&machine=web-02", "&machine=web-01&key=failed", ""])
def test_key_used_for_something_else_is_422(client: FlaskClient, more: str) -> None:
    put(client, "&machine=web-01", Idempotency_Key="k1")
    response = client.put(PATH + more, headers={"Idempotency-Key": "k1"})
    assert (response.status_code, response.mimetype) == (422, "application/problem+json")
    assert "Idempotency-Key" in response.get_json()["detail"]
    assert values(client) == {"count": 1, "failed": 0}


def test_key_used_for_another_state_is_500_on_the_default_path(app: Flask, client: FlaskClient) -> None:
    default = app.extensions["stateservice"]
    default.default_chart = "pair"
    put(client, Idempotency_Key="k1")
    response = client.put("/state?state=stop", headers={"Idempotency-Key": "k1"})
    assert response.status_code == 500
    assert "Idempotency-Key" in response.text


def test_key_of_a_refused_put_stays_free(client: FlaskClient) -> None:
    refused = client.put("/charts/pair/state?state=stop", headers={"Idempotency-Key": "k1"})
    assert refused.status_code == 406
    assert put(client, Idempotency_Key="k1")["reason"] == "updated"


def test_key_is_utf8_and_up_to_255_characters(client: FlaskClient) -> None:
    environ = {"HTTP_IDEMPOTENCY_KEY": ("ü" * 255).encode().decode("latin-1")}
    assert client.put(PATH, environ_overrides=environ).status_code == 200
    assert client.put(PATH, environ_overrides=environ).status_code == 200
    assert values(client)["count"] == 1


def test_keys_of_two_charts_are_apart(client: FlaskClient) -> None:
    put(client, Idempotency_Key="k1")
    response = client.put("/charts/states/state?state=green_state", headers=JSON | {"Idempotency-Key": "k1"})
    assert response.get_json()["reason"] == "transitioned"
