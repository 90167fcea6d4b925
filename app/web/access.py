"""One line a request: who asked what and heard what; and the id by which a caller finds it."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any

from flask import Flask, Request, Response, current_app, g, request

from app.config import Config
from app.logs import JsonMessage
from app.service.answers import Answer
from app.service.tokens import Holder
from app.web import metrics
from app.web.parameters import MACHINE_LENGTH, NAME_LENGTH

logger = logging.getLogger("stateservice.access")

REQUEST_ID = "X-Request-Id"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Whoever greps a state's answer for 200 must not find it in an id.
_ANSWERS = frozenset({"state", "reached", "slot"})
REASON_LENGTH = 500


def register(app: Flask) -> None:
    """Have every request timed, counted and logged. Comes before all else that looks at requests."""
    app.before_request(begin)
    app.after_request(end)


def begin() -> None:
    """Note when the request came, and what it is called."""
    sent = request.headers.get(REQUEST_ID)
    g.request_id = sent if sent is not None and _SANE_ID.fullmatch(sent) else secrets.token_hex(8)
    g.started = time.perf_counter()


def end(response: Response) -> Response:
    """Count and log the request, and name it in the answers that may carry its id."""
    # The real request, not its proxy, which looks it up for every attribute.
    answered: Request = request._get_current_object()  # type: ignore[attr-defined]  # a proxy to the type checker
    noted = vars(g._get_current_object())
    seconds = time.perf_counter() - noted["started"]
    metrics.count_request(answered, response.status_code, seconds)
    if may_carry_id(answered.path):
        response.headers[REQUEST_ID] = noted["request_id"]
    config: Config = current_app.extensions["stateservice.config"]
    if config.access_log and logger.isEnabledFor(logging.INFO):
        logger.info(JsonMessage(describe(answered, noted, response.status_code, seconds)))
    return response


def may_carry_id(path: str) -> bool:
    """True for the paths under /charts whose answers people read, rather than grep."""
    if not path.startswith("/charts"):
        return False
    parts = path.rstrip("/").split("/")
    return parts[1] == "charts" and not (len(parts) == 4 and parts[3] in _ANSWERS)


def describe(answered: Request, noted: dict[str, Any], status: int, seconds: float) -> dict[str, Any]:
    """The fields of a request's line, from the request and what was `noted` on the way."""
    answer: Answer | None = noted.get("answer")
    holder: Holder | None = noted.get("holder")
    query: dict[str, list[str]] = noted.get("query", {})
    problem: str | None = noted.get("problem")
    return {
        "request_id": noted["request_id"],
        "method": answered.method[:16],
        "path": answered.path[:MACHINE_LENGTH],
        "chart": answer.chart if answer is not None else (answered.view_args or {}).get("name"),
        "state": _first(query, "state", NAME_LENGTH),
        "machine": _first(query, "machine", MACHINE_LENGTH) or _find_machine_header(answered),
        "actor": None if holder is None else holder.name,
        "remote_addr": answered.remote_addr or None,
        "outcome": find_outcome(answer, status),
        "reason": answer.reason if answer is not None else problem and problem[:REASON_LENGTH],
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


def _find_machine_header(answered: Request) -> str | None:
    sent = answered.headers.get("X-Machine")
    # WSGI hands headers over as Latin-1; one that is no UTF-8 was refused, and is logged as well as can be.
    return None if sent is None else sent.encode("latin-1").decode(errors="replace")[:MACHINE_LENGTH]


def _first(query: dict[str, list[str]], name: str, limit: int) -> str | None:
    values = query.get(name)
    return values[0][:limit] if values else None
