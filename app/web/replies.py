"""Errors to statuses, in one table, and to bodies: RFC 9457 problem+json, or one line under /state."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from flask import Flask, Response
from flask import request as flask_request
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_accept_header

from app.core import errors
from app.service.put import Answer
from app.web.request import Request, current_request

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
        return Response(self.body, self.status, self.all_headers)

    def send(self, start_response: StartResponse, *, is_head: bool = False) -> list[bytes]:
        """Answer as a WSGI application does."""
        start_response(STATUS_LINES[self.status], self.all_headers)
        return [] if is_head else [self.body]

    @property
    def all_headers(self) -> list[tuple[str, str]]:
        """Every header that is sent, the body's type and length among them."""
        length = ("Content-Length", str(len(self.body)))
        return [("Content-Type", self.content_type), length, *CLOSED, *self.headers]

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """As `all_headers`, for an ASGI server."""
        return [(name.encode(), value.encode("latin-1")) for name, value in self.all_headers]


# People grep a whole response, headers and all, for the status; no header of a state answer may look like one.
STATUS_DIGITS = ("200", "406", "500")
# The longest plain body, so that Content-Length stays clear of the digits above.
MAX_LINE = 128
PLAIN = "text/plain; charset=utf-8"
JSON = "application/json"


def wants_json(request: Request) -> bool:
    """True if the caller asks for JSON rather than text; `*/*`, which curl sends, means text."""
    return _wants_json(request.headers.get("accept", "*/*"))


@lru_cache(maxsize=256)
def _wants_json(header: str) -> bool:
    # Without parameters: `application/json; charset=utf-8` asks for JSON, too.
    accepted = MIMEAccept(
        (value.partition(";")[0].strip(), quality) for value, quality in parse_accept_header(header, MIMEAccept)
    )
    return accepted.best_match(["text/plain", "application/json", "application/problem+json"], "text/plain") != (
        "text/plain"
    )


def answer_reply(answer: Answer, request: Request) -> Reply:
    """200 and exactly the state's name for a yes, 406 and nothing for a no; the JSON form if the client asks for it."""
    request.answer = answer
    status = 200 if answer.is_yes else 406
    if wants_json(request):
        return json_reply(answer.as_json(), status)
    return plain_reply(answer.state if answer.is_yes else "", status)


def plain_reply(text: str, status: int) -> Reply:
    """A plain body of at most MAX_LINE bytes, cut between two characters."""
    body = text.encode()
    if len(body) > MAX_LINE:
        body = body[:MAX_LINE].decode(errors="ignore").encode()
    return Reply(status, body, PLAIN)


def json_reply(fields: dict[str, Any], status: int, content_type: str = JSON) -> Reply:
    """A JSON body, padded with spaces where its length would put a status's digits into Content-Length."""
    body = json.dumps(fields, ensure_ascii=False).encode()
    while any(digits in str(len(body)) for digits in STATUS_DIGITS):
        body += b" "
    return Reply(status, body, content_type)


STATUS = {
    errors.BadRequestError: 400,
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.ChartNotFoundError: 404,
    errors.VersionNotFoundError: 404,
    errors.SubscriptionNotFoundError: 404,
    errors.CalendarNotFoundError: 404,
    errors.RosterNotFoundError: 404,
    errors.NoDefaultChartError: 404,
    errors.ConflictError: 409,
    errors.AttributeRangeError: 409,
    errors.ChartFileError: 422,
    errors.KeyReusedError: 422,
    errors.InvalidSubscriptionError: 422,
    errors.ReasonRequiredError: 422,
    errors.TooManyWaitersError: 503,
    errors.DatabaseUnavailableError: 503,
}
TITLES = {
    400: "Bad request",
    401: "Token required",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    422: "Cannot be processed",
    500: "Internal error",
    503: "Unavailable",
}


def find_status(error: errors.StateServiceError) -> int:
    """The status of an error: that of its class, or else of the nearest class above it."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


RETRY_SECONDS = 1
# The paths of the default chart, where whatever is wrong is 500, as in the seed.
SEED_PATHS = ("/state", "/reached", "/turn")
_SEED_TARGET = re.compile(rb"/(state|reached|turn)/?([? ]|$)")
logger = logging.getLogger("stateservice.web")


def is_seed_target(target: bytes) -> bool:
    """True if a request's target, or its beginning, as the client wrote it, is one of SEED_PATHS."""
    return _SEED_TARGET.match(target) is not None


def register(app: Flask) -> None:
    """Have `app` answer every error through this module."""
    app.register_error_handler(errors.StateServiceError, handle)
    app.register_error_handler(HTTPException, handle_http)
    app.register_error_handler(Exception, handle)


def handle(error: Exception) -> Response:
    """Answer an error in the request that Flask has in hand."""
    return problem_reply(error, current_request()).as_response()


def handle_http(error: HTTPException) -> Response:
    """Answer an error that Flask or Werkzeug raised: no such path, wrong method, body too large."""
    status = error.code or 500
    detail = f"{flask_request.method} {flask_request.path}" if status in (404, 405) else error.description or error.name
    response = describe(status, str(detail), current_request()).as_response()
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def problem_reply(error: Exception, request: Request) -> Reply:
    """Answer an error of the service's own tree; of any other, its own mistake, the log has the traceback."""
    if not isinstance(error, errors.StateServiceError):
        logger.error("unhandled error", exc_info=error)
        return describe(500, "the service failed; its log says how", request)
    status = find_status(error)
    extra: dict[str, Any] = {}
    if isinstance(error, errors.ChartFileError):
        extra["problems"] = [problem.as_json() for problem in error.problems]
    if isinstance(error, errors.DatabaseUnavailableError):
        extra["outcome"] = error.outcome
        logger.error("the database failed: %s (outcome %s)", error, error.outcome)
    return describe(status, str(error), request, extra)


def describe(status: int, detail: str, request: Request, extra: dict[str, Any] | None = None) -> Reply:
    """The error's body: problem+json; under /state 500 and one line, or problem+json where JSON is asked for."""
    is_seed_path = request.path.removesuffix("/") in SEED_PATHS
    if is_seed_path and status not in (401, 403, 405):
        status = 500
    line = " ".join(detail.split()) or TITLES.get(status, "Error")
    request.problem = line
    if is_seed_path and not wants_json(request):
        reply = plain_reply(line + "\n", status)
    else:
        title = TITLES.get(status, "Error")
        fields = {"type": "about:blank", "title": title, "status": status, "detail": line, **(extra or {})}
        reply = json_reply(fields, status, "application/problem+json")
    return replace(reply, headers=_HEADERS.get(status, ()))


_HEADERS = {
    401: (("WWW-Authenticate", 'Bearer realm="stateservice"'),),
    503: (("Retry-After", str(RETRY_SECONDS)),),
}
