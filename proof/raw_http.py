"""Requests that no client library sends, byte by byte: nothing that one hides is done, and the next one is answered."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from proof.fronted import fronted
from proof.proof import Proof, new_folder
from proof.stand import sqlite_database
from tests.support.servers import GUNICORN, patched, running

SILENCE = 0.25
FOLLOWERS = 3
STATE = "open_state"
CHART = f"""\
current_state: {STATE}
states:
  - name: {STATE}
    func: increment
    current: {{key: n, value: 0}}
    target: {{name: end, when: {{key: n, value: 9999}}}}
  - {{name: end}}
"""
# What is asked openly is asked of `front`; what is hidden would count on `vault`, for a machine `smuggled`.
CHARTS = ("front", "vault")
HIDDEN = f"PUT /charts/vault/state?state={STATE}&machine=smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
GET = f"GET /charts/front/state?state={STATE} HTTP/1.1\r\nHost: localhost\r\n".encode()
PUT = GET.replace(b"GET", b"PUT", 1)
END = b"\r\n"
SIZE = str(len(HIDDEN)).encode()
HEX = f"{len(HIDDEN):x}".encode()
ALL = str(len(HIDDEN) + len(b"0\r\n\r\n")).encode()


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes to send, the statuses that may answer them (0: something that is no HTTP/1), and the PUTs openly asked."""

    name: str
    sent: bytes
    statuses: tuple[int, ...]
    puts: int = 0
    answers: int = 1


def _length(value: bytes, body: bytes = HIDDEN, more: bytes = b"") -> bytes:
    return GET + b"Content-Length: " + value + END + more + END + body


def _coded(coding: bytes, body: bytes = b"0\r\n\r\n" + HIDDEN, more: bytes = b"") -> bytes:
    return GET + b"Transfer-Encoding: " + coding + END + more + END + body


def _chunk(size: bytes, after: bytes = b"\r\n0\r\n\r\n") -> bytes:
    return _coded(b"chunked", size + b"\r\n" + HIDDEN + after)


def _target(target: bytes, method: bytes = b"GET") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"


