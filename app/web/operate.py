"""Slots over HTTP: claim, give back, evict."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from app.core.errors import BadRequestError, ReasonRequiredError
from app.service import operate
from app.web.request import MACHINE_LENGTH, NAME_LENGTH, check_text, current_author, current_service

blueprint = Blueprint("operate", __name__)
REASON_LENGTH = 1000


@blueprint.post("/charts/<chart:name>/pause", provide_automatic_options=False)
def post_pause(name: str) -> Response:
    """Hold the chart."""
    return jsonify(operate.pause(current_service(), name, read_reason(), current_author()).as_json())


@blueprint.post("/charts/<chart:name>/resume", provide_automatic_options=False)
def post_resume(name: str) -> Response:
    """Let a paused chart go on."""
    return jsonify(operate.resume(current_service(), name, read_reason(), current_author()).as_json())


@blueprint.post("/charts/<chart:name>/reset", provide_automatic_options=False)
def post_reset(name: str) -> Response:
    """Begin the next run."""
    return jsonify(operate.reset(current_service(), name, read_reason(), current_author()).as_json())


@blueprint.post("/charts/<chart:name>/goto", provide_automatic_options=False)
def post_goto(name: str) -> Response:
    """Begin a visit of the state that the body names."""
    reason = read_reason()
    state = read_field("state", NAME_LENGTH)
    if state is None:
        raise BadRequestError('state is missing: {"state": "...", "reason": "..."}')
    return jsonify(operate.goto(current_service(), name, state, reason, current_author()).as_json())


@blueprint.post("/charts/<chart:name>/archive", provide_automatic_options=False)
def post_archive(name: str) -> Response:
    """Put the chart away."""
    return jsonify(operate.archive(current_service(), name, read_reason(), current_author()).as_json())


def read_reason() -> str:
    """The reason that the body gives. Raises ReasonRequiredError, BadRequestError."""
    reason = read_field("reason", REASON_LENGTH)
    if reason is None or not reason.strip():
        raise ReasonRequiredError('a reason is required: {"reason": "..."}')
    return reason


def read_field(name: str, limit: int) -> str | None:
    """A text of the JSON body, whatever Content-Type it was sent with. Raises BadRequestError."""
    try:
        body = request.get_json(force=True, silent=True)
    except RecursionError:
        # A hundred thousand opening brackets.
        body = None
    if request.get_data() and not isinstance(body, dict):
        raise BadRequestError("the body is not a JSON object")
    value = (body or {}).get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadRequestError(f"{name} is not a text")
    return check_text(name, value, limit)


@blueprint.post("/charts/<chart:name>/evict", provide_automatic_options=False)
def post_evict(name: str) -> Response:
    """Take the slot of the machine that the body names away."""
    reason = read_reason()
    machine = read_field("machine", MACHINE_LENGTH)
    if machine is None:
        raise BadRequestError('machine is missing: {"machine": "...", "reason": "..."}')
    return jsonify(operate.evict(current_service(), name, machine, reason, current_author()).as_json())
