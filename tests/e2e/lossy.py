"""A proxy that can lose an answer: the service has committed, and the client hears nothing."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.http import UnixConnection

# What belongs to one connection and not to the message.
HOP_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding"})


@dataclass(slots=True)
class Loss:
    """How many answers to `method`, on paths with `part`, are still to be lost; what came, and what was lost."""

    method: str = ""
    part: str = ""
    left: int = 0
    lost: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self) -> int:
        """How many such requests came."""
        return sum(self._is_meant(*request) for request in self.requests)

    def takes(self, method: str, path: str) -> bool:
        """True where the answer that has just come is one to lose."""
        with self.lock:
            if self.left == 0 or not self._is_meant(method, path):
                return False
            self.left -= 1
            self.lost += 1
            return True

    def _is_meant(self, method: str, path: str) -> bool:
        return method == self.method and self.part in path


class LossyProxy(ThreadingHTTPServer):
    """Passes requests on to the service's socket, and answers back, except those it is told to lose."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, upstream: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.loss = Loss()

    @contextmanager
    def losing(self, method: str, part: str, count: int = 1) -> Iterator[Loss]:
        """Lose the next `count` answers to `method` on paths with `part`, each after the service gave it."""
        self.loss = Loss(method, part, count)
        try:
            yield self.loss
        finally:
            self.loss = Loss()

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that went away is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: LossyProxy

    def _pass_on(self) -> None:
        loss = self.server.loss
        loss.requests.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = UnixConnection(self.server.upstream)
        sent = {name: value for name, value in self.headers.items() if name.lower() not in HOP_HEADERS}
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                # A body that is too large is refused before it is read; the answer is there all the same.
                connection.request(self.command, self.path, body or None, sent)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            # Nobody listens: closed without a word, as a dead service would.
            self.close_connection = True
            return
        finally:
            connection.close()
        if not loss.takes(self.command, self.path):
            self._answer(answer, text)
        self.close_connection = True

    def _answer(self, answer: http.client.HTTPResponse, text: bytes) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_HEADERS | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815  the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Say nothing."""