ASK = GET + b"Connection: close\r\n\r\n"
ASKED = f"?state={STATE}".encode()
REFUSED = (400, 501)
# The answer does not depend on the body, so gunicorn gives it first, and then ends the connection with a 400.
READ_LATER = (200, 400, 413)
REQUESTS = (
    # Where a body ends, said once and well: what is in it is no request.
    Raw("the body of a GET is a PUT", _length(SIZE), (200,)),
    Raw("the chunked body of a GET is a PUT", _chunk(HEX), (200,)),
    Raw("the body of a HEAD is a PUT", _length(SIZE).replace(b"GET", b"HEAD", 1), (200,)),
    Raw("the body of a refused request is a PUT", _length(SIZE).replace(b"GET", b"TRACE", 1), (400, 405)),
    # Said twice, or badly.
    Raw("CL.TE", _coded(b"chunked", more=b"Content-Length: " + ALL + b"\r\n"), REFUSED),
    Raw("TE.CL", _coded(b"chunked", HEX + b"\r\n" + HIDDEN + b"\r\n0\r\n\r\n", b"Content-Length: 4\r\n"), REFUSED),
    Raw("two lengths", _length(b"0", more=b"Content-Length: " + SIZE + b"\r\n"), REFUSED),
    Raw("two lengths alike", _length(SIZE, more=b"Content-Length: " + SIZE + b"\r\n"), (200, *REFUSED)),
    Raw("a list of lengths", _length(SIZE + b", " + SIZE), (200, *REFUSED)),
    Raw("a length with a sign", _length(b"+0"), REFUSED),
    Raw("a negative length", _length(b"-1"), REFUSED),
    Raw("a hexadecimal length", _length(b"0x0"), REFUSED),
    Raw("a length beyond 64 bits", _length(b"1" + b"0" * 30), (200, 400, 413)),
    Raw("a length with a space before the colon", GET + b"Content-Length : 0\r\n\r\n" + HIDDEN, REFUSED),
    Raw("TE on a folded line", GET + b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 0\r\n\r\n" + HIDDEN, REFUSED),
    Raw("TE xchunked", _coded(b"xchunked", more=b"Content-Length: 0\r\n"), REFUSED),
    Raw("TE chunked, identity", _coded(b"chunked, identity"), REFUSED),
    Raw("TE identity", _coded(b"identity", more=b"Content-Length: 0\r\n"), REFUSED),
    Raw("TE twice", _coded(b"chunked", more=b"Transfer-Encoding: identity\r\n"), REFUSED),
    Raw("TE with a vertical tab", _coded(b"\x0bchunked", more=b"Content-Length: 0\r\n"), REFUSED),
    Raw("TE in HTTP/1.0", _coded(b"chunked").replace(b"HTTP/1.1", b"HTTP/1.0", 1), REFUSED),
    Raw("bare LF", GET.replace(b"\r\n", b"\n") + b"\n", (200, 400)),
    Raw(
        "bare LF hides a header",
        GET + b"X: a\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
        REFUSED,
    ),
    Raw("bare CR hides a header", GET + b"X: a\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", (200, 400)),
    # Chunks.
    Raw("chunk size that is no number", _chunk(b"zz"), READ_LATER, answers=2),
    Raw("chunk size with a sign", _chunk(b"-1"), READ_LATER, answers=2),
    Raw("chunk size with a prefix", _chunk(b"0x0"), READ_LATER, answers=2),
    Raw("chunk size with an underscore", _chunk(b"0_0"), READ_LATER, answers=2),
    Raw("chunk size beyond 64 bits", _chunk(b"FFFFFFFFFFFFFFFF0"), READ_LATER, answers=2),
    Raw("chunk longer than it says", _chunk(b"1"), READ_LATER, answers=2),
    Raw("chunk extension with a line feed", _chunk(b"0;a\nb", b""), READ_LATER, answers=2),
    Raw("chunks without an end", _chunk(HEX, b""), READ_LATER, answers=2),
    Raw("trailer with a length", _coded(b"chunked", b"0\r\nContent-Length: 0\r\n\r\n"), READ_LATER, answers=2),
    Raw(
        "chunks over the limit",
        b"PUT /charts/big HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"10000\r\n" + b"#" * 65536 + b"\r\n") * 17
        + b"0\r\n\r\n",
        (413,),
    ),
    # Characters and sizes.
    Raw("NUL in a value", GET + b"X-Machine: a\x00b\r\n\r\n", (400,)),
    Raw("NUL in the target", _target(b"/charts/front/state\x00" + ASKED), (400,)),
    Raw("a control character in a name", GET + b"X\x01Y: a\r\n\r\n", (200, 400)),
    Raw("a header without a name", GET + b": a\r\n\r\n", (200, 400)),
    Raw("a request line of 100 kB", _target(b"/charts/front/state?state=" + b"a" * 100_000), (400, 414)),
    Raw("a header of 100 kB", GET + b"X: " + b"a" * 100_000 + b"\r\n\r\n", (400, 431)),
    Raw("a thousand headers", GET + b"X: a\r\n" * 1000 + b"\r\n", (200, 400, 431)),
    # Targets.
    Raw("absolute-form", _target(b"http://localhost/charts/front/state" + ASKED), (200,)),
    Raw("absolute-form of another host", _target(b"http://evil.example/charts/front/state" + ASKED), (200, 400)),
    Raw("%00 in the path", _target(b"/charts/front%00/state" + ASKED), (400, 404)),
    Raw("%0a in the path", _target(b"/charts/front%0a/state" + ASKED), (404,)),
    Raw("over-long UTF-8 in the path", _target(b"/charts/front%c0%afstate" + ASKED), (400, 404)),
    # A slash in front of the first is the same path: a proxy that guards paths before this service must know it.
    Raw("two slashes", _target(b"//charts/front/state" + ASKED, b"PUT"), (200,), puts=1),
    Raw("a dot in the path", _target(b"/./charts/front/state" + ASKED, b"PUT"), (404,)),
    Raw("two dots in the path", _target(b"/charts/front/../vault/state" + ASKED, b"PUT"), (404,)),
    Raw("two coded dots in the path", _target(b"/charts/front/%2e%2e/vault/state" + ASKED, b"PUT"), (404,)),
    Raw("a header in the query", _target(b"/charts/front/state?state=a%0d%0aX-Injected:%20injected"), (400,)),
    Raw("a header in the path", _target(b"/charts/front%0d%0aX-Injected:%20injected"), (404,)),
    Raw(
        "a header in a host",
        b"GET /charts/front/can.curl" + ASKED + b" HTTP/1.1\r\nHost: a%0d%0ainjected\r\n\r\n",
        (400,),
    ),
    # Hosts, versions, methods.
    Raw("no host", GET.partition(b"\r\n")[0] + b"\r\n\r\n", (200, 400)),
    Raw("two hosts", GET + b"Host: evil.example\r\n\r\n", (400,)),
    Raw("a foreign host", GET.replace(b"localhost", b"evil.example") + b"\r\n", (200, 400)),
    Raw("HTTP/0.9", f"GET /charts/front/state?state={STATE}\r\n".encode(), (0, 400)),
    Raw("HTTP/2 in the line", GET.replace(b"1.1", b"2.0") + b"\r\n", (400, 505)),
    Raw("HTTP/9.9", GET.replace(b"1.1", b"9.9") + b"\r\n", (400, 505)),
    Raw("a version with a tail", GET.replace(b"1.1", b"1.1 x") + b"\r\n", (400, 505)),
    Raw("HTTP/2's first words", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN, (0, 400, 505)),
    Raw(
        "an upgrade to h2c",
        GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        (200,),
    ),
    Raw("CONNECT", b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN, (400, 404, 405, 501)),
    Raw("put in small letters", PUT.replace(b"PUT", b"put", 1) + b"\r\n", (400, 405)),
    Raw("a method by another header", GET + b"X-HTTP-Method-Override: PUT\r\n\r\n", (200,)),
    # What is asked openly is done, once each.
    Raw("two PUTs, one after the other", PUT + END + PUT + END, (200,), puts=2, answers=2),
    Raw("a PUT with a body that is a PUT", PUT + b"Content-Length: " + SIZE + END + END + HIDDEN, (200,), puts=1),
    Raw(
        "a PUT that waits to be told to go on",
        PUT + b"Expect: 100-continue\r\nContent-Length: " + SIZE + END + END + HIDDEN,
        (200,),
        puts=1,
    ),
    Raw("a GET that expects something else", GET + b"Expect: the-unexpected\r\n\r\n", (200, 417)),
)


# Talking


@dataclass(frozen=True, slots=True)
class Target:
    """A server to send to: a connection to it, how far a chart's log is, and where its own log is."""

    name: str
    connect: Callable[[], socket.socket]
    read_seq: Callable[[str], int]
    log: Path
    # How long it may say nothing before it is taken to wait for more.
    silence: float = SILENCE


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's status, 0 where it is no HTTP/1, and its head and body."""

    status: int
    head: bytes
    body: bytes = b""


def send(target: Target, sent: bytes) -> bytes:
    """Send the bytes, and return all that comes back."""
    received = b""
    with target.connect() as connection, suppress(OSError):
        with suppress(OSError):
            # A server that refuses need not read all of it; its answer is there all the same.
            connection.sendall(sent)
        connection.settimeout(target.silence)
        try:
            while data := connection.recv(65536):
                received += data
        except TimeoutError:
            # It keeps the connection, or waits for what never comes: there is no more.
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                received += data
    return received


_HEAD = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


def read_answers(received: bytes, *, is_head: bool) -> list[Answer]:
    """The answers in what came back; whatever is none is one more, of the status 0."""
    found = []
    while received:
        match = _HEAD.match(received)
        if match is None:
            return [*found, Answer(0, b"", received)]
        status, length = int(match.group(1)), _LENGTH.search(match.group())
        end = match.end() + (0 if length is None or is_head else int(length.group(1)))
        if status >= 200:
            found.append(Answer(status, match.group(), received[match.end() : end]))
        received = received[end:]
    return found


# Judging


@dataclass(slots=True)
class Outcome:
    """What the requests came to on one server."""

    target: str
    requests: int = 0
    statuses: dict[str, list[int]] = field(default_factory=dict)
    smuggled: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def is_proof(self) -> bool:
        return self.requests > 0 and not self.smuggled and not self.wrong

    def as_json(self) -> dict[str, Any]:
        """The outcome for a file."""
        return {**asdict(self), "is_proof": self.is_proof}

    def as_line(self) -> str:
        """The outcome in a line."""
        return f"{self.requests} requests, {self.smuggled} smuggled, {len(self.wrong)} wrong: {self.wrong[:3]}"


def try_all(target: Target, requests: Sequence[Raw] = REQUESTS) -> Outcome:
    """Send the requests, each followed by ordinary ones, and see what the charts' logs say."""
    outcome = Outcome(target.name)
    for raw in requests:
        _try_one(target, raw, outcome)
    outcome.wrong += [f"no JSON in the log: {line[:200]}" for line in _forged_lines(target.log)]
    return outcome


def _try_one(target: Target, raw: Raw, outcome: Outcome) -> None:
    before = {chart: target.read_seq(chart) for chart in CHARTS}
    answers = read_answers(send(target, raw.sent), is_head=raw.sent.startswith(b"HEAD"))
    followers = [read_answers(send(target, ASK), is_head=False) for _ in range(FOLLOWERS)]
    done = {chart: target.read_seq(chart) - before[chart] for chart in CHARTS}
    outcome.requests += 1
    outcome.statuses[raw.name] = [answer.status for answer in answers]
    outcome.smuggled += done["vault"]
    outcome.wrong += [f"{raw.name}: {problem}" for problem in _judge(raw, answers, followers, done["front"])]


def _judge(raw: Raw, answers: list[Answer], followers: list[list[Answer]], puts: int) -> Iterator[str]:
    statuses = [answer.status for answer in answers]
    if not set(statuses) <= set(raw.statuses) or len(statuses) > raw.answers:
        yield f"answered {statuses}"
    if puts != raw.puts:
        yield f"{puts} PUTs done, {raw.puts} asked"
    if any(b"injected" in answer.head for answer in answers):
        yield "a header of the sender's"
    if any([(answer.status, answer.body) for answer in found] != [(200, STATE.encode())] for found in followers):
        yield f"the next ones were answered {followers}"


def _forged_lines(log: Path) -> list[str]:
    """Lines of a server's log that are not JSON."""
    return [line for line in log.read_text().splitlines() if not _is_json(line)]


def _is_json(line: str) -> bool:
    with suppress(ValueError):
        return isinstance(json.loads(line), dict)
    return False


# The servers

UNREAD = (
    "from gunicorn.asgi.protocol import ASGIProtocol\n"
    "keep = ASGIProtocol._on_headers_complete\n"
    "ASGIProtocol._on_headers_complete = lambda self: keep(self) or self._current_request.method == 'GET'"
)


@contextmanager
def direct(folder: Path, *, is_broken: bool = False) -> Iterator[Target]:
    """gunicorn as it is; or broken, so that it takes what it left of a body for the next request."""
    command = patched(folder, UNREAD) if is_broken else GUNICORN
    with sqlite_database(folder) as database, running(database.url, folder, command) as server:
        for chart in CHARTS:
            server.import_chart(chart, CHART)
        yield Target(
            "gunicorn",
            lambda: socket.create_connection(("127.0.0.1", server.port), 30),
            lambda chart: int(server.status(chart)["seq"]),
            server.log,
        )


@contextmanager
def through_nginx(folder: Path) -> Iterator[Target]:
    """nginx with deploy/nginx.conf, and gunicorn behind it."""
    with fronted(folder) as found:
        for chart in CHARTS:
            found.import_chart(chart, CHART)
        yield Target("nginx", found.connect, lambda chart: int(found.status(chart)["seq"]), found.service.log)


def prove_raw_http(proof: Proof) -> None:
    """Send every request to gunicorn and through nginx; and see that a server which is broken is found out."""
    for servers in (direct, through_nginx):
        with new_folder() as folder, servers(folder) as target:
            found = try_all(target)
        proof.add(f"raw HTTP, {found.target}", found.as_json(), found.as_line())
    with new_folder() as folder, direct(folder, is_broken=True) as target:
        broken = try_all(target, REQUESTS[:2])
    line = f"caught: {broken.as_line()}" if broken.smuggled else "NOT CAUGHT"
    proof.add("bodies left unread, gunicorn", {**broken.as_json(), "is_proof": bool(broken.smuggled)}, line)
