"""Attacks on a service that requires tokens: guesses, other ways to carry one, wrong roles, wrong charts."""

from __future__ import annotations

import base64
import http.client
import json
import random
import string
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from itsdangerous import URLSafeTimedSerializer
from sqlalchemy import text
from werkzeug.routing import Rule

from app.config import Config
from app.core.log import Author
from app.db import asking
from app.service.tokens import PREFIX, Holder, Role, create_token, hash_secret, revoke_token
from app.web import auth
from app.web.auth import FOR_ALL_CHARTS, RULES
from app.wiring import create_app, service_of
from proof.proof import Proof, new_folder, opened
from proof.raw_http import CHART, STATE
from tests.support.databases import DATABASES
from tests.support.routes import WITHOUT_CHART
from tests.support.servers import GUNICORN, Server, patched, running

GUESSES = 5000
PATTERN = "web-*"
# One that the tokens' pattern covers, one that it does not, one that does not even exist.
INSIDE, OUTSIDE, NOWHERE = "web-1", "db-1", "gone"
REVOKED = "revoked"
KEY = "0123456789abcdef0123456789abcdef"
# A token's letters, to guess with.
LETTERS = string.ascii_letters + string.digits + "-_"
# The page to import is asked for without a chart here.
ANY_CHART = WITHOUT_CHART | {"ui.get_import"}
# Every route that needs a role.
CLOSED = tuple(endpoint for endpoint, role in RULES.items() if role is not None)

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Request:
    """A request that the service would do for a holder of the right role."""

    endpoint: str
    method: str
    path: str
    body: bytes | None = None
    headers: Headers = ()


@dataclass(slots=True)
class Outcome:
    """What the attacks came to."""

    database: str
    guesses: int = 0
    carried: int = 0
    forbidden: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def is_proof(self) -> bool:
        return bool(self.guesses and self.carried and self.forbidden) and not self.wrong

    def as_json(self) -> dict[str, Any]:
        """The outcome for a file."""
        return {**asdict(self), "wrong": self.wrong[:20], "is_proof": self.is_proof}

    def as_line(self) -> str:
        """The outcome in a line."""
        tried = f"{self.guesses} guesses, {self.carried} tokens carried wrongly, {self.forbidden} beyond role or chart"
        return f"{tried}; {len(self.wrong)} wrong: {self.wrong[:3]}"


