"""What each role may do: on every route, for charts inside and outside the token's pattern."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from app.core.errors import BadRequestError, UnauthenticatedError
from app.service import tokens
from app.service.context import Service
from app.service.tokens import Holder, Role, create_token, revoke_token
from app.web.auth import RULES
from app.wiring import service_of
from tests.service.support import ANN, ROLLOUT, import_text, query
from tests.support.apps import ROOT, opened_app

# These routes name no chart, so that the pattern of a token does not matter.
WITHOUT_CHART = {
    "charts.get_charts",
    "observe.get_metrics",
    "observe.get_openapi",
    "ui.get_index",
    "ui.get_nothing",
    "ui.get_import",
    "ui.get_tokens",
    "ui.post_token",
    "ui.post_revoke",
}
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
    "ui.post_import": {"data": {"name": "web", "text": ROLLOUT, "dry_run": "1"}},
    "ui.post_act": {"data": {"reason": "x"}},
}
VALUES = {"name": "web", "subscription": "pager", "version": 1, "act": "pause", "rest": "nowhere", "filename": "x"}
PEOPLE = "ui."
# These pages also need a form's token, or a pattern that covers every chart.
MORE = ("ui.get_tokens", "ui.post_", "subscriptions.")
ASK_FOR_MORE = {endpoint for endpoint in RULES if endpoint.startswith(MORE)}


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """The service with one chart. It requires tokens."""
    for app in opened_app(database_url, auth="tokens", default_chart="web"):
        import_text(service_of(app), ROLLOUT)
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


def send(app: Flask, endpoint: str, secret: str | None) -> TestResponse:
    """A valid request on the chart `web`."""
    rule = rules(app)[endpoint]
    with app.test_request_context():
        path = app.url_map.bind("localhost").build(endpoint, {name: VALUES[name] for name in rule.arguments})
    method = next(iter((rule.methods or set()) - {"HEAD", "OPTIONS"}))
    sent = dict(BODIES.get(endpoint, {} if method == "GET" else {"json": {"reason": "x", "state": "done"}}))
    headers = {**sent.pop("headers", {}), **({} if secret is None else bearer(secret))}
    path += "?state=canary&machine=m1" if "ui" not in endpoint and endpoint != "charts.put_chart" else ""
    return app.test_client().open(path, method=method, headers=headers, **sent)


# The table of rules


def test_every_route_has_a_rule_and_every_rule_a_route(app: Flask) -> None:
    assert set(rules(app)) - set(RULES) == set(), "a route without a rule is forbidden to every role"
    assert set(RULES) - set(rules(app)) == set()


def test_route_without_a_rule_is_forbidden_to_every_role(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = make(service_of(app), Role.ADMIN)
    monkeypatch.delitem(RULES, "charts.get_chart")
    assert send(app, "charts.get_chart", secret).status_code == 403


CLOSED = sorted(endpoint for endpoint, role in RULES.items() if role is not None)


@pytest.mark.parametrize("endpoint", CLOSED)
def test_route_needs_its_role_and_pattern(sqlite_url: str, endpoint: str) -> None:
    needed = RULES[endpoint]
    assert needed is not None
    wanted, found = {}, {}
    for app in opened_app(sqlite_url, auth="tokens", default_chart="web"):
        answer_at_once(app)
        for role, pattern in product(Role, ("w?b", "other-*")):
            # The next request must find the chart, so an archive or an import here must not change that.
            import_text(service_of(app), ROLLOUT)
            secret = make(service_of(app), role, pattern, name=f"{role}-{len(found)}")
            found[role, pattern] = send(app, endpoint, secret).status_code not in (401, 403)
            is_covered = pattern == "w?b" or endpoint in WITHOUT_CHART
            wanted[role, pattern] = role >= needed and is_covered
    if endpoint in ASK_FOR_MORE:
        assert [who for who, is_allowed in found.items() if is_allowed and not wanted[who]] == []
    else:
        assert found == wanted


@pytest.mark.parametrize("endpoint", CLOSED)
def test_route_is_closed_without_a_token(app: Flask, endpoint: str) -> None:
    response = send(app, endpoint, None)
    if endpoint.startswith(PEOPLE):
        # A person is sent to the page that asks for a token.
        assert response.status_code in (303, 401)
    else:
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="stateservice"'


@pytest.mark.parametrize("endpoint", ["observe.get_healthz", "observe.get_readyz"])
def test_open_route_needs_no_token(app: Flask, endpoint: str) -> None:
    assert send(app, endpoint, None).status_code == 200
    assert send(app, endpoint, "nonsense").status_code == 200


def test_each_role_may_do_what_is_documented() -> None:
    """Each role may also do what the roles before it may."""
    needs = {
        Role.READER: {"charts.get_charts", "charts.get_chart", "charts.get_history", "state.get_state"},
        Role.MACHINE: {"state.put_state", "state.put_default_state", "state.put_slot"},
        Role.OPERATOR: {"operate.post_pause", "operate.post_resume", "operate.post_reset", "operate.post_goto"},
        Role.ADMIN: {"charts.put_chart", "operate.post_archive", "ui.post_token", "ui.post_revoke"},
    }
    for role, endpoints in needs.items():
        assert {RULES[endpoint] for endpoint in endpoints} == {role}
    for endpoint, needed in RULES.items():
        # A receiver's address is often a secret by itself.
        if ".get_" in endpoint and not endpoint.startswith((PEOPLE, "subscriptions.")):
            assert needed in (None, Role.READER), endpoint


def test_page_of_tokens_lists_the_rules(app: Flask) -> None:
    table = dict(re.findall(r"^\| `([A-Z]+ /\S*)` \| (.+?) \|$", (ROOT / "docs/tokens.md").read_text(), re.MULTILINE))
    wanted = {}
    for rule in app.url_map.iter_rules():
        if rule.rule != "/" and not rule.rule.startswith(("/ui/", "/static/")):
            path = re.sub(r"<[^:>]+:name>", "C", re.sub(r"<[^:>]+:(version|subscription)>", "N", rule.rule))
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
def test_token_is_accepted_as_bearer_and_basic(app: Flask, authorization: Any) -> None:
    secret = make(service_of(app))
    value = authorization.format(secret) if isinstance(authorization, str) else authorization(secret)
    assert app.test_client().get("/charts", headers={"Authorization": value}).status_code == 200


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
def test_other_authorization_is_401(app: Flask, authorization: str) -> None:
    make(service_of(app))
    response = app.test_client().get("/charts", headers={"Authorization": authorization})
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
    revoke_token(service, "token")
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
