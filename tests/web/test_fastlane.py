"""The fast lane and Flask are two doors to the same answers."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from werkzeug.test import Client, TestResponse

from app.core.log import Author
from app.service.tokens import Role, create_token
from app.web.state import ROUTES, FastLane
from app.wiring import service_of
from tests.support.apps import SEED, import_text, opened_app

STATE = "/charts/states/state?state="
REQUESTS = {
    "yes": ("GET", f"{STATE}green_state", {}),
    "no": ("GET", f"{STATE}red_state", {}),
    "yes in JSON": ("GET", f"{STATE}green_state", {"Accept": "application/json"}),
    "no in JSON": ("GET", f"{STATE}nowhere", {"Accept": "application/json"}),
    "default chart": ("GET", "/state?state=green_state", {}),
    "slash at the end": ("GET", "/state/?state=green_state", {}),
    "head": ("HEAD", f"{STATE}green_state", {}),
    "head of a no": ("HEAD", f"{STATE}red_state", {}),
    "reached": ("GET", "/charts/states/reached?state=green_state", {}),
    "not reached": ("GET", "/reached?state=red_state", {}),
    "waits for what cannot be": ("GET", f"{STATE}nowhere&wait=5", {}),
    "put of another state": ("PUT", f"{STATE}red_state&machine=a", {}),
    "put to the default chart": ("PUT", "/state?state=blue_state", {}),
    "nothing asked": ("GET", "/charts/states/state", {}),
    "nothing asked of the default chart": ("GET", "/state", {}),
    "nothing asked, in JSON": ("GET", "/state", {"Accept": "application/json"}),
    "repeated": ("PUT", f"{STATE}a&state=b", {}),
    "no UTF-8": ("PUT", "/state?state=%ff", {}),
    "bad machine": ("GET", f"{STATE}green_state", {"X-Machine": "m" * 256}),
    "bad wait": ("GET", f"{STATE}green_state&wait=x", {}),
    "no such chart": ("GET", "/charts/gone/state?state=a", {}),
    "no chart's name": ("GET", "/charts/a%20b/state?state=a", {}),
    "wrong method": ("POST", "/state?state=a", {}),
    "wrong method of a chart": ("DELETE", STATE, {}),
    "put of what was": ("PUT", "/reached?state=green_state", {}),
}


def through_flask(app: Flask) -> Client:
    """A client that goes past the fast lane."""
    lane: Any = app.wsgi_app
    assert isinstance(lane, FastLane)
    return Client(lane.behind)


def what_it_says(response: TestResponse) -> tuple[int, dict[str, str], bytes]:
    return response.status_code, dict(response.headers), response.get_data()


def test_lane_knows_the_routes_of_flask(app: Flask) -> None:
    rules = {
        (method, rule.endpoint, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & {"GET", "PUT"}
        if rule.endpoint.startswith("state.")
    }
    assert {(key[0], route.endpoint, route.rule) for key, route in ROUTES.items()} == rules


@pytest.mark.parametrize(("method", "path", "headers"), REQUESTS.values(), ids=REQUESTS)
def test_both_doors_say_the_same(app: Flask, method: str, path: str, headers: dict[str, str]) -> None:
    lane, flask = (
        what_it_says(client.open(path, method=method, headers=headers))
        for client in (Client(app.wsgi_app), through_flask(app))
    )
    assert lane == flask


@pytest.mark.parametrize("first", ["lane", "flask"])
def test_put_through_one_door_is_a_replay_through_the_other(app: Flask, first: str) -> None:
    doors = {"lane": Client(app.wsgi_app), "flask": through_flask(app)}
    second = "flask" if first == "lane" else "lane"
    sent: dict[str, Any] = {"path": f"{STATE}green_state&machine=web-01", "headers": {"Accept": "application/json"}}
    answers = [doors[door].put(**sent).get_json() for door in (first, second)]
    assert [(answer["reason"], answer["answer"]) for answer in answers] == [("transitioned", "yes"), ("replay", "yes")]


@pytest.mark.parametrize("secret", ["right", "wrong", "reader", "other chart", "basic", None])
@pytest.mark.parametrize("path", [f"{STATE}red_state", "/state?state=red_state"])
def test_both_doors_let_the_same_in(database_url: str, secret: str | None, path: str) -> None:
    for app in opened_app(database_url, auth="tokens"):
        import_text(app, SEED)
        made = [("right", Role.MACHINE, "*"), ("reader", Role.READER, "*"), ("other chart", Role.MACHINE, "web*")]
        secrets = {name: create_token(service_of(app), name.replace(" ", "-"), *what, Author()) for name, *what in made}
        token = secrets.get(secret or "", "sst_wrong")
        headers = {} if secret is None else {"Authorization": f"Bearer {token}"}
        if secret == "basic":
            headers = {}
        auth = ("x", secrets["right"]) if secret == "basic" else None
        lane, flask = (
            what_it_says(client.put(path, headers=headers, auth=auth))
            for client in (Client(app.wsgi_app), through_flask(app))
        )
        assert lane == flask
        assert lane[0] == {"right": 406, "basic": 406, "reader": 403, "other chart": 403}.get(secret or "", 401)


@pytest.mark.parametrize(("host", "status"), [("states.example", 200), ("elsewhere.example", 400), ("", 400)])
def test_host_that_is_not_ours_is_refused(sqlite_url: str, host: str, status: int) -> None:
    for app in opened_app(sqlite_url, trusted_hosts=("states.example",)):
        import_text(app, SEED)
        response = Client(app.wsgi_app).get(f"{STATE}green_state", headers={"Host": host})
        assert response.status_code == status


def test_mistake_of_our_own_is_answered_and_logged(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("app.web.state.ask", fail)
    response = Client(app.wsgi_app).get(f"{STATE}green_state")
    assert (response.status_code, response.mimetype) == (500, "application/problem+json")
    assert "ZeroDivisionError" not in response.text
