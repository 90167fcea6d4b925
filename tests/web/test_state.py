"""GET and PUT on a state: bodies to the byte, statuses, methods, and the reasons in the JSON form."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.core.log import Author
from app.service import operate
from app.wiring import service_of
from tests.support.apps import SEED, import_text
from tests.support.databases import ON_ONE_DATABASE

JSON = {"Accept": "application/json"}
PATHS = ("/state", "/charts/states/state")
OPERATOR = Author(actor="test")

FLEET = """
chart: fleet
current_state: canary stage
expect: [web-01, web-02, web-03]
states:
  - name: canary stage
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: "rolled:back", when: {key: failed, value: 2}}
      - {name: freeze, when: {key: count, value: 2}}
  - name: freeze
    func: time
    target: {name: done, when: {key: clock, value: "3000-01-01T12:00:00"}}
  - name: "rolled:back"
  - name: done
"""


@pytest.fixture
def fleet(app: Flask) -> FlaskClient:
    """A client whose chart `fleet` has a roster, two attributes and a state driven by the clock."""
    import_text(app, FLEET)
    return app.test_client()


@pytest.mark.parametrize("path", PATHS)
def test_get_answers_the_name_when_state_is_current(client: FlaskClient, path: str) -> None:
    response = client.get(f"{path}?state=green_state")
    assert (response.status_code, response.data) == (200, b"green_state")
    assert response.mimetype == "text/plain"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("state", ["red_state", "blue_state", "no_such_state", "Green_state", "green_state "])
def test_get_answers_406_and_nothing_when_state_is_not_current(client: FlaskClient, path: str, state: str) -> None:
    response = client.get(f"{path}?state={quote(state)}")
    assert (response.status_code, response.data) == (406, b"")


@pytest.mark.parametrize("path", PATHS)
def test_put_answers_the_name_and_moves_the_chart(client: FlaskClient, path: str) -> None:
    response = client.put(f"{path}?state=green_state")
    assert (response.status_code, response.data) == (200, b"green_state")
    assert client.get(f"{path}?state=red_state").status_code == 200
    assert client.get(f"{path}?state=green_state").status_code == 406


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("state", ["red_state", "blue_state", "no_such_state"])
def test_put_answers_406_and_nothing_when_state_is_not_current(client: FlaskClient, path: str, state: str) -> None:
    response = client.put(f"{path}?state={state}")
    assert (response.status_code, response.data) == (406, b"")
    assert client.get(f"{path}?state=green_state").status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_put_answers_406_when_state_is_final(client: FlaskClient, path: str) -> None:
    client.put(f"{path}?state=green_state")
    client.put(f"{path}?state=red_state")
    response = client.put(f"{path}?state=blue_state")
    assert (response.status_code, response.data) == (406, b"")
    assert client.get(f"{path}?state=blue_state").data == b"blue_state"


@pytest.mark.parametrize("path", PATHS)
def test_body_is_ignored(client: FlaskClient, path: str) -> None:
    response = client.put(f"{path}?state=green_state", data=b"state=red_state" * 1000)
    assert (response.status_code, response.data) == (200, b"green_state")


@pytest.mark.parametrize("path", PATHS)
def test_form_in_the_body_is_no_parameter(client: FlaskClient, path: str) -> None:
    response = client.put(path, data={"state": "green_state"})
    assert response.status_code in (400, 500)
    assert client.get(f"{path}?state=green_state").status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("state", "status"), [("green_state", 200), ("red_state", 406)])
def test_head_answers_as_get_without_the_body(client: FlaskClient, path: str, state: str, status: int) -> None:
    asked = client.get(f"{path}?state={state}")
    response = client.head(f"{path}?state={state}")
    assert (response.status_code, response.data) == (status, b"")
    assert dict(response.headers) == dict(asked.headers)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused_with_those_allowed(client: FlaskClient, path: str, method: str) -> None:
    response = client.open(f"{path}?state=green_state", method=method)
    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "PUT"}


@pytest.mark.parametrize("sent", ["green_state", "%67reen_state", "green%5Fstate", "%67%72%65%65%6e%5f%73tate"])
def test_state_is_percent_decoded(client: FlaskClient, sent: str) -> None:
    assert client.get(f"/state?state={sent}").data == b"green_state"


@pytest.mark.parametrize("sent", ["canary%20stage", "canary+stage"])
def test_state_with_a_space_is_found(fleet: FlaskClient, sent: str) -> None:
    assert fleet.get(f"/charts/fleet/state?state={sent}").data == b"canary stage"


@pytest.mark.parametrize("sent", ["rolled:back", "rolled%3Aback", "rolled%3aback"])
def test_state_with_a_colon_is_found(fleet: FlaskClient, sent: str) -> None:
    for machine in ("web-01", "web-02"):
        fleet.put(f"/charts/fleet/state?state=canary+stage&key=failed&machine={machine}")
    assert fleet.get(f"/charts/fleet/state?state={sent}").data == b"rolled:back"


def test_longest_name_is_answered_whole(app: Flask) -> None:
    name = "s" * 128
    import_text(app, f"chart: long\ncurrent_state: {name}\nstates: [{{name: {name}}}]")
    response = app.test_client().get(f"/charts/long/state?state={name}")
    assert (response.status_code, response.text) == (200, name)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_answer_is_not_to_be_cached(client: FlaskClient, path: str, method: str) -> None:
    for state in ("green_state", "blue_state"):
        response = client.open(f"{path}?state={state}", method=method)
        assert response.headers["Cache-Control"] == "no-store"
        assert "Location" not in response.headers


# The default chart


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_default_chart_is_the_one_configured(app: Flask, method: str) -> None:
    import_text(app, SEED, name="other")
    service_of(app).default_chart = "other"
    client = app.test_client()
    client.put("/state?state=green_state")
    assert client.get("/charts/other/state?state=red_state").status_code == 200
    assert client.get("/charts/states/state?state=green_state").status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_default_chart_is_missing_when_there_are_several(app: Flask, method: str) -> None:
    import_text(app, SEED, name="other")
    response = app.test_client().open("/state?state=green_state", method=method)
    assert response.status_code == 500
    assert response.text.count("\n") <= 1
    assert "no default chart" in response.text


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_default_chart_that_is_not_there_is_500(app: Flask, method: str) -> None:
    service_of(app).default_chart = "gone"
    response = app.test_client().open("/state?state=green_state", method=method)
    assert (response.status_code, response.text.strip()) == (500, "no chart named 'gone'")


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_unknown_chart_is_404(client: FlaskClient, method: str) -> None:
    response = client.open("/charts/gone/state?state=green_state", method=method)
    assert (response.status_code, response.mimetype) == (404, "application/problem+json")
    assert response.get_json()["detail"] == "no chart named 'gone'"


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_archived_chart_is_404(app: Flask, method: str) -> None:
    operate.archive(service_of(app), "states", "over", OPERATOR)
    assert app.test_client().open("/charts/states/state?state=green_state", method=method).status_code == 404


# The JSON form


def test_json_get_says_everything(client: FlaskClient) -> None:
    response = client.get("/charts/states/state?state=green_state", headers=JSON)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.get_json() == {
        "chart": "states",
        "run": 1,
        "visit": 1,
        "seq": 1,
        "state": "green_state",
        "current_state": "green_state",
        "answer": "yes",
        "reason": "current",
        "key": None,
        "value": None,
        "replay": False,
    }


def test_json_put_says_everything(client: FlaskClient) -> None:
    response = client.put("/charts/states/state?state=green_state", headers=JSON)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.get_json() == {
        "chart": "states",
        "run": 1,
        "visit": 1,
        "seq": 2,
        "state": "green_state",
        "current_state": "red_state",
        "answer": "yes",
        "reason": "transitioned",
        "key": "count",
        "value": 1,
        "replay": False,
    }


def test_json_put_without_a_move_is_updated(fleet: FlaskClient) -> None:
    answer = told(fleet, "PUT", "canary stage", "&machine=web-01&key=failed")
    assert (answer["reason"], answer["key"], answer["value"], answer["seq"]) == ("updated", "failed", 1, 2)


def test_json_replay_says_so(fleet: FlaskClient) -> None:
    first = told(fleet, "PUT", "canary stage", "&machine=web-01")
    answer = told(fleet, "PUT", "canary stage", "&machine=web-01")
    assert (answer["answer"], answer["reason"], answer["replay"]) == ("yes", "replay", True)
    assert answer["seq"] == first["seq"]


def test_json_replay_of_the_put_that_closed_the_state_is_yes(fleet: FlaskClient) -> None:
    for machine in ("web-01", "web-02"):
        told(fleet, "PUT", "canary stage", f"&machine={machine}")
    answer = told(fleet, "PUT", "canary stage", "&machine=web-02")
    assert (answer["answer"], answer["reason"], answer["current_state"]) == ("yes", "replay", "freeze")


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_json_reason_is_not_current(client: FlaskClient, method: str) -> None:
    answer = client.open("/charts/states/state?state=red_state", method=method, headers=JSON).get_json()
    assert (answer["answer"], answer["reason"], answer["current_state"]) == ("no", "not_current", "green_state")


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_json_reason_is_unknown_state(client: FlaskClient, method: str) -> None:
    answer = client.open("/charts/states/state?state=nowhere", method=method, headers=JSON).get_json()
    assert (answer["answer"], answer["reason"], answer["state"]) == ("no", "unknown_state", "nowhere")


@pytest.mark.parametrize(("method", "told"), [("GET", ("no", "paused")), ("PUT", ("yes", "updated"))])
def test_pause_stops_questions_but_not_reports(app: Flask, method: str, told: tuple[str, str]) -> None:
    operate.pause(service_of(app), "states", "lunch", OPERATOR)
    answer = app.test_client().open("/charts/states/state?state=green_state", method=method, headers=JSON).get_json()
    assert (answer["answer"], answer["reason"]) == told


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_json_reason_is_not_on_roster(fleet: FlaskClient, method: str) -> None:
    assert told(fleet, method, "canary stage", "&machine=web-99")["reason"] == "not_on_roster"


def test_json_reason_is_late(fleet: FlaskClient) -> None:
    for machine in ("web-01", "web-02"):
        told(fleet, "PUT", "canary stage", f"&machine={machine}")
    assert told(fleet, "PUT", "canary stage", "&machine=web-03")["reason"] == "late"


def test_json_reason_is_time_driven(fleet: FlaskClient) -> None:
    for machine in ("web-01", "web-02"):
        told(fleet, "PUT", "canary stage", f"&machine={machine}")
    assert told(fleet, "PUT", "freeze", "&machine=web-01")["reason"] == "time_driven"


def test_json_reason_is_final(fleet: FlaskClient) -> None:
    for machine in ("web-01", "web-02"):
        told(fleet, "PUT", "canary stage", f"&machine={machine}&key=failed")
    assert told(fleet, "PUT", "rolled:back", "&machine=web-01")["reason"] == "final"


def test_json_reason_is_no_slot(app: Flask) -> None:
    import_text(app, SEED.replace("func: increment", "func: increment\n    slots: 1", 1), name="slotted")
    client = app.test_client()
    answer = client.put("/charts/slotted/state?state=green_state&machine=a", headers=JSON).get_json()
    assert (answer["answer"], answer["reason"]) == ("no", "no_slot")


def told(client: FlaskClient, method: str, state: str, more: str = "") -> dict[str, object]:
    response = client.open(f"/charts/fleet/state?state={quote(state)}{more}", method=method, headers=JSON)
    answer: dict[str, object] = response.get_json()
    assert response.status_code == (200 if answer["answer"] == "yes" else 406)
    return answer


@pytest.mark.parametrize(
    ("accept", "mimetype"),
    [
        (None, "text/plain"),
        ("*/*", "text/plain"),
        ("text/plain", "text/plain"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/plain"),
        ("application/json;q=0.5, text/plain", "text/plain"),
        ("nonsense", "text/plain"),
        ("", "text/plain"),
        ("application/json", "application/json"),
        ("application/json, */*;q=0.1", "application/json"),
        ("APPLICATION/JSON", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
    ],
)
@ON_ONE_DATABASE
def test_form_follows_accept(client: FlaskClient, accept: str | None, mimetype: str) -> None:
    headers = {} if accept is None else {"Accept": accept}
    response = client.get("/state?state=green_state", headers=headers)
    assert (response.status_code, response.mimetype) == (200, mimetype)
