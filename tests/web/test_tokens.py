"""What each role may do: on every route, for charts inside and outside the token's pattern."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import DBAPIError
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from app.core.errors import BadRequestError, ConflictError, UnauthenticatedError
from app.service import tokens
from app.service.context import Service
from app.service.tokens import GRANTS, Holder, Role, create_token, revoke_token
from app.web.auth import RULES
from app.wiring import service_of
from tests.service.support import ANN, ROLLOUT, Clock, import_text, query
from tests.support.apps import ROOT, opened_app
from tests.support.databases import copied
from tests.support.routes import WITHOUT_CHART

# These need a token for all charts.
FOR_ALL_CHARTS = {
    "ui.get_tokens",
    "ui.post_token",
    "ui.post_revoke",
    "tokens.get_tokens",
    "tokens.put_token",
    "tokens.delete_token",
    *(endpoint for endpoint in RULES if endpoint.startswith(("subscriptions.", "calendars.put_", "rosters.put_"))),
    *(endpoint for endpoint in RULES if endpoint.startswith(("ui.get_subscription", "ui.post_subscription"))),
}
# These routes get their chart from the query.
QUERIES = {"ui.get_import": "chart=web"}
FORM_TOKEN = "f" * 43
# These routes get their chart from the body.
BODIES: dict[str, dict[str, Any]] = {
    "fleetlock.post_pre_reboot": {
        "json": {"client_params": {"id": "m1", "group": "web"}},
        "headers": {"fleet-lock-protocol": "true"},
    },
    "fleetlock.post_steady_state": {
        "json": {"client_params": {"id": "m1", "group": "web"}},
        "headers": {"fleet-lock-protocol": "true"},
    },
    "ui.post_import": {"data": {"name": "web", "text": ROLLOUT}},
    "ui.post_act": {"data": {"reason": "x"}},
    "ui.post_token": {"data": {"name": "new", "role": "reader"}},
    "ui.post_revoke": {"data": {"name": "nobody"}},
    "tokens.put_token": {"json": {"role": "reader"}},
    "tokens.delete_token": {},
}
VALUES = {
    "name": "web",
    "subscription": "pager",
    "version": 1,
    "act": "pause",
    "rest": "nowhere",
    "filename": "x",
    "token": "new",
    "machine": "m1",
    "calendar": "freeze",
}
PEOPLE = "ui."


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """The service with one chart. It requires tokens."""
    for app in opened_app(database_url, auth="tokens", default_chart="web"):
        import_text(service_of(app), ROLLOUT)
        yield app


@pytest.fixture(scope="module")
def guarded(sqlite_template: Path) -> Iterator[Flask]:
    """The service with one chart, which the tests share that ask whom a route lets in."""
    with copied(sqlite_template) as url:
        for app in opened_app(url, auth="tokens", default_chart="web"):
            answer_at_once(app)
            import_text(service_of(app), ROLLOUT)
            yield app


@pytest.fixture(scope="module")
def bare(sqlite_template: Path) -> Iterator[Flask]:
    """The service without a chart."""
    with copied(sqlite_template) as url:
        for app in opened_app(url, auth="tokens"):
            answer_at_once(app)
            yield app


@pytest.fixture(scope="module")
def charted(sqlite_template: Path) -> Iterator[Flask]:
    """The service with the chart `there`, which is thereby the default chart."""
    with copied(sqlite_template) as url:
        for app in opened_app(url, auth="tokens"):
            answer_at_once(app)
            import_text(service_of(app), ROLLOUT, name="there")
            yield app


def answer_at_once(app: Flask) -> None:
    """Let no request wait: a route that waits answers as if the server was told to stop."""
    service_of(app).hub.close()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def make(service: Service, role: Role = Role.READER, pattern: str = "*", name: str = "token") -> str:
    return create_token(service, name, role, pattern, ANN)


def rules(app: Flask) -> dict[str, Rule]:
    return {rule.endpoint: rule for rule in app.url_map.iter_rules()}


ACT = {"reason": "x", "state": "done", "machine": "m1"}
# Routes that take a machine, and most of them a state.
OF_MACHINES = ("state.", "charts.get_can", "charts.get_did", "tokens.post_enrol")


def send(app: Flask, endpoint: str, secret: str | None, chart: str = "web", machine: str | None = "m1") -> TestResponse:
    """A valid request on a chart. A form is sent as one of our pages sends it."""
    rule = rules(app)[endpoint]
    values = VALUES | {"name": chart, "roster": "web"}
    with app.test_request_context():
        path = app.url_map.bind("localhost").build(endpoint, {name: values[name] for name in rule.arguments})
    method = next(iter((rule.methods or set()) - {"HEAD", "OPTIONS"}))
    given = json.dumps(BODIES.get(endpoint, {} if method == "GET" else {"json": ACT}))
    sent = json.loads(given.replace('"web"', f'"{chart}"').replace('"m1"', f'"{machine}"'))
    headers = {**sent.pop("headers", {}), **({} if secret is None else bearer(secret))}
    client = app.test_client()
    if endpoint.startswith("ui.post_"):
        client.set_cookie("stateservice_form", FORM_TOKEN)
        sent.setdefault("data", {})["form_token"] = FORM_TOKEN
        sent.pop("json", None)
        headers["Origin"] = "http://localhost"
    query = QUERIES.get(endpoint, "").replace("web", chart)
    if endpoint.startswith(OF_MACHINES):
        query = "" if "turn" in endpoint or "enrol" in endpoint else "state=canary"
        query += "" if machine is None else f"&machine={machine}"
    return client.open(f"{path}?{query}", method=method, headers=headers, **sent)


# The table of rules


def test_every_route_has_a_rule_and_every_rule_a_route(app: Flask) -> None:
    assert set(rules(app)) - set(RULES) == set(), "a route without a rule is forbidden to every role"
    assert set(RULES) - set(rules(app)) == set()


def test_route_without_a_rule_is_forbidden_to_every_role(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = make(service_of(app), Role.ADMIN)
    monkeypatch.delitem(RULES, "charts.get_chart")
    assert send(app, "charts.get_chart", secret).status_code == 403


CLOSED = sorted(endpoint for endpoint, role in RULES.items() if role is not None)


# Each route is asked once with each of these patterns.
PATTERNS = {"*": True, "w?b": True, "other-*": False}


@pytest.fixture(scope="module")
def secrets(guarded: Flask) -> dict[tuple[Role, str], str]:
    """The secret of a token with each role and each pattern."""
    return {
        (role, pattern): make(service_of(guarded), role, pattern, name=f"{role}-{number}")
        for role in Role
        for number, pattern in enumerate(PATTERNS)
    }


@pytest.mark.parametrize("endpoint", CLOSED)
def test_route_needs_its_role_and_pattern(guarded: Flask, secrets: dict[tuple[Role, str], str], endpoint: str) -> None:
    needed = RULES[endpoint]
    assert needed is not None
    wanted, found = {}, {}
    for (role, pattern), secret in secrets.items():
        found[role, pattern] = send(guarded, endpoint, secret).status_code not in (401, 403)
        if "archive" in endpoint:
            # The next request must find the chart.
            import_text(service_of(guarded), ROLLOUT)
        is_covered = PATTERNS[pattern] or endpoint in WITHOUT_CHART
        if endpoint in FOR_ALL_CHARTS:
            is_covered = pattern == "*"
        wanted[role, pattern] = needed in GRANTS[role] and is_covered
    assert found == wanted


@pytest.mark.parametrize("endpoint", sorted(set(CLOSED) - WITHOUT_CHART - FOR_ALL_CHARTS))
def test_answer_outside_the_pattern_is_the_same_without_the_chart(bare: Flask, charted: Flask, endpoint: str) -> None:
    answers = []
    for app, chart in ((bare, "gone"), (charted, "there")):
        name = f"token-{chart}-{endpoint}"
        secret = make(service_of(app), Role.ADMIN, "other-*", name=name)
        response = send(app, endpoint, secret, chart)
        text = response.text.replace(name, "T").replace("gone", "there")
        answers.append((response.status_code, re.sub(r'name="form_token" value="[^"]*"', "", text)))
    assert answers[0] == answers[1]
    assert answers[0][0] == 403


# Machines' own tokens

SPOKEN = sorted(
    endpoint for endpoint in RULES if endpoint.startswith((*OF_MACHINES, "fleetlock.")) and "enrol" not in endpoint
)


@pytest.fixture(scope="module")
def machines(guarded: Flask) -> tuple[str, str]:
    """The secrets of a token for one machine, and of a token for all machines of a kind."""
    service = service_of(guarded)
    own = create_token(service, "web-01", Role.MACHINE, "*", ANN, machine="web-01")
    return own, create_token(service, "fleet", Role.MACHINE, "*", ANN, machine="web-*")


@pytest.mark.parametrize("endpoint", SPOKEN)
def test_machines_own_token_is_for_that_machine_alone(guarded: Flask, machines: tuple[str, str], endpoint: str) -> None:
    for secret in machines:
        assert send(guarded, endpoint, secret, machine="web-01").status_code not in (401, 403)
        refused = send(guarded, endpoint, secret, machine="db-01")
        assert refused.status_code == 403
        assert "'db-01'" in refused.text
    assert send(guarded, endpoint, machines[0], machine="web-02").status_code == 403
    assert "db-01" not in str(query(service_of(guarded), "SELECT machine FROM transition_log"))


def test_machine_may_be_left_out_with_its_own_token(app: Flask) -> None:
    service = service_of(app)
    own = create_token(service, "web-01", Role.MACHINE, "*", ANN, machine="web-01")
    fleet = create_token(service, "fleet", Role.MACHINE, "*", ANN, machine="web-*")
    client = app.test_client()
    url = "/charts/web/state?state=canary"
    assert [client.put(url, headers=bearer(own)).status_code for _ in "12"] == [200, 200]
    assert query(service, "SELECT machine FROM reports") == [("web-01",)]
    # A token for several machines must say which; a question need not.
    assert client.put(url, headers=bearer(fleet)).status_code == 400
    assert client.get(url, headers=bearer(fleet)).status_code == 200
    assert client.get("/charts/web/turn", headers=bearer(own)).get_json(silent=True) is None
    # In a header, too.
    assert client.put(url, headers=bearer(own) | {"X-Machine": "web-02"}).status_code == 403


@pytest.mark.parametrize(
    ("role", "machine"),
    [
        ("operator", "web-01"),
        ("admin", "*"),
        ("machine", "a[b]"),
        ("machine", " a"),
        ("machine", "a\n"),
        ("machine", ""),
    ],
)
def test_token_for_a_machine_is_refused(service: Service, role: str, machine: str) -> None:
    with pytest.raises(BadRequestError, match="machine"):
        create_token(service, "x", Role(role), "*", ANN, machine=machine)


def enrol(app: Flask, secret: str, machine: str, **query: str) -> TestResponse:
    asked = {"machine": machine, **query}
    return app.test_client().post("/enrol", query_string=asked, headers=bearer(secret))


def test_machine_enrols_once_until_its_token_is_revoked(app: Flask) -> None:
    service = service_of(app)
    secret = create_token(service, "enroller", Role.ENROL, "web*", ANN, machine="web-*")
    done = enrol(app, secret, "web-01", expires="90d")
    assert (done.status_code, done.headers["Cache-Control"]) == (201, "no-store")
    fields = done.get_json()
    assert (fields["name"], fields["machine"], fields["pattern"]) == ("web-01", "web-01", "web*")
    url = "/charts/web/state?state=canary"
    assert app.test_client().put(url, headers=bearer(fields["token"])).status_code == 200
    assert enrol(app, fields["token"], "web-02").status_code == 403
    assert enrol(app, secret, "db-01").status_code == 403
    again = enrol(app, secret, "web-01")
    assert (again.status_code, "revoke it first" in again.text) == (409, True)
    revoke_token(service, "web-01", ANN)
    assert enrol(app, secret, "web-01").get_json()["name"] == "web-01:2"
    rows = query(service, "SELECT kind, token, actor FROM token_log ORDER BY id")
    assert rows == [
        ("create", "enroller", "ann"),
        ("enrol", "web-01", "enroller"),
        ("revoke", "web-01", "ann"),
        ("enrol", "web-01:2", "enroller"),
    ]


def test_enrolment_answers_the_token_alone_as_text(app: Flask) -> None:
    secret = create_token(service_of(app), "enroller", Role.ENROL, "*", ANN)
    headers = bearer(secret) | {"Accept": "text/plain"}
    done = app.test_client().post("/enrol?machine=rack 7 é", headers=headers)
    assert re.fullmatch(r"sst_[A-Za-z0-9_-]{43}\n", done.text)
    assert [row.name for row in tokens.list_tokens(service_of(app))] == ["enroller", "rack_7__"]


def test_enrolment_refuses_an_id_that_is_a_pattern(app: Flask) -> None:
    secret = create_token(service_of(app), "enroller", Role.ENROL, "*", ANN)
    for machine in ("web-*", "a[1]", " a", "x" * 256, ""):
        assert enrol(app, secret, machine).status_code == 400, machine


def test_two_enrolments_at_one_time_give_one_token(service: Service) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(tokens.enrol_machine, service, "web-01", "*", ANN) for _ in range(4)]
    failed = [type(one.exception()) for one in asked if one.exception() is not None]
    assert failed == [ConflictError] * 3


def test_open_service_enrols_nobody(sqlite_url: str) -> None:
    for app in opened_app(sqlite_url, auth="open"):
        assert app.test_client().post("/enrol?machine=web-01").status_code == 400


def test_expired_token_is_refused(app: Flask) -> None:
    service = service_of(app)
    clock = service.database.clock = Clock()
    secret = create_token(service, "short", Role.READER, "*", ANN, lifetime=timedelta(days=90))
    client = app.test_client()
    assert client.get("/charts", headers=bearer(secret)).status_code == 200
    clock.now += timedelta(days=90)
    time.sleep(tokens.BELIEVED_SECONDS + 0.1)
    refused = client.get("/charts", headers=bearer(secret))
    assert (refused.status_code, "expired" in refused.text) == (401, True)


def test_last_use_is_kept_to_the_hour(app: Flask) -> None:
    service = service_of(app)
    clock = service.database.clock = Clock()
    secret = create_token(service, "fleet", Role.MACHINE, "*", ANN)
    app.test_client().get("/charts", headers=bearer(secret))
    app.extensions["stateservice.access"].write_uses()
    (row,) = tokens.list_tokens(service)
    assert row.last_used_at == clock.now.replace(minute=0, second=0, microsecond=0)


# Approvers

APPROVED = """\
chart: change
current_state: approve
states:
  - name: approve
    who: approvers
    func: increment
    current: [{key: approved, value: 0}, {key: rejected, value: 0}]
    target: [{name: work, when: {key: approved, value: 2}}, {name: done, when: {key: rejected, value: 1}}]
  - name: work
    func: increment
    current: {key: count, value: 0}
    target: {name: done, when: {key: count, value: 1}}
  - name: done
