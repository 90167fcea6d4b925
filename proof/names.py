"""Names that were made to break something, in every place where a caller can put one, read back everywhere."""

from __future__ import annotations

import csv
import http.client
import json
import logging
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes, urlencode

from flask import Flask
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from app.config import Config
from app.core.errors import StateServiceError
from app.core.log import Author
from app.service import operate
from app.web.ui import base as forms_module
from app.wiring import create_app, service_of
from proof.proof import Proof, new_folder, opened
from proof.readings import (
    check_csv,
    check_curl,
    check_head,
    check_lines,
    check_metrics,
    check_ndjson,
    check_yaml,
    shape_of_html,
    shape_of_text,
    shape_of_xml,
    unquoted,
)
from proof.stand import sqlite_database
from tests.support.databases import DATABASES
from tests.support.lines import Lines
from tests.support.processes import until
from tests.support.servers import Server, running

# Bytes, because not all of them are text.
NAMES: tuple[bytes, ...] = (
    # Lines, and what looks like an end of one.
    *(b"a\nb", b"a\r\nb", b"a\rb", b"a\x0bb", b"a\x0cb", b"a\x85b", "a\u0085b".encode(), "a\u2028b".encode()),
    b'a\n{"at": "2026-01-01T00:00:00Z", "logger": "stateservice.access", "status": 200}',
    b"a\r\nSet-Cookie: injected=1",
    b"a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    # What a terminal or a reader would obey.
    *(b"\x1b[2J\x1b[31m", b"\x1b]0;title\x07", b"\x9b31m", b"a\x00b", b"a\x08b", b"a\x7fb", b"a\tb"),
    *("a\u202eb".encode(), "a\u200bb".encode(), "\ufeffa".encode(), "a\u2066b\u2069".encode(), "\U000e0041a".encode()),
    # What is no UTF-8.
    *(b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xe2\x82", b"\xf5\x80\x80\x80"),
    # What looks like something else, or like nothing.
    *("st\u0430te".encode(), "e\u0301".encode() * 40, "\U0001f40c\u200d\U0001f525".encode(), "\uff1cb\uff1e".encode()),
    *(
        b" ",
        b"  a  ",
        b"__proto__",
        b"constructor",
        b"null",
        b"NaN",
        b"-1",
        b"1e309",
        b"None",
        b".",
        b"..",
        b"end note",
    ),
    # Formulas, for a spreadsheet that opens the CSV.
    *(b"=cmd|' /C calc'!A0", b"+1+1", b"-1+1", b"@SUM(A1)", b'=HYPERLINK("//evil.example","x")', b"\t=1+1"),
    # Other languages.
    *(
        b"' OR '1'='1",
        b"'; DROP TABLE charts; --",
        b"%' ESCAPE '\\",
        b"$(touch /tmp/x)",
        b"`id`",
        b"a;id|id&",
        b"%s%n%x",
    ),
    *(
        b"{0.__class__}",
        b"{{7*7}}{%raw%}",
        b"${7*7}",
        b"<script>x()</script>",
        b'"><img src=x onerror=x()>',
        b"]]><x/>",
    ),
    *(
        b"' onfocus='x()",
        b"javascript:x()",
        b"</style><style>*{}",
        b'"];evil[label="x',
        b'" as s1\n[*] --> s2',
        b'\\"\nurl = "x',
    ),
    *(
        b"../../etc/passwd",
        b"..\\..\\x",
        b"file:///etc/passwd",
        b"|pipe",
        b"a: [b",
        b"!!python/object:os.system",
        b"&a *a",
    ),
    # Sizes.
    *(b"", b"x" * 128, b"x" * 129, b"x" * 255, b"x" * 256, b"x" * 5000, "\U0001f40c".encode() * 200),
)
PLAIN = b"web-01"
# The log fills more than one page of a chart's history.
PLAIN_ROUNDS = 5

CHART = "victim"
STATE = "open_state"
# With slots and a roster, so that every page has all its parts.
FILE = f"""\
current_state: {STATE}
description: @name@
expect: [m1, m2, @name@]
states:
  - name: {STATE}
    func: increment
    slots: 500
    current: [{{key: n, value: 0}}, {{key: failed, value: 0}}]
    target: [{{name: end, when: {{key: n, value: "100%"}}}}, {{name: end, when: {{key: elapsed, value: 900d}}}}]
  - name: end
"""
PLAIN_FILE = FILE.replace("@name@", "plain")
# A state and a key of that name, where the rules for names let one.
NAMED_FILE = """\
current_state: @name@
states:
  - name: @name@
    func: increment
    current: {key: @name@, value: 0}
    target: {name: last, when: {key: @name@, value: 9000}}
  - name: last
"""
PARAMETERS = (
    *("state", "machine", "key", "is", "kind", "since", "until", "after", "limit", "format", "theme", "map", "dry_run"),
    *("q", "show", "by", "page", "before", "done", "next", "chart", "wait"),
)
HEADERS = ("X-Machine", "Idempotency-Key", "X-Request-Id", "Accept", "Content-Type", "Cookie", "User-Agent", "Origin")
KINDS = (
    *("application/json", "text/plain", "application/yaml", "text/csv", "application/x-ndjson", "text/html"),
    *("image/svg+xml", "text/vnd.graphviz"),
)


@dataclass(slots=True)
class Outcome:
    """What the names came to on one database."""

    database: str
    names: int = 0
    routes: int = 0
    requests: int = 0
    read: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def is_proof(self) -> bool:
        # An answer that nobody got was not judged.
        is_valid = self.names > 0 and all(self.read.get(kind, 0) >= self.names for kind in KINDS)
        return is_valid and not self.wrong

    def as_json(self) -> dict[str, Any]:
        """The outcome for a file."""
        return {**asdict(self), "wrong": self.wrong[:20], "is_proof": self.is_proof}

    def as_line(self) -> str:
        """The outcome in a line."""
        tried = f"{self.names} names, {self.routes} routes, {self.requests} requests, read {self.read}"
        return f"{tried}; {len(self.wrong)} wrong: {self.wrong[:3]}"


@contextmanager
def heard() -> Iterator[Lines]:
    """All that the service logs until the block ends."""
    logger, handler = logging.getLogger("stateservice"), Lines()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


# Asking


@dataclass(slots=True)
class Trial:
    """The application, what it logs, and what it came to."""

    app: Flask
    lines: Lines
    outcome: Outcome
    name: bytes = PLAIN
    # What pages and pictures are made of where nothing in them is hostile.
    shapes: dict[str, set[Any]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The name as text; what is no UTF-8 is replaced, where text alone can be sent."""
        return self.name.decode(errors="replace")

    def ask(self, method: str, path: str, query: str = "", **sent: Any) -> TestResponse:
        """Send a request, its path and query as they are, and judge the answer's head and its line in the log."""
        before = len(self.lines.written)
        raw = {"PATH_INFO": unquoted(path), "QUERY_STRING": query, **sent.pop("environ", {})}
        response = self.app.test_client().open("/", method=method, environ_overrides=raw, **sent)
        self.outcome.requests += 1
        for problem in [*check_head(response, path), *self._check_log(self.lines.written[before:])]:
            self.note(f"{method} {path[:60]}: {problem}")
        return response

    def note(self, problem: str) -> None:
        """Note what is wrong."""
        self.outcome.wrong.append(f"{self.name[:40]!r}: {problem}")

    def _check_log(self, lines: Sequence[str]) -> Iterator[str]:
        found = [json.loads(line) for line in lines if _is_object(line)]
        if sum(line["logger"] == "stateservice.access" for line in found) != 1:
            yield f"not one line of its own in the log: {lines}"
        yield from (f"a line of the log: {line!r}" for line in lines if not (line.isascii() and line.isprintable()))

    def judge(self, what: str, found: set[Any]) -> None:
        """Note what is in a page or picture that is never in one about plain names."""
        if self.name == PLAIN:
            self.shapes[what] = self.shapes.get(what, set()) | found
        elif not found <= self.shapes[what]:
            self.note(f"{what} has {found - self.shapes[what]}")


def _is_object(line: str) -> bool:
    with suppress(ValueError):
        return isinstance(json.loads(line), dict)
    return False


def send_everywhere(trial: Trial) -> None:
    """Put the name into the path, the query, the headers and the body of a request for every route."""
    rules = sorted(trial.app.url_map.iter_rules(), key=lambda rule: ("archive" in rule.rule, rule.rule))
    trial.outcome.routes = len(rules)
    for number, rule in enumerate(rules):
        for method in sorted((rule.methods or set()) - {"OPTIONS"}):
            _send_to_route(trial, rule, method, number + trial.outcome.names)


def _send_to_route(trial: Trial, rule: Rule, method: str, number: int) -> None:
    coded = quote_from_bytes(trial.name, safe="")
    path = re.sub("<int[^>]*>", "1", rule.rule)
    plain = re.sub("<[^>]*:name>", CHART, path)
    plain = re.sub("<[^>]*>", "pause", plain)
    trial.ask(method, re.sub("<[^>]*>", coded, path), f"state={coded}")
    if method == "HEAD":
        return
    trial.ask(method, plain, "&".join(f"{parameter}={coded}" for parameter in PARAMETERS))
    trial.ask(method, plain, f"state={STATE}&machine=m1&{PARAMETERS[number % len(PARAMETERS)]}={coded}")
    latin = trial.name.decode("latin-1")
    trial.ask(method, plain, f"state={STATE}", environ={_variable(header): latin for header in HEADERS})
    for body, kind in _list_bodies(trial, rule.endpoint):
        headers = {"fleet-lock-protocol": "true", "Content-Type": kind, "Origin": "http://localhost"}
        headers["Cookie"] = f"{forms_module.COOKIE}=sent-with-the-form"
        trial.ask(method, plain, f"state={STATE}", data=body, headers=headers)


def _variable(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name == "CONTENT_TYPE" else f"HTTP_{name}"


def _list_bodies(trial: Trial, endpoint: str) -> Iterator[tuple[bytes, str]]:
    fields = dict.fromkeys(("reason", "state", "machine", "actor", "name", "token", "next", "pattern"), trial.text)
    if endpoint.startswith("ui.post_"):
        form = {
            **fields,
            "text": trial.text,
            "maps": trial.text,
            "role": "reader",
            forms_module.FIELD: "sent-with-the-form",
        }
        yield urlencode(form).encode(), "application/x-www-form-urlencoded"
        yield urlencode({**form, "text": named_file(trial.text)}).encode(), "application/x-www-form-urlencoded"
    elif endpoint == "charts.put_chart":
        yield trial.name, "application/yaml"
    elif endpoint.startswith("fleetlock."):
        for group in (CHART, trial.text):
            yield json.dumps({"client_params": {"id": trial.text, "group": group}}).encode(), "application/json"
    elif ".post_" in endpoint:
        yield json.dumps(fields).encode(), "application/json"
        yield json.dumps({**fields, "state": STATE, "machine": "m1"}).encode(), "application/json"
        yield trial.name, "application/json"


def named_file(name: str) -> str:
    """A chart file with a state and a key of that name."""
    return NAMED_FILE.replace("@name@", json.dumps(name))


def keep(trial: Trial) -> list[str]:
    """Have the service keep the name wherever it takes it; return the charts that are there then."""
    word = json.dumps(trial.text)
    for chart in (CHART, "named"):
        trial.ask("POST", f"/charts/{chart}/archive", json={"reason": "the next name"})
    # A description may be any text; who is on the roster must be printable.
    files = (FILE.replace("@name@", word), FILE.replace(", @name@]", "]").replace("@name@", word), PLAIN_FILE)
    kept = (trial.ask("PUT", f"/charts/{CHART}", data=file.encode()).status_code < 300 for file in files)
    if not any(kept):
        trial.note("no chart could be imported")
    coded = quote_from_bytes(trial.name, safe="")
    key = {"environ": {"HTTP_IDEMPOTENCY_KEY": trial.name.decode("latin-1")}}
    for method, rest in (("PUT", "slot"), ("PUT", "state")):
        trial.ask(
            method, f"/charts/{CHART}/{rest}", f"state={STATE}&machine={coded}", **(key if rest == "state" else {})
        )
        trial.ask(method, f"/charts/{CHART}/{rest}", f"state={STATE}&machine=m1&key=failed")
    # A token's name is plain, but the command line gives the log whatever its user is called.
    actor = trial.text[:255] if trial.text.isprintable() else None
    with suppress(StateServiceError):
        operate.pause(service_of(trial.app), CHART, trial.text, Author(actor=actor))
    trial.ask("POST", f"/charts/{CHART}/resume", json={"reason": trial.text})
    trial.ask("POST", f"/charts/{CHART}/pause", json={"reason": trial.text})
    named = trial.ask("PUT", "/charts/named", data=named_file(trial.text).encode())
    return [CHART, "named"] if named.status_code < 300 else [CHART]


def read_everything(trial: Trial, charts: Sequence[str]) -> None:
    """Read all that the service tells of these charts, and judge it."""
    read: Counter[str] = Counter(trial.outcome.read)
    coded = quote_from_bytes(trial.name, safe="")
    for chart in charts:
        for path, query, accept, check in _list_readings(trial, chart, coded):
            response = trial.ask("GET", path, query, headers={"Accept": accept})
            if response.status_code == 200:
                read[response.mimetype] += 1
                for problem in _try_check(check, response.text):
                    trial.note(f"GET {path} as {accept}: {problem}")
    trial.outcome.read = dict(read)


def _try_check(check: Callable[[str], Iterator[str]], text: str) -> list[str]:
    try:
        return list(check(text))
    except (ValueError, ET.ParseError, csv.Error, KeyError, IndexError) as error:
        return [f"cannot be read: {error!r}"]


def _list_readings(
    trial: Trial, chart: str, coded: str
) -> Iterator[tuple[str, str, str, Callable[[str], Iterator[str]]]]:
    def judged(what: str, shape: Callable[[str], set[Any]]) -> Callable[[str], Iterator[str]]:
        return lambda text: iter(trial.judge(what, shape(text)) or ())

    base, html = f"/charts/{chart}", judged("a page", shape_of_html)
    yield base, "", "application/json", lambda text: iter(json.loads(text) and ())
    yield base, "", "text/plain", check_lines
    yield base, "", "application/yaml", check_yaml
    yield f"{base}/machines", "", "application/json", lambda text: iter(json.loads(text) and ())
    yield f"{base}/machines", "", "text/plain", check_lines
    yield f"{base}/machines", "is=missing", "text/plain", check_lines
    yield f"{base}/history", "format=csv", "*/*", check_csv
    yield f"{base}/history", "format=ndjson", "*/*", check_ndjson
    yield f"{base}/history", f"machine={coded}", "application/json", lambda text: iter(json.loads(text) and ())
    yield f"{base}/diagram", "format=svg", "*/*", judged("a picture", shape_of_xml)
    yield f"{base}/diagram", "format=dot", "*/*", judged("DOT", shape_of_text)
    yield f"{base}/diagram", "format=mermaid", "*/*", judged("Mermaid", shape_of_text)
    for file in ("can.curl", "did.curl"):
        yield f"{base}/{file}", f"state={coded}&machine={coded}&key={coded}", "*/*", check_curl
        yield f"{base}/{file}", f"state={STATE}&machine={coded}", "*/*", check_curl
    yield "/metrics", "", "*/*", check_metrics
    yield "/charts", "", "application/json", lambda text: iter(json.loads(text) and ())
    yield f"/ui{base}", "", "text/html", html
    yield f"/ui{base}", f"machine={coded}&by={coded}", "text/html", html
    yield f"/ui{base}/versions/1", "", "text/html", html
    yield f"/ui{base}/versions/2", "", "text/html", html
    yield "/", f"q={coded}", "text/html", html
    yield "/", "", "text/html", html
    yield "/ui/import", f"chart={chart}", "text/html", html
    yield "/ui/tokens", "", "text/html", html
    yield f"/ui/{coded}", "", "text/html", html


def try_names(
    which: str,
    database_url: str,
    names: Sequence[bytes],
    prepare: Callable[[Flask], object] = id,
    progress: Callable[[str], object] = id,
    *,
    share: int = 1,
) -> Outcome:
    """Keep each name and read it back, in an application that `prepare` may break.

    One name in `share` is sent to every route as well; none where that is 0.
    """
    app = create_app(Config(database_url=database_url, default_chart=CHART))
    service = service_of(app)
    # Nobody waits: a request that would is answered at once.
    service.hub.close()
    prepare(app)
    try:
        with heard() as lines:
            trial = Trial(app, lines, Outcome(which))
            # A plain one first, until every page has all that it can have: what the others are held against.
            for number, name in enumerate([PLAIN] * (PLAIN_ROUNDS if share else 1) + list(names)):
                trial.name = name
                charts = keep(trial)
                read_everything(trial, charts)
                if name == PLAIN:
                    # A chart is not paused for a reason that is not printable, and shows more while it runs.
                    trial.ask("POST", f"/charts/{CHART}/resume", json={"reason": "go on"})
                    read_everything(trial, charts)
                trial.outcome.names += name != PLAIN
                if number % 10 == 0:
                    progress(f"{which}: {trial.outcome.names} names, {trial.outcome.requests} requests")
                if share and (number == 0 if name == PLAIN else number % share == 0):
                    send_everywhere(trial)
                lines.written.clear()
            return trial.outcome
    finally:
        service.database.engine.dispose()


# The log of a real server


def try_access_log(server: Server, names: Sequence[bytes]) -> list[str]:
    """Send each name to a running server; return what is wrong with its log."""
    sent = 0
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    # Lines come a moment after their answers: those of earlier requests must be there before any is counted.
    connection.request("GET", "/before")
    connection.getresponse().read()
    until(lambda: any('"path": "/before"' in line for line in _read_lines(server)), "earlier lines are written")
    before = len(_read_lines(server))
    for name in names:
        coded = quote_from_bytes(name, safe="")
        for path in (
            f"/charts/{CHART}/state?state={coded}&machine={coded}&key={coded}",
            f"/{coded}?{coded}",
            f"/charts/{coded}",
        ):
            connection.request("PUT", path, headers={"User-Agent": quote(name), "X-Request-Id": quote(name)})
            connection.getresponse().read()
            sent += 1
    connection.close()
    with suppress(AssertionError):
        until(lambda: len(_read_lines(server)) >= before + sent, "every request has its line")
    lines = _read_lines(server)[before:]
    wrong = [f"a line of the log: {line!r}" for line in lines if not _is_expected(line)]
    return wrong + ([] if len(lines) == sent else [f"{len(lines)} lines of {sent} requests"])


def _read_lines(server: Server) -> list[str]:
    # Not splitlines(): it would part a line at what only looks like an end.
    return server.log.read_bytes().decode("ascii").split("\n")[:-1]


def _is_expected(line: str) -> bool:
    found: Mapping[str, Any] = json.loads(line) if _is_object(line) else {}
    if found.get("logger") == "gunicorn.error":
        # A request line that is too long never comes to the service.
        return line.isprintable() and str(found["message"]).startswith(
            "Invalid request from ip=127.0.0.1: Request Line"
        )
    return found.get("logger") == "stateservice.access" and line.isprintable() and found["status"] >= 400


def prove_names(proof: Proof) -> None:
    """Try every name on both databases, and against a real server's log."""
    # What a route makes of a name hardly depends on the database: there it is one in four.
    for which, share in zip(DATABASES, (1, 4), strict=True):
        with new_folder() as folder, opened(which, folder) as database:
            found = try_names(which, database.url, NAMES, progress=proof.say, share=share)
        proof.add(f"names on {which}", found.as_json(), found.as_line())
    with new_folder() as folder:
        wrong = log_names(folder, NAMES)
    part = {"names": len(NAMES), "wrong": wrong[:20], "is_proof": not wrong}
    proof.add("names in the log of a server", part, f"{len(NAMES)} names, {len(wrong)} wrong: {wrong[:3]}")


def log_names(folder: Path, names: Sequence[bytes]) -> list[str]:
    """Send the names to a server of their own; return what is wrong with its log."""
    with sqlite_database(folder) as database, running(database.url, folder) as server:
        server.import_chart(CHART, PLAIN_FILE)
        return try_access_log(server, names)
