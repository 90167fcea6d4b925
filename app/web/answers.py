"""Responses to a question about a state: bytes exact, and no header that a `grep 200` would take for a yes."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from flask import Response, g, request
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from app.service.answers import Answer

# People grep a whole response, headers and all, for the status; no header of a state answer may look like one.
STATUS_DIGITS = ("200", "406", "500")
# The longest plain body, so that Content-Length stays clear of the digits above.
MAX_LINE = 128


def wants_json() -> bool:
    """True where the caller asks for JSON rather than text; `*/*`, which curl sends, means text."""
    return _wants_json(request.headers.get("Accept", "*/*"))


@lru_cache(maxsize=256)
def _wants_json(header: str) -> bool:
    # Without parameters: `application/json; charset=utf-8` asks for JSON, too.
    accepted = MIMEAccept(
        (value.partition(";")[0].strip(), quality) for value, quality in parse_accept_header(header, MIMEAccept)
    )
    return accepted.best_match(["text/plain", "application/json", "application/problem+json"], "text/plain") != (
        "text/plain"
    )


def answer_response(answer: Answer) -> Response:
    """200 and exactly the state's name for a yes, 406 and nothing for a no; the JSON form where it is asked for."""
    g.answer = answer  # for the request's line in the log
    status = 200 if answer.is_yes else 406
    if wants_json():
        return json_response(answer.as_json(), status, "application/json")
    return plain_response(answer.state if answer.is_yes else "", status)


def plain_response(text: str, status: int) -> Response:
    """A plain body of at most MAX_LINE bytes, cut between two characters."""
    body = text.encode()[:MAX_LINE].decode(errors="ignore")
    return _closed(Response(body, status, mimetype="text/plain"))


def json_response(fields: dict[str, Any], status: int, mimetype: str) -> Response:
    """A JSON body, padded with spaces where its length would put a status's digits into Content-Length."""
    body = json.dumps(fields, ensure_ascii=False).encode()
    while any(digits in str(len(body)) for digits in STATUS_DIGITS):
        body += b" "
    return _closed(Response(body, status, mimetype=mimetype))


def _closed(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