"""


def test_only_approvers_report_on_their_states_and_on_no_other(app: Flask) -> None:
    service, client = service_of(app), app.test_client()
    import_text(service, APPROVED, name="change")
    first, second = (make(service, Role.APPROVER, name=name) for name in ("ann", "ben"))
    fleet = make(service, Role.OPERATOR, name="fleet")
    url = "/charts/change/state?state="
    assert client.put(url + "approve", headers=bearer(fleet)).status_code == 403
    assert client.put(url + "approve&machine=ben", headers=bearer(first)).status_code == 403
    # One person counts once.
    assert [client.put(url + "approve", headers=bearer(first)).status_code for _ in "12"] == [200, 200]
    assert client.get("/charts/change", headers=bearer(first)).get_json()["current_state"] == "approve"
    assert client.put(url + "approve", headers=bearer(second)).status_code == 200
    assert client.get("/charts/change", headers=bearer(first)).get_json()["current_state"] == "work"
    assert client.put(url + "work", headers=bearer(first)).status_code == 403
    assert client.put(url + "work&machine=m", headers=bearer(fleet)).status_code == 200


# Tokens over HTTP


def test_administrator_makes_lists_and_revokes_tokens(app: Flask) -> None:
    service, client = service_of(app), app.test_client()
    boss = bearer(make(service, Role.ADMIN, name="boss"))
    body = {"role": "machine", "charts": "web*", "machine": "web-01", "expires": "90d"}
    made = client.put("/tokens/web-01", json=body, headers=boss)
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    assert client.get("/charts/web", headers=bearer(made.get_json()["token"])).status_code == 200
    assert client.put("/tokens/web-01", json=body, headers=boss).status_code == 409
    assert client.put("/tokens/x", json={"role": "king"}, headers=boss).status_code == 400
    assert client.put("/tokens/x", json={"role": "reader", "expires": "soon"}, headers=boss).status_code == 400
    assert client.put("/tokens/x", json={}, headers=boss).status_code == 400
    listed = client.get("/tokens", headers=boss)
    assert made.get_json()["token"] not in listed.text
    (row,) = [row for row in listed.get_json() if row["name"] == "web-01"]
    assert (row["role"], row["pattern"], row["machine"], row["created_by"]) == ("machine", "web*", "web-01", "boss")
    assert row["expires_at"] is not None
    assert client.delete("/tokens/web-01", headers=boss).status_code == 200
    assert client.delete("/tokens/web-01", headers=boss).status_code == 409
    assert client.delete("/tokens/nobody", headers=boss).status_code == 409


def test_log_of_tokens_cannot_be_changed(service: Service, owner: Service) -> None:
    make(service)
    for statement in ("UPDATE token_log SET actor = 'eve'", "DELETE FROM token_log"):
        with pytest.raises(DBAPIError, match="append-only"), owner.database.engine.begin() as connection:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize("endpoint", CLOSED)
def test_route_is_closed_without_a_token(guarded: Flask, endpoint: str) -> None:
    response = send(guarded, endpoint, None)
    if endpoint.startswith(PEOPLE):
        # A person is sent to the page that asks for a token.
        assert response.status_code in (303, 401)
    else:
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="stateservice"'


@pytest.mark.parametrize("endpoint", ["observe.get_healthz", "observe.get_readyz"])
def test_open_route_needs_no_token(guarded: Flask, endpoint: str) -> None:
    assert send(guarded, endpoint, None).status_code == 200
    assert send(guarded, endpoint, "nonsense").status_code == 200


def test_each_role_may_do_what_is_documented() -> None:
    """Each role may also do what the roles before it may."""
    needs = {
        Role.READER: {"charts.get_charts", "charts.get_chart", "charts.get_history", "state.get_state"},
        Role.MACHINE: {"state.put_state", "state.put_default_state", "state.put_slot"},
        Role.OPERATOR: {"operate.post_pause", "operate.post_resume", "operate.post_reset", "operate.post_goto"},
        Role.ADMIN: {"charts.put_chart", "operate.post_archive", "ui.post_token", "tokens.get_tokens"},
        Role.ENROL: {"tokens.post_enrol"},
    }
    for role, endpoints in needs.items():
        assert {RULES[endpoint] for endpoint in endpoints} == {role}
    # A receiver's address is often a secret by itself, and verify reads the whole log of a chart.
    kept_back = (PEOPLE, "subscriptions.", "tokens.", "charts.get_verify")
    for endpoint, needed in RULES.items():
        if ".get_" in endpoint and not endpoint.startswith(kept_back):
            assert needed in (None, Role.READER), endpoint


def test_page_of_tokens_lists_the_rules(app: Flask) -> None:
    table = dict(re.findall(r"^\| `([A-Z]+ /\S*)` \| (.+?) \|$", (ROOT / "docs/tokens.md").read_text(), re.MULTILINE))
    wanted = {}
    for rule in app.url_map.iter_rules():
        if rule.rule != "/" and not rule.rule.startswith(("/ui/", "/static/", "/docs")):
            path = re.sub(
                r"<[^:>]+:name>",
                "C",
                re.sub(r"<[^:>]+:(?:version|token|machine|subscription|calendar|roster)>", "N", rule.rule),
            )
            role = RULES[rule.endpoint]
            for method in (rule.methods or set()) - {"HEAD"}:
                wanted[f"{method} {path}"] = "no token needed" if role is None else str(role)
    assert table == wanted


def test_list_has_only_charts_inside_the_pattern(app: Flask) -> None:
    service = service_of(app)
    for name in ("web-1", "web-2", "db-1"):
        import_text(service, ROLLOUT, name=name)
    secret = make(service, pattern="web-*")
    listed = app.test_client().get("/charts", headers=bearer(secret)).get_json()
    assert [status["chart"] for status in listed] == ["web-1", "web-2"]


@pytest.mark.parametrize(
    ("pattern", "chart", "covers"),
    [
        ("*", "web", True),
        ("web", "web", True),
        ("web", "web2", False),
        ("web", "WEB", False),
        ("web-*", "web-", True),
        ("web-?", "web-12", False),
        ("*.prod", "web.prod", True),
        ("*.prod", "web-prod", False),
        ("team:*", "team:web", True),
    ],
)
def test_pattern_matches_like_a_shell(pattern: str, chart: str, covers: bool) -> None:
    assert Holder("x", Role.READER, pattern).may(Role.READER, chart) is covers


@pytest.mark.parametrize("pattern", ["[a-z]", "web/*", "", "*\n", "wéb", "x" * 257])
def test_malformed_pattern_is_refused(service: Service, pattern: str) -> None:
    with pytest.raises(BadRequestError, match="pattern"):
        make(service, pattern=pattern)


# Sending a token


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer {0}",
        "bearer {0}",
        lambda secret: "Basic " + base64.b64encode(f"x:{secret}".encode()).decode(),
        lambda secret: "Basic " + base64.b64encode(f":{secret}".encode()).decode(),
    ],
    ids=["bearer", "any case", "curl -u x:", "curl -u :"],
)
def test_token_is_accepted_as_bearer_and_basic(
    guarded: Flask, secrets: dict[tuple[Role, str], str], authorization: Any
) -> None:
    secret = secrets[Role.READER, "*"]
    value = authorization.format(secret) if isinstance(authorization, str) else authorization(secret)
    assert guarded.test_client().get("/charts", headers={"Authorization": value}).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer sst_wrong",
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Basic " + base64.b64encode(b"user-only").decode(),
        "Basic " + base64.b64encode(b"user:").decode(),
        "Digest username=x",
        "Bearer \xff\xfe",
        "nonsense",
    ],
)
def test_other_authorization_is_401(guarded: Flask, secrets: dict[tuple[Role, str], str], authorization: str) -> None:
    response = guarded.test_client().get("/charts", headers={"Authorization": authorization})
    assert (response.status_code, response.mimetype) == (401, "application/problem+json")


def test_token_in_the_url_is_ignored(app: Flask) -> None:
    secret = make(service_of(app))
    for name in ("token", "access_token", "authorization"):
        assert app.test_client().get(f"/charts?{name}={secret}").status_code == 401


def test_401_under_state_keeps_its_form(app: Flask) -> None:
    client: FlaskClient = app.test_client()
    assert client.get("/state?state=canary").status_code == 401
    reader = make(service_of(app))
    response = client.put("/state?state=canary", headers=bearer(reader))
    assert (response.status_code, response.mimetype) == (403, "text/plain")
    assert response.text == "token 'token' has the role reader: this needs machine\n"


# Storing a token


def test_database_keeps_only_the_hash_of_a_secret(service: Service) -> None:
    secret = make(service)
    (row,) = query(service, "SELECT * FROM tokens")
    assert secret not in map(str, row)
    assert hashlib.sha256(secret.encode()).hexdigest() in row


def test_revoked_token_is_refused_within_a_second(app: Flask) -> None:
    service, client = service_of(app), app.test_client()
    secret = make(service)
    assert client.get("/charts", headers=bearer(secret)).status_code == 200
    revoke_token(service, "token", ANN)
    time.sleep(tokens.BELIEVED_SECONDS + 0.1)
    assert client.get("/charts", headers=bearer(secret)).status_code == 401


def test_token_cache_keeps_only_the_tokens_used_last(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CACHE_SIZE", 2)
    cache = tokens.TokenCache()
    secrets = [make(service, name=f"t{number}") for number in range(3)]
    for secret in secrets:
        cache.authenticate(service, secret)
    assert set(cache._kept) == {tokens.hash_secret(secret) for secret in secrets[1:]}


def test_token_cache_does_not_keep_unknown_tokens(service: Service) -> None:
    cache = tokens.TokenCache()
    with pytest.raises(UnauthenticatedError):
        cache.authenticate(service, "sst_1")
    assert len(cache._kept) == 0


def test_token_is_looked_up_once_in_half_a_second(service: Service) -> None:
    secret, cache = make(service), tokens.TokenCache()
    found = cache.authenticate(service, secret)
    assert cache.authenticate(service, secret) is found


def test_name_of_the_token_is_the_actor_in_the_log(app: Flask) -> None:
    secret = make(service_of(app), Role.OPERATOR, name="ci@example")
    client = app.test_client()
    client.put("/state?state=canary&machine=m1", headers=bearer(secret))
    client.post("/charts/web/pause", headers=bearer(secret), json={"reason": "look", "actor": "somebody else"})
    rows = query(service_of(app), "SELECT kind, actor, machine FROM transition_log WHERE seq > 1 ORDER BY seq")
    assert rows == [("update", "ci@example", "m1"), ("pause", "ci@example", None)]
    status = client.get("/charts/web", headers=bearer(secret)).get_json()
    assert status["paused_by"] == "ci@example"


def test_secret_is_not_in_answers_and_log_lines(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = make(service_of(app), Role.MACHINE)
    client = app.test_client()
    answers = [
        client.get("/charts", headers=bearer(secret)),
        client.put("/state?state=canary", headers=bearer(secret)),
        client.post("/charts/web/pause", headers=bearer(secret), json={"reason": "x"}),
        client.get("/charts/gone", headers=bearer(secret)),
        client.get("/charts/web/can.curl?state=canary", headers=bearer(secret)),
        client.get("/charts", headers=bearer(secret + "x")),
    ]
    told = json.dumps([[answer.text, list(answer.headers)] for answer in answers]) + caplog.text
    assert secret not in told


def test_service_without_tokens_ignores_a_token(database_url: str) -> None:
    for app in opened_app(database_url, auth="open"):
        assert app.test_client().get("/charts", headers=bearer("sst_whatever")).status_code == 200