@dataclass(slots=True)
class Besieged:
    """A server with tokens, what it is asked, and all that it said."""

    server: Server
    secrets: dict[str, str]
    requests: list[Request]
    outcome: Outcome
    told: bytearray = field(default_factory=bytearray)
    connection: http.client.HTTPConnection | None = None

    def send(self, request: Request, headers: Headers, query: str = "") -> int:
        """Send a request with more headers, and a query; return its status."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        joint = "&" if "?" in request.path else "?"
        self.connection.putrequest(request.method, request.path + (joint + query if query else ""))
        for name, value in (*request.headers, *headers):
            self.connection.putheader(name, value)
        if request.body is not None:
            self.connection.putheader("Content-Length", str(len(request.body)))
        self.connection.endheaders(request.body)
        answer = self.connection.getresponse()
        self.told += f"{answer.headers}".encode() + answer.read()
        return answer.status

    def expect(self, statuses: tuple[int, ...], what: str, request: Request, headers: Headers, query: str = "") -> None:
        """Send it, and note where it is answered otherwise."""
        found = self.send(request, headers, query)
        if found not in statuses:
            self.outcome.wrong.append(f"{what}: {request.method} {request.path} answered {found}")


# What is asked


def list_requests(chart: str, endpoints: Collection[str]) -> list[Request]:
    """A good request for each of the routes."""
    app = create_app(Config(database_url="sqlite:///none.db"))
    rules = {rule.endpoint: rule for rule in app.url_map.iter_rules()}
    with app.test_request_context():
        return [_request(app.url_map, rules[endpoint], chart) for endpoint in endpoints]


def _request(urls: Any, rule: Rule, chart: str) -> Request:
    values = {"name": chart, "version": 1, "act": "archive", "rest": "x", "token": "other"}
    values |= {"machine": "m", "calendar": "freeze", "roster": "web", "subscription": "pager"}
    path = urls.bind("localhost").build(rule.endpoint, {name: values[name] for name in rule.arguments})
    method = next(iter((rule.methods or set()) - {"HEAD", "OPTIONS"}))
    if rule.endpoint.startswith("fleetlock."):
        body = json.dumps({"client_params": {"id": "m1", "group": chart}}).encode()
        return Request(rule.endpoint, method, path, body, (("fleet-lock-protocol", "true"),))
    if rule.endpoint.startswith("ui.post_"):
        form = {"name": chart, "text": CHART, "reason": "x", "role": "admin", "pattern": "*"}
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        return Request(rule.endpoint, method, path, urlencode(form).encode(), (kind,))
    if rule.endpoint == "charts.put_chart":
        return Request(rule.endpoint, method, path, CHART.encode())
    if method == "POST":
        return Request(
            rule.endpoint, method, path, json.dumps({"reason": "x", "state": STATE, "machine": "m"}).encode()
        )
    return Request(rule.endpoint, method, f"{path}?{urlencode({'state': STATE, 'machine': 'm'})}")


def is_allowed(request: Request, role: Role, chart: str) -> bool:
    """True where a token of `role` for the charts PATTERN may."""
    needed = RULES[request.endpoint]
    assert needed is not None
    holder = Holder("x", role, PATTERN)
    if request.endpoint.endswith(("token", "tokens", "revoke")) or request.endpoint.startswith(FOR_ALL_CHARTS):
        return False
    # The default chart is outside.
    on = OUTSIDE if "_default_" in request.endpoint else chart
    return holder.may(needed, None if request.endpoint in ANY_CHART else on)


# What is tried


def list_guesses(secrets: Sequence[str], dice: random.Random, count: int) -> Iterator[str]:
    """Tokens that are none: near ones first, then any."""
    for secret in secrets:
        yield from (secret[:length] for length in range(len(secret)))
        yield from (secret[:at] + _other(secret[at]) + secret[at + 1 :] for at in range(len(secret)))
        yield from (secret + letter for letter in "aA0-=.,;%\\")
        yield from (secret.lower(), secret.upper(), secret.swapcase(), secret[::-1], secret[4:], PREFIX + secret)
        yield from (hash_secret(secret), PREFIX + hash_secret(secret), quote(secret).replace("_", "%5F"))
        yield from (f'"{secret}"', f"{secret},{secret}", f"{secret} {secret}", f"<{secret}>", secret * 100)
    yield from ("' OR '1'='1", "admin", "*", "%", "null", "None", "\xff\xfe", "0", PREFIX, PREFIX + "_" * 43)
    for _ in range(count):
        yield PREFIX + "".join(dice.choices(LETTERS, k=43))


def _other(letter: str) -> str:
    return LETTERS[(LETTERS.index(letter) + 1) % len(LETTERS)]


def _basic(text_: str) -> str:
    return "Basic " + base64.b64encode(text_.encode()).decode()


def list_ways(secret: str) -> Iterator[tuple[Headers, str]]:
    """Ways to carry a good token, in headers and a query, that are none of the service's."""
    for scheme in ("Token", "Digest", "Basic", "Bearer:", "BearerX", "OAuth", "Negotiate", "Hawk", ""):
        yield [("Authorization", f"{scheme} {secret}".strip())], ""
    yield [("Authorization", f"Bearer{secret}")], ""
    yield [("Authorization", f"Bearer token={secret}")], ""
    yield [("Authorization", f"Bearer x, Bearer {secret}")], ""
    yield [("Authorization", "Bearer x"), ("Authorization", f"Bearer {secret}")], ""
    yield [("Authorization", _basic(secret))], ""
    yield [("Authorization", _basic(f"{secret}:"))], ""
    yield [("Authorization", _basic(f"{secret}:x"))], ""
    yield [("Authorization", _basic(f"x:{secret}:"))], ""
    for name in ("Proxy-Authorization", "X-Authorization", "X-Api-Key", "X-Auth-Token", "Token", "X-Forwarded-User"):
        yield [(name, f"Bearer {secret}")], ""
        yield [(name, secret)], ""
    for name in ("token", "access_token", "authorization", "api_key", "key", "bearer"):
        yield [], urlencode({name: secret})
        yield [], urlencode({name: f"Bearer {secret}"})
    yield [("Authorization", "Bearer x")], urlencode({"token": secret})
    for name in (auth.COOKIE, "token", "session", "Authorization"):
        yield [("Cookie", f"{name}={secret}")], ""
    forger = URLSafeTimedSerializer("another key, and as long as it must be", salt="stateservice-session")
    yield [("Cookie", f"{auth.COOKIE}={forger.dumps('admin')}")], ""
    unsalted = URLSafeTimedSerializer(KEY, salt="another salt")
    yield [("Cookie", f"{auth.COOKIE}={unsalted.dumps('admin')}")], ""


