"""Errors to statuses, in one table, and to bodies: RFC 9457 problem+json, or one line under /state."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from app.core import errors
from app.web.answers import json_reply, plain_reply, wants_json
from app.web.note import Environ, note_of
from app.web.reply import Reply

STATUS = {
    errors.BadRequestError: 400,
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.ChartNotFoundError: 404,
    errors.VersionNotFoundError: 404,
    errors.NoDefaultChartError: 404,
    errors.ConflictError: 409,
    errors.AttributeRangeError: 409,
    errors.ChartFileError: 422,
    errors.KeyReusedError: 422,
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
RETRY_SECONDS = 1
# The paths of the default chart, where whatever is wrong is 500, as in the seed.
SEED_PATHS = ("/state", "/reached")

logger = logging.getLogger("stateservice.web")


def register(app: Flask) -> None:
    """Have `app` answer every error through this module."""
    app.register_error_handler(errors.StateServiceError, handle)
    app.register_error_handler(HTTPException, handle_http)
    app.register_error_handler(Exception, handle)


def handle(error: Exception) -> Response:
    """Answer an error in the request that Flask has in hand."""
    return problem_reply(error, request.environ).as_response()


def handle_http(error: HTTPException) -> Response:
    """Answer an error that Flask or Werkzeug raised: no such path, wrong method, body too large."""
    status = error.code or 500
    detail = f"{request.method} {request.path}" if status in (404, 405) else error.description or error.name
    response = describe(status, str(detail), request.environ).as_response()
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def problem_reply(error: Exception, environ: Environ) -> Reply:
    """Answer an error of the service's own tree; of any other, its own mistake, the log has the traceback."""
    if not isinstance(error, errors.StateServiceError):
        logger.error("unhandled error", exc_info=error)
        return describe(500, "the service failed; its log says how", environ)
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    extra: dict[str, Any] = {}
    if isinstance(error, errors.ChartFileError):
        extra["problems"] = [problem.as_json() for problem in error.problems]
    if isinstance(error, errors.DatabaseUnavailableError):
        extra["outcome"] = error.outcome
        logger.error("the database failed: %s (outcome %s)", error, error.outcome)
    return describe(status, str(error), environ, extra)


def describe(status: int, detail: str, environ: Environ, extra: dict[str, Any] | None = None) -> Reply:
    """The error's body: problem+json; under /state 500 and one line, or problem+json where JSON is asked for."""
    is_seed_path = environ["PATH_INFO"].removesuffix("/") in SEED_PATHS
    if is_seed_path and status not in (401, 403, 405):
        status = 500
    line = " ".join(detail.split()) or TITLES.get(status, "Error")
    note_of(environ).problem = line
    if is_seed_path and not wants_json(environ):
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
