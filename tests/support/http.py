"""The one HTTP client of the tests: a request on a connection of its own, and the answer with its times."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 75


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, how many seconds after its request it came, and when (on the monotonic clock)."""

    status: int
    body: str
    headers: Mapping[str, str]
    seconds: float
    at: float

    @property
    def answer(self) -> tuple[int, str]:
        return self.status, self.body

    def json(self) -> Any:
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def send(
    connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None, **headers: str
) -> Reply:
    """Send one request on `connection`, close it, and return the answer. An underscore in a header's name is a hyphen.

    Raises OSError or HTTPException if no answer comes.
    """
    started = time.monotonic()
    sent = {name.replace("_", "-"): value.encode() for name, value in headers.items()}
    try:
        connection.request(method, path, body.encode() if body is not None else None, sent)
        response = connection.getresponse()
        text, ended = response.read().decode(), time.monotonic()
        return Reply(response.status, text, dict(response.getheaders()), ended - started, ended)
    finally:
        connection.close()