def attack(besieged: Besieged, guesses: int | None) -> None:
    """Try everything, without guesses where their number is None, and note what was not refused."""
    if guesses is not None:
        _guess(besieged, guesses)
    _carry(besieged)
    _overreach(besieged)


def _guess(besieged: Besieged, count: int) -> None:
    # Answered 401 by every route; people are sent to where they can sign in.
    routes = cycle(besieged.requests)
    for guess in list_guesses(list(besieged.secrets.values()), random.Random(8), count):
        besieged.outcome.guesses += 1
        header = f"Bearer {guess}" if besieged.outcome.guesses % 4 else _basic(f"x:{guess}")
        request = next(routes)
        besieged.expect(_closed(request), "a guess", request, [("Authorization", header)])
    for request in besieged.requests:
        besieged.outcome.guesses += 1
        besieged.expect(_closed(request), "a revoked token", request, _bearer(besieged.secrets[REVOKED]))
        besieged.expect(_closed(request), "no token", request, [])


def _carry(besieged: Besieged) -> None:
    # Not to pages: they send a person who must sign in back to the address that was asked for, with its query.
    requests = [request for request in besieged.requests if not request.endpoint.startswith("ui.")]
    for request in requests:
        for headers, query in list_ways(besieged.secrets["admin"]):
            besieged.outcome.carried += 1
            besieged.expect((401,), f"carried as {[name for name, _ in headers]}{query[:9]}", request, headers, query)


def _overreach(besieged: Besieged) -> None:
    for chart in (INSIDE, OUTSIDE, NOWHERE):
        for request in list_requests(chart, [request.endpoint for request in besieged.requests]):
            for role in Role:
                if not is_allowed(request, role, chart):
                    besieged.outcome.forbidden += 1
                    besieged.expect((403,), f"a {role} of {PATTERN}", request, _bearer(besieged.secrets[str(role)]))


def _closed(request: Request) -> tuple[int, ...]:
    return (303, 401) if request.endpoint.startswith("ui.get_") else (401,)


def _bearer(secret: str) -> Headers:
    return [("Authorization", f"Bearer {secret}")]


# Judging


def _read_state(database_url: str) -> tuple[list[Any], ...]:
    """All that an attack could have changed."""
    service = service_of(create_app(Config(database_url=database_url)))
    # Any use of a token is noted in it.
    tokens = "SELECT id, name, sha256, role, pattern, revoked_at, machine, expires_at FROM tokens ORDER BY id"
    tables = {"transition_log": "chart, seq", "charts": "id", "attribute_values": "1, 2", "reports": "1, 2"}
    queries = [tokens, *(f"SELECT * FROM {table} ORDER BY {order}" for table, order in tables.items())]
    try:
        with asking(service.database) as connection:
            return tuple([tuple(row) for row in connection.execute(text(query))] for query in queries)
    finally:
        service.database.engine.dispose()


