"""A page of another site cannot act through the browser of a person who may reach the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.service.reading import get_status
from app.web.auth import is_answered, is_own_origin
from app.web.request import read_headers
from app.wiring import service_of
from tests.support.apps import SEED, import_text, opened_app
from tests.support.databases import copied

ELSEWHERE = {
    "another origin": {"Origin": "http://evil.example"},
    "null": {"Origin": "null"},
    "another port": {"Origin": "http://localhost:81"},
    "a host that begins alike": {"Origin": "http://localhost.evil.example"},
    "an extension": {"Origin": "moz-extension://localhost"},
    "two origins": {"Origin": "http://localhost, http://evil.example"},
    "not an address": {"Origin": "http://[localhost"},
    "cross-site": {"Sec-Fetch-Site": "cross-site"},
    "same-site": {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
}
HERE: dict[str, dict[str, str]] = {
    "curl": {},
    "own origin": {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"},
    "behind TLS": {"Origin": "https://localhost"},
    "with its port": {"Origin": "http://localhost:80"},
    "typed in": {"Sec-Fetch-Site": "none"},
}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite alone: what is tested here comes before the database."""
    return sqlite_url


@pytest.fixture(scope="module")
def untouched(sqlite_template: Path) -> Iterator[Flask]:
    """A service whose one chart no test here may change."""
    with copied(sqlite_template) as url:
        for app in opened_app(url):
            import_text(app, SEED)
            yield app


def routes(app: Flask) -> Iterator[tuple[str, str]]:
    """The method and a path of each route that changes something."""
    values = {"name": "states", "act": "pause"}
    with app.test_request_context():
        adapter = app.url_map.bind("localhost")
        for rule in app.url_map.iter_rules():
            for method in (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}:
                sent = {name: values.get(name, "x") for name in rule.arguments}
                yield method, adapter.build(rule.endpoint, sent, method=method)


@pytest.mark.parametrize("headers", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_request_of_another_site_is_refused_on_every_route(untouched: Flask, headers: dict[str, str]) -> None:
    found = list(routes(untouched))
    assert len(found) >= 18
    for method, path in found:
        sent = f"{path}?state=green_state&machine=m"
        response = untouched.test_client().open(sent, method=method, headers=headers)
        assert response.status_code == 403, (method, path)
        assert "another site" in response.text, (method, path)
    status = get_status(service_of(untouched), "states")
    assert (status.seq, status.paused) == (1, False)


@pytest.mark.parametrize("headers", HERE.values(), ids=HERE.keys())
def test_request_of_no_other_site_is_answered(client: FlaskClient, headers: dict[str, str]) -> None:
    assert client.put("/state?state=green_state", headers=headers).status_code == 200
    assert client.post("/charts/states/pause", json={"reason": "x"}, headers=headers).status_code == 200


@pytest.mark.parametrize("headers", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_question_of_another_site_is_answered(untouched: Flask, headers: dict[str, str]) -> None:
    client = untouched.test_client()
    assert client.get("/state?state=green_state", headers=headers).status_code == 200
    assert client.get("/charts", headers=headers).status_code == 200


@pytest.mark.parametrize("act", ["pause", "resume", "reset", "goto", "archive", "evict"])
@pytest.mark.parametrize("mimetype", ["text/plain", "text/plain; charset=utf-8", "multipart/form-data; boundary=x"])
def test_act_is_not_read_from_a_body_that_any_form_can_send(untouched: Flask, act: str, mimetype: str) -> None:
    client = untouched.test_client()
    body = '{"reason": "x", "state": "blue_state", "machine": "m"}'
    response = client.post(f"/charts/states/{act}", data=body, content_type=mimetype)
    assert response.status_code == 400
    assert "application/json" in response.get_json()["detail"]
    assert client.get("/charts/states").get_json()["paused"] is False


@pytest.mark.parametrize("mimetype", ["application/json", "application/x-www-form-urlencoded", ""])
def test_act_is_read_from_what_curl_sends(client: FlaskClient, mimetype: str) -> None:
    response = client.post("/charts/states/pause", data='{"reason": "x"}', content_type=mimetype)
    assert response.status_code == 200


# Hosts


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:5000", "[::1]", "[::1]:80", "LOCALHOST.:5000"])
def test_loopback_service_answers_for_its_own_hosts(untouched: Flask, host: str) -> None:
    client = untouched.test_client()
    for path in ("/state?state=green_state", "/charts", "/", "/healthz"):
        assert client.get(path, headers={"Host": host}).status_code == 200, path


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:5000", "127.0.0.1.evil.example", "", "a b", "[::2]"],
)
def test_loopback_service_refuses_other_hosts(untouched: Flask, host: str) -> None:
    client = untouched.test_client()
    assert client.get("/state?state=green_state", headers={"Host": host}).status_code == 500
    for path in ("/charts", "/charts/states/state?state=green_state", "/", "/ui/import", "/metrics", "/static/app.css"):
        response = client.get(path, headers={"Host": host})
        assert (response.status_code, "does not answer for the host" in response.text) == (400, True), path


def test_service_on_a_public_address_answers_for_any_host(sqlite_url: str) -> None:
    for bind in ("0.0.0.0:5000", "unix:/run/x.sock", "127.0.0.1:5000,unix:/run/x.sock", "[::]:5000"):
        for app in opened_app(sqlite_url, bind=bind):
            assert app.test_client().get("/healthz", headers={"Host": "state.example"}).status_code == 200


def test_service_answers_for_the_address_that_it_is_bound_to(sqlite_url: str) -> None:
    for app in opened_app(sqlite_url, bind="127.0.0.5:5000"):
        for host, status in (("127.0.0.5:5000", 200), ("localhost", 200), ("127.0.0.6", 400)):
            assert app.test_client().get("/healthz", headers={"Host": host}).status_code == status


def test_trusted_hosts_replace_the_loopback_names(sqlite_url: str) -> None:
    for app in opened_app(sqlite_url, trusted_hosts=("state.example", ".fleet.example", "[::1]")):
        for host, status in (
            ("state.example:8080", 200),
            ("a.fleet.example", 200),
            ("fleet.example", 200),
            ("[::1]:5000", 200),
            ("xfleet.example", 400),
            ("localhost", 400),
        ):
            assert app.test_client().get("/healthz", headers={"Host": host}).status_code == status, host


def test_host_may_be_missing_only_where_no_hosts_are_set() -> None:
    """A health probe over HTTP/1.0 sends none; a browser always does."""
    assert is_answered(None, ("localhost",), may_be_missing=True)
    assert not is_answered(None, ("localhost",), may_be_missing=False)


@pytest.mark.parametrize(
    ("origin", "host", "is_own"),
    [
        ("http://a.example", "a.example", True),
        ("https://a.example", "a.example:443", True),
        ("http://A.example:5000", "a.example.:5000", True),
        ("http://a.example", "a.example:443", False),
        ("https://a.example:5000", "a.example", False),
        ("null", "null", False),
        ("", "", False),
        ("http://a.example", None, False),
    ],
)
def test_origin_is_compared_with_host_and_port(origin: str, host: str | None, is_own: bool) -> None:
    assert is_own_origin(origin, host) is is_own


# Headers


def test_header_with_an_underscore_is_dropped() -> None:
    """WSGI takes it for the one with a hyphen, which the proxy has set."""
    sent = [(b"X_Machine", b"web-02"), (b"x_forwarded_for", b"1.2.3.4"), (b"X-Machine", b"web-01")]
    assert read_headers(sent) == ({"x-machine": "web-01"}, ())
