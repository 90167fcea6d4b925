"""What an operator does to a chart over HTTP, with a reason for the log; and slots, claimed and given back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, request

from app.core.errors import BadRequestError
from app.core.position import Archive, Goto, Happening, Reset
from app.service import operate
from app.service.status import Status
from app.web.auth import check_json_type
from app.web.request import (
    MACHINE_LENGTH,
    NAME_LENGTH,
    check_known,
    check_text,
    current_author,
    current_service,
    read_instant,
    read_query,
)

blueprint = Blueprint("operate", __name__)
# Characters.
REASON_LENGTH = 1000


@blueprint.post("/charts/<chart:name>/pause", provide_automatic_options=False)
def post_pause(name: str) -> Response:
    """Pause the chart: questions are answered 406 and every transition waits, until the chart is resumed."""
    return _answer(operate.pause(current_service(), name, read_reason(), current_author()))


@blueprint.post("/charts/<chart:name>/resume", provide_automatic_options=False)
def post_resume(name: str) -> Response:
    """Resume a paused chart."""
    return _answer(operate.resume(current_service(), name, read_reason(), current_author()))


@blueprint.post("/charts/<chart:name>/reset", provide_automatic_options=False)
def post_reset(name: str) -> Response:
    """Begin the next run, in the initial state; `dry_run=1` answers what would be lost."""
    return _act_or_rehearse(name, Reset)


@blueprint.post("/charts/<chart:name>/goto", provide_automatic_options=False)
def post_goto(name: str) -> Response:
    """Begin a visit of the state that the body names, whether or not a guard holds; `dry_run=1` as for reset."""

    def go(reason: str) -> Goto:
        state = read_field("state", NAME_LENGTH)
        if state is None:
            raise BadRequestError('state is missing: {"state": "...", "reason": "..."}')
        return Goto(state, reason)

    return _act_or_rehearse(name, go)


@blueprint.post("/charts/<chart:name>/open", provide_automatic_options=False)
def post_open(name: str) -> Response:
    """Open the chart until the instant that the body names, whatever its windows say."""
    reason = read_reason()
    until = read_field("until", 40)
    if until is None:
        raise BadRequestError('until is missing: {"until": "2030-01-31T22:00:00Z", "reason": "..."}')
    instant = read_instant("until", until)
    return _answer(operate.open_chart(current_service(), name, instant, reason, current_author()))


@blueprint.post("/charts/<chart:name>/archive", provide_automatic_options=False)
def post_archive(name: str) -> Response:
    """Archive the chart: it answers 404 until it is imported again; `dry_run=1` answers what would be lost."""
    return _act_or_rehearse(name, Archive)


def _act_or_rehearse(name: str, make: Callable[[str], Happening]) -> Response:
    """Do the act that `make` builds from its reason, or rehearse it, for which no reason is needed."""
    service, author = current_service(), current_author()
    if read_query().find_flag("dry_run"):
        happening = make(read_field("reason", REASON_LENGTH) or "")
        return _answer(operate.rehearse(service, name, happening, author))
    return _answer(operate.act(service, name, make(read_reason()), author))


def _answer(found: Status | operate.Rehearsal) -> Response:
    """The status after an act, or what it would do: JSON, or text for people by `Accept`."""
    if request.accept_mimetypes.best_match(["application/json", "text/plain"]) == "text/plain":
        return Response(found.as_text(), mimetype="text/plain")
    return jsonify(found.as_json())


def read_reason() -> str:
    """The reason that the body gives. Raises ReasonRequiredError, BadRequestError."""
    return operate.require_reason(read_field("reason", REASON_LENGTH), '{"reason": "..."}')


def read_field(name: str, limit: int, *, may_be_empty: bool = True) -> str | None:
    """A text field of the JSON body; None if it is missing or null, or empty and `may_be_empty`.

    Raises BadRequestError.
    """
    value = read_object().get(name)
    if value is None or (value == "" and may_be_empty):
        return None
    if not isinstance(value, str):
        raise BadRequestError(f"{name} is not a text")
    return check_text(name, value, limit)


# The fields of a JSON object by route. Scripts send one object for all acts, so each act lets those of the others pass.
# `actor` changes nothing: the log has the token's name.
_ACT = ("reason", "state", "machine", "actor")
FIELDS: dict[str, tuple[str, ...]] = {
    "operate.post_pause": _ACT,
    "operate.post_resume": _ACT,
    "operate.post_reset": _ACT,
    "operate.post_archive": _ACT,
    "operate.post_goto": _ACT,
    "operate.post_evict": _ACT,
    "operate.post_open": (*_ACT, "until"),
    "tokens.put_token": ("role", "charts", "machine", "expires"),
}


def read_object() -> dict[str, Any]:
    """The JSON object in the body; an empty one if there is no body. Raises BadRequestError.

    A field that the route does not know, or that is there twice, is refused: a limit whose name is misspelt would be no
    limit.
    """
    check_json_type()
    text = request.get_data()
    if not text:
        return {}
    # Whatever Content-Type says: `curl -d` sends that of a form.
    try:
        body = json.loads(text, object_pairs_hook=_read_pairs)
    except (ValueError, RecursionError):
        # Not JSON, not UTF-8, or nested deeper than the parser can follow.
        body = None
    if not isinstance(body, dict):
        raise BadRequestError("the body is not a JSON object")
    known = FIELDS.get(request.endpoint or "")
    if known is not None:
        check_known(body, known, "field")
    return body


def _read_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadRequestError("a field of the JSON object is given more than once")
    return found


@blueprint.post("/charts/<chart:name>/evict", provide_automatic_options=False)
def post_evict(name: str) -> Response:
    """Take away the slot of the machine that the body names."""
    reason = read_reason()
    machine = read_field("machine", MACHINE_LENGTH)
    if machine is None:
        raise BadRequestError('machine is missing: {"machine": "...", "reason": "..."}')
    return _answer(operate.evict(current_service(), name, machine, reason, current_author()))
