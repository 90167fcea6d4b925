"""The API's description and the routes agree in both directions, and each status that it names can be provoked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from werkzeug.test import TestResponse

from app.config import Config
from app.service import operate
from app.service.tokens import Role, create_token
from app.service.webhooks import AllowedHosts
from app.web import replies
from app.web.observe import SOURCE
from app.web.request import MAX_BODY, MAX_ROSTER_BODY, MAX_SENT
from app.wiring import create_app, service_of
from tests.service.support import ANN, ROLLOUT, import_text
from tests.service.support import ROSTERED as REBOOT
from tests.service.test_calendars import CHART as CLOSED
from tests.service.test_calendars import FREEZE, NOTHING
from tests.support.apps import opened_app
from tests.support.databases import copied
from tests.web.openapi import DOCUMENT, assert_fits, operations, resolve, routes


@pytest.fixture
def charts() -> Sequence[str]:
    return []


OPERATIONS = sorted((method, path) for method, path, _ in operations())
OPEN = {"/healthz", "/readyz", "/chart.schema.json"}
ON_A_CHART = [(method, path) for method, path in OPERATIONS if path.startswith("/charts/{chart}")]
FLEETLOCK = {"fleet-lock-protocol": "true"}
ROSTER = "m0\nm1 zone=a\nm2 zone=a\nm3 zone=b\n"
# What a valid request needs, by the last part of its path.
NEEDED: dict[str, dict[str, Any]] = {
    "evict": {"json": {"machine": "m1", "reason": "x"}},
    "goto": {"json": {"state": "canary", "reason": "x"}},
    "open": {"json": {"until": "2101-01-01T00:00:00Z", "reason": "x"}},
    "turn": {"query_string": {"machine": "m1"}},
    "{calendar}": {"data": FREEZE},
    "{chart}": {"data": ROLLOUT},
    "{roster}": {"data": ROSTER},
    "{subscription}": {"json": {"url": "http://127.0.0.1:9/x"}},
    "{token}": {"json": {"role": "reader"}},
    "pre-reboot": {"json": {"client_params": {"id": "m1", "group": "web"}}, "headers": FLEETLOCK},
    "steady-state": {"json": {"client_params": {"id": "m1", "group": "web"}}, "headers": FLEETLOCK},
}
PUT_CHART = ("PUT", "/charts/{chart}")
IMPORTS = {PUT_CHART, ("PUT", "/calendars/{calendar}"), ("PUT", "/rosters/{roster}")}
# The largest body, by the last part of the path.
LARGEST = {"state": MAX_SENT, "{roster}": MAX_ROSTER_BODY}
# What the parts of a path are, unless the test says otherwise.
PARTS = {
    "calendar": "freeze",
    "chart": "web",
    "machine": "m0",
    "roster": "web",
    "subscription": "pager",
    "token": "fleet",
    "version": "1",
}
ASKS_OF_A_STATE = {"state", "reached", "slot", "can.curl", "did.curl"}
STATE = {"query_string": {"state": "canary", "machine": "m1"}}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def send(client: FlaskClient, method: str, path: str, **given: Any) -> TestResponse:
    """A valid request, changed by what `given` says."""
    last = path.rpartition("/")[2]
    default = {"json": {"reason": "x"}} if method == "POST" else STATE if last in ASKS_OF_A_STATE else {}
    sent = NEEDED.get(last, default)
    path = path.format(**{part: given.pop(part, name) for part, name in PARTS.items()})
    return client.open(path, method=method, **(sent | given))


def named(status: str) -> list[tuple[str, str]]:
    """The operations that name a status."""
    # /enrol answers only while tokens are required: tests/web/test_tokens.py has its statuses.
    return sorted(
        (method, path) for method, path, item in operations() if status in item["responses"] and path != "/enrol"
    )


# The document and the routes


def test_document_describes_exactly_the_routes(app: Flask) -> None:
    described = {(method, path) for method, path, _ in operations()}
    assert described - routes(app) == set()
    assert routes(app) - described == set()


def test_document_is_served_as_json(client: FlaskClient) -> None:
    response = client.get("/openapi.json")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.get_json() == DOCUMENT
    assert response.get_json()["openapi"] == "3.1.0"


def test_every_reference_resolves_and_every_component_is_used() -> None:
    text = SOURCE.read_text()
    for kind, components in DOCUMENT["components"].items():
        for name in components:
            assert kind == "securitySchemes" or f'"#/components/{kind}/{name}"' in text, name
    for method, path, item in operations():
        for status, response in item["responses"].items():
            assert resolve(response)["description"], (method, path, status)
        for parameter in [*DOCUMENT["paths"][path].get("parameters", []), *item.get("parameters", [])]:
            assert resolve(parameter)["schema"]


def test_schemas_are_valid() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_operation_ids_are_the_names_of_the_views(app: Flask) -> None:
    views = {rule.endpoint.rpartition(".")[2].replace("_", "") for rule in app.url_map.iter_rules()}
    ids = [item["operationId"] for _, _, item in operations()]
    assert len(ids) == len(set(ids))
    assert {name.lower().removesuffix("curl") for name in ids} <= views


def test_path_parameters_are_those_in_the_path() -> None:
    for path, item in DOCUMENT["paths"].items():
        names = {resolve(parameter)["name"] for parameter in item.get("parameters", [])}
        assert names == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path


def test_only_statuses_that_the_service_can_answer_are_named() -> None:
    possible = {200, 201, 406, 413, 500} | set(replies.STATUS.values())
    assert {int(status) for _, _, item in operations() for status in item["responses"]} <= possible


# Each status in the document is answered as the document says. First the statuses that all operations share


@pytest.fixture(scope="module")
def guarded(sqlite_template: Path) -> Iterator[Flask]:
    """The service that requires tokens. Whom it turns away changes nothing, so the tests share it."""
    with copied(sqlite_template) as url:
        yield from opened_app(url, auth="tokens", default_chart="web")


@pytest.fixture(scope="module")
def empty_client(sqlite_template: Path) -> Iterator[FlaskClient]:
    """A client of a service that has nothing, for the tests whose requests make nothing."""
    with copied(sqlite_template) as url:
        for app in opened_app(url):
            yield app.test_client()


@pytest.mark.parametrize(("method", "path"), [pair for pair in OPERATIONS if pair[1] not in OPEN])
def test_401_without_a_token(guarded: Flask, method: str, path: str) -> None:
    response = send(guarded.test_client(), method, path)
    assert response.status_code == 401
    assert_fits(method, path, response)


@pytest.mark.parametrize(("method", "path"), named("403"))
def test_403_outside_the_pattern(guarded: Flask, method: str, path: str) -> None:
    # Whatever their charts, readers may read rosters and calendars; a token that only enrols machines may not.
    is_for_readers = method == "GET" and path.startswith(("/calendars", "/rosters"))
    role, charts = (Role.ENROL, "*") if is_for_readers else (Role.ADMIN, "other-*")
    secret = create_token(service_of(guarded), uuid4().hex, role, charts, ANN)
    headers = {"Authorization": f"Bearer {secret}"} | NEEDED.get(path.rpartition("/")[2], {}).get("headers", {})
    response = send(guarded.test_client(), method, path, headers=headers)
    assert response.status_code == 403
    assert_fits(method, path, response)


@pytest.mark.parametrize(("method", "path"), named("404"))
def test_404_for_an_unknown_name(empty_client: FlaskClient, method: str, path: str) -> None:
    # An import of a name that is not there makes it, if the name is allowed.
    name = "no such name" if (method, path) in IMPORTS else "gone"
    response = send(empty_client, method, path, calendar=name, chart=name, roster=name, subscription="gone")
    assert response.status_code == 404
    assert_fits(method, path, response)


@pytest.fixture(scope="module")
def broken_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """A client of a service whose database does not exist."""
    url = f"sqlite:///{tmp_path_factory.mktemp('gone')}/gone.db"
    app = create_app(Config(database_url=url, default_chart="web", webhook_hosts=("127.0.0.1",)))
    yield app.test_client()
    service_of(app).database.engine.dispose()


@pytest.mark.parametrize(("method", "path"), named("503"))
def test_503_without_a_database(broken_client: FlaskClient, method: str, path: str) -> None:
    response = send(broken_client, method, path)
    assert response.status_code == 503
    assert_fits(method, path, response)


@pytest.mark.parametrize("accept", ["*/*", "application/json"])
@pytest.mark.parametrize(("method", "path"), named("500"))
def test_500_in_text_and_json_without_a_database(
    broken_client: FlaskClient, method: str, path: str, accept: str
) -> None:
    response = send(broken_client, method, path, headers={"Accept": accept})
    assert response.status_code == 500
    assert_fits(method, path, response)


@pytest.mark.parametrize(("method", "path"), named("413"))
def test_413_for_a_body_that_is_too_large(empty_client: FlaskClient, method: str, path: str) -> None:
    size = LARGEST.get(path.rpartition("/")[2], MAX_BODY) + 1
    # The size alone decides, before the body is read.
    response = send(empty_client, method, path, json=None, data=b" ", environ_overrides={"CONTENT_LENGTH": str(size)})
    assert response.status_code == 413
    assert_fits(method, path, response)


@pytest.mark.parametrize(("method", "path"), named("400"))
def test_400_for_a_malformed_request(app: Flask, method: str, path: str) -> None:
    import_text(service_of(app), ROLLOUT)
    bad = {"json": None, "data": "[1"} if method == "POST" else {"query_string": "machine=a&machine=b&state=%01"}
    bad |= {"query_string": "dry_run=maybe"} if (method, path) == PUT_CHART else {}
    bad |= {"query_string": "format=png"} if path.endswith("/diagram") else {}
    bad |= {"query_string": "when=now"} if path.endswith("/test") else {}
    bad |= {"data": ""} if path == "/calendars/{calendar}" else {}
    response = send(app.test_client(), method, path, **bad)
    assert response.status_code == 400
    assert_fits(method, path, response)


@pytest.mark.parametrize("limit", ["charts", "machine", "expires"])
def test_400_for_a_token_with_an_empty_limit(client: FlaskClient, limit: str) -> None:
    response = send(client, "PUT", "/tokens/{token}", json={"role": "machine", limit: ""})
    assert (response.status_code, response.get_json()["detail"].partition(" ")[0]) == (400, limit)
    assert client.get("/tokens").get_json() == []


@pytest.mark.parametrize("path", [path for method, path in named("422") if method == "POST"])
def test_422_without_a_reason(app: Flask, path: str) -> None:
    import_text(service_of(app), ROLLOUT)
    response = send(app.test_client(), "POST", path, json={"machine": "m1", "state": "done"})
    assert response.status_code == 422
    assert_fits("POST", path, response)


# and those that are an operation's own

FULL = {"query_string": {"state": "reboot", "machine": "m3"}}
JSON = {"Accept": "application/json"}
FOLLOWING = REBOOT.replace("[m1, m2, m3]", "{roster: web}")
OWN: list[tuple[str, str, int, str, dict[str, Any]]] = [
    ("GET", "/state", 200, ROLLOUT, {}),
    ("GET", "/state", 200, ROLLOUT, {"headers": JSON}),
    ("GET", "/state", 406, ROLLOUT, {"query_string": "state=done"}),
    ("GET", "/state", 406, ROLLOUT, {"query_string": "state=done", "headers": JSON}),
    ("PUT", "/state", 200, ROLLOUT, {}),
    ("PUT", "/state", 406, ROLLOUT, {"query_string": "state=done"}),
    ("GET", "/reached", 200, ROLLOUT, {}),
    ("GET", "/reached", 406, ROLLOUT, {"query_string": "state=done"}),
    ("GET", "/turn", 200, ROLLOUT, {}),
    ("GET", "/turn", 406, "paused " + ROLLOUT, {}),
    ("GET", "/charts/{chart}/turn", 200, ROLLOUT, {"headers": JSON}),
    ("GET", "/charts/{chart}/turn", 200, REBOOT, {"headers": JSON}),
    ("GET", "/charts/{chart}/turn", 406, "paused " + ROLLOUT, {"headers": JSON}),
    ("GET", "/charts/{chart}/state", 200, ROLLOUT, {"headers": JSON}),
    ("GET", "/charts/{chart}/state", 406, ROLLOUT, {"query_string": "state=done", "headers": JSON}),
    ("PUT", "/charts/{chart}/state", 200, ROLLOUT, {"headers": JSON}),
    ("PUT", "/charts/{chart}/state", 406, ROLLOUT, {"query_string": "state=done", "headers": JSON}),
    (
        "PUT",
        "/charts/{chart}/state",
        409,
        ROLLOUT.replace("{key: count, value: 0}, {key: f", "{key: count, value: 9223372036854775807}, {key: f").replace(
            "key: count, value: 2", 'key: count, op: "<", value: 2'
        ),
        {"query_string": "state=canary"},
    ),
    ("PUT", "/charts/{chart}/state", 422, ROLLOUT, {"headers": {"Idempotency-Key": "used"}}),
    ("GET", "/charts/{chart}/reached", 200, ROLLOUT, {"headers": JSON}),
    ("GET", "/charts/{chart}/reached", 406, ROLLOUT, {"query_string": "state=done", "headers": JSON}),
    ("GET", "/charts/{chart}/can.curl", 200, ROLLOUT, {}),
    ("GET", "/charts/{chart}/did.curl", 200, ROLLOUT, {}),
    ("PUT", "/charts/{chart}/slot", 200, REBOOT, {"query_string": "state=reboot&machine=m1", "headers": JSON}),
    ("PUT", "/charts/{chart}/slot", 406, REBOOT, FULL | {"headers": JSON}),
    ("DELETE", "/charts/{chart}/slot", 200, REBOOT, FULL | {"headers": JSON}),
    ("DELETE", "/charts/{chart}/slot", 406, REBOOT, {"query_string": "state=reboot&machine=m3&run=2", "headers": JSON}),
    ("POST", "/charts/{chart}/evict", 200, REBOOT, {}),
    ("POST", "/charts/{chart}/evict", 409, ROLLOUT, {}),
    ("POST", "/v1/pre-reboot", 200, REBOOT, {}),
    ("POST", "/v1/pre-reboot", 409, ROLLOUT, {}),
    ("POST", "/v1/steady-state", 200, REBOOT, {}),
    ("POST", "/v1/steady-state", 200, "paused " + REBOOT, {}),
    (
        "POST",
        "/v1/steady-state",
        409,
        REBOOT.replace("{key: count, value: 0}", "{key: count, value: 9223372036854775807}").replace(
            "{key: count, value: 3}", '{key: count, op: "<", value: 3}'
        ),
        {},
    ),
    ("GET", "/charts", 200, ROLLOUT, {}),
    ("GET", "/charts", 200, REBOOT, {}),
    ("GET", "/charts/{chart}", 200, ROLLOUT, {}),
    ("GET", "/charts/{chart}", 200, REBOOT, {}),
    ("GET", "/charts/{chart}", 200, ROLLOUT, {"headers": {"Accept": "text/plain"}}),
    ("GET", "/charts/{chart}", 200, ROLLOUT, {"headers": {"Accept": "application/yaml"}}),
    ("PUT", "/charts/{chart}", 200, ROLLOUT, {}),
    ("PUT", "/charts/{chart}", 200, ROLLOUT, {"data": ROLLOUT + "# and more\n"}),
    ("PUT", "/charts/{chart}", 201, ROLLOUT, {"chart": "new"}),
    ("PUT", "/charts/{chart}", 409, ROLLOUT, {"data": REBOOT}),
    ("PUT", "/charts/{chart}", 422, ROLLOUT, {"data": "states: 7"}),
    ("GET", "/charts/{chart}/versions", 200, ROLLOUT, {}),
    ("GET", "/charts/{chart}/versions/{version}", 200, ROLLOUT, {}),
    ("GET", "/charts/{chart}/versions/{version}", 404, ROLLOUT, {"version": "2"}),
    ("GET", "/charts/{chart}/diagram", 200, ROLLOUT, {"query_string": ""}),
    ("GET", "/charts/{chart}/diagram", 200, ROLLOUT, {"query_string": "format=dot"}),
    ("GET", "/charts/{chart}/diagram", 200, ROLLOUT, {"query_string": "format=mermaid"}),
    ("POST", "/charts/{chart}/pause", 200, ROLLOUT, {}),
    ("POST", "/charts/{chart}/pause", 409, "paused " + ROLLOUT, {}),
    ("POST", "/charts/{chart}/resume", 200, "paused " + ROLLOUT, {}),
    ("POST", "/charts/{chart}/resume", 409, ROLLOUT, {}),
    ("POST", "/charts/{chart}/reset", 200, ROLLOUT, {}),
    ("POST", "/charts/{chart}/goto", 200, ROLLOUT, {}),
    ("POST", "/charts/{chart}/archive", 200, ROLLOUT, {}),
    ("POST", "/charts/{chart}/open", 200, CLOSED, {}),
    ("POST", "/charts/{chart}/open", 409, ROLLOUT, {}),
    ("GET", "/charts/{chart}/runs", 200, ROLLOUT, {}),
    ("GET", "/charts/{chart}/runs", 200, REBOOT, {}),
    ("GET", "/charts/{chart}/verify", 200, ROLLOUT, {}),
    ("GET", "/logs", 200, ROLLOUT, {}),
    ("GET", "/calendars", 200, CLOSED, {}),
    ("GET", "/calendars/{calendar}", 200, CLOSED, {}),
    ("GET", "/calendars/{calendar}", 200, CLOSED, {"headers": {"Accept": "text/calendar"}}),
    ("GET", "/calendars/{calendar}/versions", 200, CLOSED, {}),
    ("GET", "/calendars/{calendar}/versions/{version}", 200, CLOSED, {}),
    ("PUT", "/calendars/{calendar}", 200, CLOSED, {}),
    ("PUT", "/calendars/{calendar}", 200, CLOSED, {"data": NOTHING}),
    ("PUT", "/calendars/{calendar}", 201, CLOSED, {"calendar": "new"}),
    ("PUT", "/calendars/{calendar}", 422, CLOSED, {"data": "no calendar"}),
    ("GET", "/rosters", 200, FOLLOWING, {}),
    ("GET", "/rosters/{roster}", 200, FOLLOWING, {}),
    ("GET", "/rosters/{roster}", 200, FOLLOWING, {"headers": JSON, "query_string": "where=zone:a"}),
    ("GET", "/rosters/{roster}/versions", 200, FOLLOWING, {}),
    ("GET", "/rosters/{roster}/versions/{version}", 200, FOLLOWING, {}),
    ("GET", "/rosters/{roster}/versions/{version}", 200, FOLLOWING, {"headers": JSON}),
    ("GET", "/rosters/{roster}/diff", 200, FOLLOWING, {"query_string": "from=1&to=1"}),
    (
        "GET",
        "/rosters/{roster}/diff",
        200,
        FOLLOWING,
        {"headers": {"Accept": "text/plain"}, "query_string": "from=1&to=1"},
    ),
    ("PUT", "/rosters/{roster}", 200, FOLLOWING, {}),
    ("PUT", "/rosters/{roster}", 200, FOLLOWING, {"data": "m1\nm2\n", "query_string": "max_loss=50%25"}),
    ("PUT", "/rosters/{roster}", 201, FOLLOWING, {"roster": "new"}),
    ("PUT", "/rosters/{roster}", 409, FOLLOWING, {"data": ""}),
    ("PUT", "/rosters/{roster}", 422, FOLLOWING, {"data": "m1 zone\n"}),
    ("GET", "/charts/{chart}/machines", 200, ROLLOUT, {"query_string": ""}),
    ("GET", "/charts/{chart}/machines", 200, REBOOT, {"query_string": "is=missing"}),
    ("GET", "/charts/{chart}/machines", 200, REBOOT, {"query_string": "", "headers": {"Accept": "text/plain"}}),
    ("GET", "/charts/{chart}/machines", 200, REBOOT, {"query_string": "is=working"}),
    ("GET", "/charts/{chart}/machines", 200, REBOOT, {"query_string": "is=working&format=csv"}),
    ("GET", "/machines/{machine}", 200, ROLLOUT, {"query_string": ""}),
    ("GET", "/machines/{machine}", 200, REBOOT, {"query_string": ""}),
    ("GET", "/machines/{machine}", 200, ROLLOUT, {"query_string": "", "headers": {"Accept": "text/plain"}}),
    ("POST", "/charts/{chart}/reset", 200, REBOOT, {"query_string": "dry_run=1"}),
    ("POST", "/charts/{chart}/goto", 200, ROLLOUT, {"query_string": "dry_run=1"}),
    ("GET", "/charts/{chart}/history", 200, ROLLOUT, {"query_string": ""}),
    ("GET", "/charts/{chart}/history", 200, ROLLOUT, {"query_string": "format=csv"}),
    ("GET", "/charts/{chart}/history", 200, ROLLOUT, {"query_string": "format=ndjson"}),
    ("GET", "/subscriptions", 200, ROLLOUT, {}),
    ("GET", "/subscriptions/{subscription}", 200, ROLLOUT, {}),
    ("PUT", "/subscriptions/{subscription}", 200, ROLLOUT, {}),
    ("PUT", "/subscriptions/{subscription}", 201, ROLLOUT, {"subscription": "new"}),
    ("PUT", "/subscriptions/{subscription}", 422, ROLLOUT, {"json": {"url": "http://10.0.0.1/"}}),
    ("DELETE", "/subscriptions/{subscription}", 200, ROLLOUT, {}),
    ("GET", "/subscriptions/{subscription}/deliveries", 200, ROLLOUT, {}),
    ("POST", "/subscriptions/{subscription}/test", 200, ROLLOUT, {}),
    ("GET", "/tokens", 200, ROLLOUT, {}),
    ("PUT", "/tokens/{token}", 201, ROLLOUT, {}),
    ("PUT", "/tokens/{token}", 409, "fleet " + ROLLOUT, {}),
    ("DELETE", "/tokens/{token}", 200, "fleet " + ROLLOUT, {}),
    ("DELETE", "/tokens/{token}", 409, ROLLOUT, {}),
    ("GET", "/healthz", 200, ROLLOUT, {}),
    ("GET", "/readyz", 200, ROLLOUT, {}),
    ("GET", "/metrics", 200, ROLLOUT, {}),
    ("GET", "/openapi.json", 200, ROLLOUT, {}),
    ("GET", "/chart.schema.json", 200, ROLLOUT, {}),
]
SHARED = {"400", "401", "403", "404", "413", "500", "503"}


@pytest.mark.parametrize(
    ("method", "path", "status", "chart", "sent"), OWN, ids=[f"{m}-{p}-{s}-{n}" for n, (m, p, s, *_) in enumerate(OWN)]
)
def test_answer_is_as_described(
    app: Flask, method: str, path: str, status: int, chart: str, sent: dict[str, Any]
) -> None:
    client = prepare(app, chart)
    response = send(client, method, path, **sent)
    assert response.status_code == status, response.text
    assert_fits(method, path, response)


def prepare(app: Flask, chart: str) -> FlaskClient:
    """A chart with some reports, or a chart whose slots are all held; a calendar and a roster, which it may go by."""
    client = app.test_client()
    for path in ("/calendars/{calendar}", "/rosters/{roster}"):
        assert send(client, "PUT", path).status_code == 201
    if chart.startswith("fleet "):
        create_token(service_of(app), "fleet", Role.READER, "*", ANN)
    import_text(service_of(app), chart.removeprefix("paused ").removeprefix("fleet "))
    service_of(app).webhook_hosts = AllowedHosts(["127.0.0.1"])
    assert send(client, "PUT", "/subscriptions/{subscription}").status_code == 201
    if "slots" in chart:
        for machine in ("m1", "m2"):
            assert client.put(f"/charts/web/slot?state=reboot&machine={machine}").status_code == 200
    else:
        client.put("/charts/web/state?state=canary&machine=m0", headers={"Idempotency-Key": "used"})
    if chart.startswith("paused"):
        operate.pause(service_of(app), "web", "look", ANN)
    return client


def test_every_status_in_the_document_is_tested_here() -> None:
    seen = {(method, path, str(status)) for method, path, status, *_ in OWN}
    seen |= {("POST", "/enrol", "201"), ("POST", "/enrol", "409")}
    seen |= {("POST", path, "422") for method, path in named("422") if method == "POST"}
    left = {
        (method, path, status)
        for method, path, item in operations()
        for status in item["responses"]
        if status not in SHARED and (method, path, status) not in seen
    }
    assert left == set()
