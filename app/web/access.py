"""One line a request: who asked what and heard what; and the id by which a caller finds it."""

from __future__ import annotations

import logging
import time
from typing import Any

from flask import Flask, Response, current_app, request

from app.config import Config
from app.logs import JsonMessage
from app.service.answers import Answer
from app.web import metrics
from app.web.note import Environ, Note, begin_note, note_of
from app.web.parameters import MACHINE_LENGTH, NAME_LENGTH

logger = logging.getLogger("stateservice.access")

REQUEST_ID = "X-Request-Id"
# Whoever greps a state's answer for 200 must not find it in an id.
_ANSWERS = frozenset({"state", "reached", "slot"})
REASON_LENGTH = 500


def register(app: Flask) -> None:
    """Have every request timed, counted and logged. Comes before all else that looks at requests."""
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    note = begin_note(request.environ)
    note.chart = (request.view_args or {}).get("name")


def _end(response: Response) -> Response:
    note, rule = note_of(request.environ), request.url_rule
    if may_carry_id(request.path):
        response.headers[REQUEST_ID] = note.request_id
    config: Config = current_app.extensions["stateservice.config"]
    finish(config, request.environ, None if rule is None else rule.rule, response.status_code)
    return response


def finish(config: Config, environ: Environ, route: str | None, status: int) -> None:
    """Count and log a request that is about to be answered."""
    note = note_of(environ)
    seconds = time.perf_counter() - note.started
    metrics.count_request(environ["REQUEST_METHOD"], route, status, seconds)
    if config.access_log and logger.isEnabledFor(logging.INFO):
        message = JsonMessage(describe(environ, note, status, seconds))
        # Not logger.info, which looks for its caller on the stack.
        logger.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, message, (), None))


def may_carry_id(path: str) -> bool:
    """True for the paths under /charts whose answers people read, rather than grep."""
    if not path.startswith("/charts"):
        return False
    parts = path.rstrip("/").split("/")
    return parts[1] == "charts" and not (len(parts) == 4 and parts[3] in _ANSWERS)


def describe(environ: Environ, note: Note, status: int, seconds: float) -> dict[str, Any]:
    """The fields of a request's line."""
    answer, holder, query = note.answer, note.holder, note.query
    return {
        "request_id": note.request_id,
        "method": environ["REQUEST_METHOD"][:16],
        "path": _decode(environ["PATH_INFO"])[:MACHINE_LENGTH],
        "chart": answer.chart if answer is not None else note.chart,
        "state": _first(query, "state", NAME_LENGTH),
        "machine": _first(query, "machine", MACHINE_LENGTH) or _find_machine_header(environ),
        "actor": None if holder is None else holder.name,
        "remote_addr": environ.get("REMOTE_ADDR") or None,
        "outcome": find_outcome(answer, status),
        "reason": answer.reason if answer is not None else note.problem and note.problem[:REASON_LENGTH],
        "status": status,
        "milliseconds": round(seconds * 1000, 3),
    }


def find_outcome(answer: Answer | None, status: int) -> str:
    """What came of a request, in a word: yes or no where it asked, else done, refused or failed."""
    if answer is not None:
        return "yes" if answer.is_yes else "no"
    if status < 400:
        return "done"
    return "refused" if status < 500 else "failed"


def _find_machine_header(environ: Environ) -> str | None:
    sent = environ.get("HTTP_X_MACHINE")
    return None if sent is None else _decode(sent)[:MACHINE_LENGTH]


def _decode(text: str) -> str:
    # WSGI hands text over as Latin-1; what is no UTF-8 is logged as well as can be.
    return text.encode("latin-1").decode(errors="replace")


def _first(query: dict[str, list[str]], name: str, limit: int) -> str | None:
    values = query.get(name)
    return values[0][:limit] if values else None