def _find_leaks(besieged: Besieged) -> Iterator[str]:
    log = besieged.server.log.read_text()
    for place, found in (("an answer", besieged.told.decode(errors="replace")), ("the log", log)):
        for role, secret in besieged.secrets.items():
            # Half a token is a leak, too; what was guessed begins with the same letters.
            if secret[: len(secret) // 2] in found or hash_secret(secret) in found:
                yield f"the token {role} is in {place}"
        if PREFIX in found:
            yield f"a guess is in {place}"


def _make_tokens(database_url: str) -> dict[str, str]:
    app = create_app(Config(database_url=database_url))
    service, author = service_of(app), Author()
    try:
        secrets = {str(role): create_token(service, str(role), role, PATTERN, author) for role in Role}
        secrets[REVOKED] = create_token(service, REVOKED, Role.ADMIN, "*", author)
        revoke_token(service, REVOKED, author)
        return secrets | {"owner": create_token(service, "owner", Role.ADMIN, "*", author)}
    finally:
        service.database.engine.dispose()


@contextmanager
def besieged(
    which: str, database_url: str, folder: Path, endpoints: Collection[str], patch: str | None
) -> Iterator[Besieged]:
    """The service with tokens on a migrated database, with a chart inside their pattern and one outside."""
    secrets = _make_tokens(database_url)
    command = GUNICORN if patch is None else patched(folder, patch)
    settings = {"auth": "tokens", "default_chart": OUTSIDE, "secret_key": KEY}
    with running(database_url, folder, command, **settings) as server:
        found = Besieged(server, secrets, list_requests(INSIDE, endpoints), Outcome(which))
        for chart in (INSIDE, OUTSIDE):
            request = Request("", "PUT", f"/charts/{chart}", CHART.encode())
            assert found.send(request, _bearer(secrets["owner"])) == 201
        yield found
        assert found.connection is not None
        found.connection.close()


def try_attacks(
    which: str,
    database_url: str,
    folder: Path,
    guesses: int | None = None,
    endpoints: Collection[str] = CLOSED,
    patch: str | None = None,
) -> Outcome:
    """Attack routes of the service on a migrated database, and see whether anything changed or was told."""
    with besieged(which, database_url, folder, endpoints, patch) as found:
        before = _read_state(database_url)
        attack(found, guesses)
        outcome = found.outcome
        if _read_state(database_url) != before:
            outcome.wrong.append("the database has changed")
        outcome.wrong += _find_leaks(found)
        # Those who may, still may. A token that enrols machines reads nothing.
        good = Request("", "GET", f"/charts/{INSIDE}")
        for role in set(Role) - {Role.ENROL}:
            found.expect((200,), f"the {role} afterwards", good, _bearer(found.secrets[str(role)]))
    return outcome


# Seeded, each must be found out: a route that asks for less than it should, and a token that is taken from the query.
HOLED = "operate.post_pause"
HOLES = {
    "a role too low": f"import app.web.auth as auth; auth.RULES['{HOLED}'] = auth.Role.READER",
    "a token in the query": (
        "import app.web.auth as auth; from urllib.parse import parse_qs; find = auth.find_secret\n"
        "auth.find_secret = lambda request: (parse_qs(request.query_string).get('token') or [find(request)])[0]"
    ),
}


def prove_tokens(proof: Proof) -> None:
    """Attack the service on both databases; and see that each hole made on purpose is found."""
    for which in DATABASES:
        with new_folder() as folder, opened(which, folder) as database:
            found = try_attacks(which, database.url, folder, GUESSES)
        proof.add(f"tokens under attack on {which}", found.as_json(), found.as_line())
    for name, patch in HOLES.items():
        with new_folder() as folder, opened("sqlite", folder) as database:
            holed = try_attacks("sqlite", database.url, folder, endpoints=[HOLED], patch=patch)
        line = f"caught: {holed.wrong[0]}" if holed.wrong else "NOT CAUGHT"
        proof.add(f"{name} on sqlite", {**holed.as_json(), "is_proof": bool(holed.wrong)}, line)
