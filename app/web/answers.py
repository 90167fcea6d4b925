"""Replies to a question about a state: bytes exact, and no header that a `grep 200` would take for a yes."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from flask import Response, request
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from app.service.answers import Answer
from app.web.note import Environ, note_of
from app.web.reply import Reply

# People grep a whole response, headers and all, for the status; no header of a state answer may look like one.
STATUS_DIGITS = ("200", "406", "500")
# The longest plain body, so that Content-Length stays clear of the digits above.
MAX_LINE = 128
PLAIN = "text/plain; charset=utf-8"
JSON = "application/json"


def wants_json(environ: Environ) -> bool:
    """True where the caller asks for JSON rather than text; `*/*`, which curl sends, means text."""
    return _wants_json(environ.get("HTTP_ACCEPT", "*/*"))


@lru_cache(maxsize=256)
def _wants_json(header: str) -> bool:
    # Without parameters: `application/json; charset=utf-8` asks for JSON, too.
    accepted = MIMEAccept(
        (value.partition(";")[0].strip(), quality) for value, quality in parse_accept_header(header, MIMEAccept)
    )
    return accepted.best_match(["text/plain", "application/json", "application/problem+json"], "text/plain") != (
        "text/plain"
    )


def answer_reply(answer: Answer, environ: Environ) -> Reply:
    """200 and exactly the state's name for a yes, 406 and nothing for a no; the JSON form where it is asked for."""
    note_of(environ).answer = answer
    status = 200 if answer.is_yes else 406
    if wants_json(environ):
        return json_reply(answer.as_json(), status)
    return plain_reply(answer.state if answer.is_yes else "", status)


def answer_response(answer: Answer) -> Response:
    """As `answer_reply`, of the request that Flask has in hand."""
    return answer_reply(answer, request.environ).as_response()


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
