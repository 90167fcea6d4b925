"""A whole answer, before it is Flask's or goes straight to the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import Response

StartResponse = Callable[[str, list[tuple[str, str]]], Any]

# As Werkzeug writes them.
STATUS_LINES = {status.value: f"{status.value} {status.phrase.upper()}" for status in HTTPStatus}
# Never to be kept by a cache, nor taken for something else by a browser.
CLOSED = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, body and headers; the body's length and CLOSED are among the headers that are sent."""

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()

    def as_response(self) -> Response:
        """The answer as Flask's."""
        return Response(self.body, self.status, self._headers())

    def send(self, start_response: StartResponse, *, is_head: bool = False) -> list[bytes]:
        """Answer as a WSGI application does."""
        start_response(STATUS_LINES[self.status], self._headers())
        return [] if is_head else [self.body]

    def _headers(self) -> list[tuple[str, str]]:
        length = ("Content-Length", str(len(self.body)))
        return [("Content-Type", self.content_type), length, *CLOSED, *self.headers]
