"""Parameters that cannot be meant: 400 problem+json under /charts, 500 in one line under /state."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from tests.support.apps import import_text
from tests.support.databases import ON_ONE_DATABASE
from tests.support.examples import examples

pytestmark = ON_ONE_DATABASE

JSON = {"Accept": "application/json"}

# The query as it stands after the `?`, in the bytes' Latin-1 form, and a word of the reason.
BAD = {
    "missing": ("", "state is missing"),
    "missing beside others": ("machine=a", "state is missing"),
    "in another case": ("State=green_state", "unknown parameter 'State'"),
    "repeated": ("state=green_state&state=red_state", "state is given 2 times"),
    "repeated alike": ("state=green_state&state=green_state", "state is given 2 times"),
    "repeated in two spellings": ("state=green_state&st%61te=green_state", "state is given 2 times"),
    "empty": ("state=", "state is empty"),
    "without a value": ("state", "state is empty"),
    "over-long": ("state=" + "x" * 129, "state is longer than 128"),
    "over-long by far": ("state=" + "x" * 100_000, "state is longer than 128"),
    "NUL": ("state=green_state%00", "cannot be printed"),
    "line feed": ("state=green_state%0a", "cannot be printed"),
    "carriage return": ("state=%0dgreen_state", "cannot be printed"),
    "tab": ("state=green%09state", "cannot be printed"),
    "escape": ("state=%1b[31mgreen_state", "cannot be printed"),
    "delete": ("state=green_state%7f", "cannot be printed"),
    "C1 control": ("state=%c2%85green_state", "cannot be printed"),
    "line separator": ("state=green_state%e2%80%a8", "cannot be printed"),
    "right-to-left override": ("state=%e2%80%aegreen_state", "cannot be printed"),
    "surrogate": ("state=%ed%a0%80", "not UTF-8"),
    "surrogate pair": ("state=%ed%a0%bd%ed%b8%80", "not UTF-8"),
    "percent-coded bytes that are no UTF-8": ("state=%ff%fe", "not UTF-8"),
    "over-long UTF-8": ("state=%c0%80", "not UTF-8"),
    "half a character": ("state=%e2%82", "not UTF-8"),
    "raw bytes that are no UTF-8": ("state=\xff\xfe", "not UTF-8"),
    "no UTF-8 in another parameter": ("state=green_state&other=%ff", "not UTF-8"),
    "no UTF-8 in a name": ("state=green_state&%ff=1", "not UTF-8"),
    "too many parameters": ("state=green_state&" + "&".join(f"p{n}=1" for n in range(100)), "more than 100"),
    "machine empty": ("state=green_state&machine=", "machine is empty"),
    "machine repeated": ("state=green_state&machine=a&machine=b", "machine is given 2 times"),
    "machine over-long": ("state=green_state&machine=" + "m" * 256, "machine is longer than 255"),
    "machine with a line feed": ("state=green_state&machine=a%0ab", "machine has characters"),
    "machine with a NUL": ("state=green_state&machine=a%00", "machine has characters"),
    "machine a surrogate": ("state=green_state&machine=%ed%a0%80", "not UTF-8"),
    # One of the two methods does not use these.
    "key empty": ("state=green_state&key=", "key is empty"),
    "key repeated": ("state=green_state&key=count&key=count", "key is given 2 times"),
    "key over-long": ("state=green_state&key=" + "k" * 129, "key is longer than 128"),
    "key unprintable": ("state=green_state&key=count%0a", "key has characters"),
    "note empty": ("state=green_state&note=", "note is not 1 to 1000 characters"),
    "note repeated": ("state=green_state&note=a&note=b", "note is given 2 times"),
    "note over-long": ("state=green_state&note=" + "n" * 1001, "note is not 1 to 1000 characters"),
    "wait empty": ("state=green_state&wait=", "wait is empty"),
    "wait repeated": ("state=green_state&wait=1&wait=1", "wait is given 2 times"),
    "wait too long": ("state=green_state&wait=56", "wait=56 is not a whole number from 0 to 55"),
    "wait no number": ("state=green_state&wait=soon", "wait=soon is not a whole number"),
    "again neither 0 nor 1": ("state=green_state&again=2", "again=2 is not a whole number from 0 to 1"),
    "again empty": ("state=green_state&again=", "again is empty"),
}
BAD_PUT = {
    "key unknown": ("state=green_state&key=nothing", "'nothing'"),
}
BAD_HEADERS = {
    "X-Machine empty": ("X-Machine", "", "X-Machine is empty"),
    "X-Machine over-long": ("X-Machine", "m" * 256, "X-Machine is longer than 255"),
    "X-Machine no UTF-8": ("X-Machine", "\xff", "X-Machine is not UTF-8"),
    "X-Machine unprintable": ("X-Machine", "a\x01b", "X-Machine has characters"),
    "Idempotency-Key empty": ("Idempotency-Key", "", "Idempotency-Key is empty"),
    "Idempotency-Key over-long": ("Idempotency-Key", "k" * 256, "Idempotency-Key is longer than 255"),
    "Idempotency-Key no UTF-8": ("Idempotency-Key", "\xc3", "Idempotency-Key is not UTF-8"),
    "Idempotency-Key unprintable": ("Idempotency-Key", "a\x7fb", "Idempotency-Key has characters"),
}


def send(
    client: FlaskClient, method: str, path: str, query: str, headers: dict[str, str] | None = None
) -> TestResponse:
    # The client would decode and encode the query again: here the bytes arrive as they are.
    return client.open(path, method=method, headers=headers, environ_overrides={"QUERY_STRING": query})


def assert_problem(response: TestResponse, status: int, reason: str) -> None:
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")
    problem = response.get_json()
    assert problem["status"] == status
    assert reason in problem["detail"]
    assert set(problem) >= {"type", "title", "status", "detail"}


def assert_one_line(response: TestResponse, reason: str) -> None:
    assert (response.status_code, response.mimetype) == (500, "text/plain")
    assert len(response.text.splitlines()) == 1
    assert reason in response.text


@pytest.mark.parametrize(("query", "reason"), BAD.values(), ids=BAD)
def test_bad_query_is_400_under_charts_and_500_under_state(client: FlaskClient, query: str, reason: str) -> None:
    for method in ("GET", "PUT"):
        assert_problem(send(client, method, "/charts/states/state", query), 400, reason)
        assert_one_line(send(client, method, "/state", query), reason)
        assert_problem(send(client, method, "/state", query, JSON), 500, reason)


@pytest.mark.parametrize(("query", "reason"), BAD_PUT.values(), ids=BAD_PUT)
def test_bad_key_is_400_under_charts_and_500_under_state(client: FlaskClient, query: str, reason: str) -> None:
    assert_problem(send(client, "PUT", "/charts/states/state", query), 400, reason)
    assert_one_line(send(client, "PUT", "/state", query), reason)


@pytest.mark.parametrize(("header", "value", "reason"), BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_bad_header_is_400_under_charts_and_500_under_state(
    client: FlaskClient, header: str, value: str, reason: str
) -> None:
    # As a server hands headers over: Latin-1, unchecked.
    environ = {f"HTTP_{header.upper().replace('-', '_')}": value, "QUERY_STRING": "state=green_state"}
    response = client.put("/charts/states/state", environ_overrides=environ)
    assert_problem(response, 400, reason)
    assert_one_line(client.put("/state", environ_overrides=environ), reason)


def test_bad_request_changes_nothing(client: FlaskClient) -> None:
    for query, _ in (BAD | BAD_PUT).values():
        send(client, "PUT", "/charts/states/state", query)
    status = client.get("/charts/states").get_json()
    assert (status["current_state"], status["seq"], status["values"]) == ("green_state", 1, {"count": 0})


def test_require_machine_refuses_a_put_without(app: Flask) -> None:
    import_text(
        app,
        "chart: named\nrequire_machine: true\ncurrent_state: a\nstates:\n"
        "  - {name: a, func: increment, current: {key: n, value: 0}, target: {name: b, when: {key: n, value: 1}}}\n"
        "  - {name: b}\n",
    )
    client = app.test_client()
    assert_problem(client.put("/charts/named/state?state=a"), 400, "machine is missing")
    assert client.get("/charts/named/state?state=a").status_code == 200
    assert client.put("/charts/named/state?state=a&machine=m").status_code == 200


def test_roster_refuses_a_put_without_a_machine(app: Flask) -> None:
    import_text(
        app,
        "chart: named\nexpect: [m]\ncurrent_state: a\nstates:\n"
        "  - {name: a, func: increment, current: {key: n, value: 0}, target: {name: b, when: {key: n, value: 1}}}\n"
        "  - {name: b}\n",
    )
    client = app.test_client()
    assert_problem(client.put("/charts/named/state?state=a"), 400, "machine is missing")
    assert client.put("/charts/named/state?state=a&machine=m").status_code == 200


@pytest.mark.parametrize("machine", ["web-01%20", "+web-01", "%20"])
def test_machine_with_a_space_at_its_ends_is_a_bad_request(client: FlaskClient, machine: str) -> None:
    response = client.put(f"/charts/states/state?state=green_state&machine={machine}")
    assert_problem(response, 400, "machine has a space at one of its ends")


@pytest.mark.parametrize("more", ["&", "&&&"])
def test_empty_parts_of_a_query_are_ignored(client: FlaskClient, more: str) -> None:
    assert send(client, "GET", "/state", f"state=green_state{more}").data == b"green_state"


@pytest.mark.parametrize(
    ("more", "name"), [("&other=1", "other"), ("&other", "other"), ("&=1", ""), ("&state2=x", "state2")]
)
def test_unknown_parameter_is_refused(client: FlaskClient, more: str, name: str) -> None:
    response = client.put(f"/charts/states/state?state=green_state{more}")
    assert_problem(response, 400, f"unknown parameter '{name}'")


@pytest.mark.parametrize("path", ["/state/", "/charts/states/state/"])
def test_trailing_slash_is_the_same_path(client: FlaskClient, path: str) -> None:
    assert client.get(f"{path}?state=green_state").data == b"green_state"
    bad = client.get(path)
    assert bad.status_code == (500 if path == "/state/" else 400)


@pytest.mark.parametrize("path", ["/charts//states/state", "/charts/states//state", "/./state", "/state//"])
def test_no_path_is_redirected(client: FlaskClient, path: str) -> None:
    response = client.get(path, environ_overrides={"PATH_INFO": path, "QUERY_STRING": "state=green_state"})
    assert response.status_code == 404
    assert "Location" not in response.headers


@settings(max_examples=examples(60, few=20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(st.characters(max_codepoint=255), max_size=200), method=st.sampled_from(["GET", "PUT"]))
def test_no_query_breaks_the_service(client: FlaskClient, method: str, query: str) -> None:
    status = send(client, method, "/charts/states/state", query).status_code
    response = send(client, method, "/state", query)
    # Both refuse a query that names a state; what is 400 under /charts is 500 under /state.
    assert (status, response.status_code) in {(406, 406), (400, 500)}
    assert "the service failed" not in response.text


def _fill(rule: Rule) -> str:
    values: dict[str, object] = {"name": "states", "version": 1, "machine": "m", "token": "t", "subscription": "s"}
    adapter = rule.map.bind("localhost") if rule.map is not None else None
    assert adapter is not None
    path: str = adapter.build(rule.endpoint, {name: values.get(name, "x") for name in rule.arguments})
    return path


def test_unknown_parameter_is_refused_on_every_route(app: Flask) -> None:
    """The pages are left out: they read their own parameters, and change nothing by them."""
    client, asked = app.test_client(), set()
    before = client.get("/charts/states/history").get_json()
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith(("ui.", "static")):
            continue
        path = _fill(rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            response = client.open(f"{path}?machin=m", method=method, headers=JSON)
            status = 500 if path in ("/state", "/reached", "/turn") else 400
            assert (response.status_code, "unknown parameter 'machin'" in response.text) == (status, True), path
            asked.add((method, path))
    assert len(asked) > 50
    assert client.get("/charts/states/history").get_json() == before


@pytest.mark.parametrize(
    ("method", "path", "body", "detail"),
    [
        ("POST", "/charts/states/goto", '{"state": "x", "reason": "r", "dry_run": 1}', "unknown field 'dry_run'"),
        ("POST", "/charts/states/pause", '{"reason": "r", "until": "x"}', "unknown field 'until'"),
        ("POST", "/charts/states/evict", '{"machine": "m", "resaon": "r"}', "(did you mean 'reason'?)"),
        ("POST", "/charts/states/reset", '{"reason": "r", "reason": "s"}', "given more than once"),
        ("PUT", "/tokens/t", '{"role": "machine", "machin": "m"}', "(did you mean 'machine'?)"),
        ("PUT", "/tokens/t", '{"role": "admin", "Charts": "web*"}', "(did you mean 'charts'?)"),
        ("PUT", "/tokens/t", '{"role": "admin", "charts": "web*", "charts": "*"}', "given more than once"),
        ("PUT", "/subscriptions/s", '{"url": "http://127.0.0.1/x", "chart": "web"}', "unknown field 'chart'"),
    ],
)
def test_unknown_field_of_a_body_is_refused(
    client: FlaskClient, method: str, path: str, body: str, detail: str
) -> None:
    response = client.open(path, method=method, data=body)
    assert_problem(response, 400, detail)
    assert client.get("/tokens").get_json() == []
    assert client.get("/charts/states").get_json()["paused"] is False
