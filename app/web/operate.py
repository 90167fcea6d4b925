"""Slots over HTTP: claim, give back, evict."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from app.core.errors import BadRequestError
from app.service import operate, slots
from app.web.replies import answer_response
from app.web.request import MACHINE_LENGTH, NAME_LENGTH, Query, check_text, current_author, current_service, read_query
from app.web.state import MAX_WAIT

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
    return operate.require_reason(read_field("reason", REASON_LENGTH), '{"reason": "..."}')


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


@blueprint.put("/charts/<chart:name>/slot", provide_automatic_options=False)
def put_slot(name: str) -> Response:
    """May I start? 200 where the machine holds a slot now, 406 where there is none for it."""
    query = read_query()
    state, machine = _read(query)
    wait = query.find_number("wait", 0, MAX_WAIT) or 0
    return answer_response(slots.claim(current_service(), name, state, machine, current_author(), wait))


@blueprint.delete("/charts/<chart:name>/slot", provide_automatic_options=False)
def delete_slot(name: str) -> Response:
    """I will not: 200 where the slot was given back, or none was held."""
    state, machine = _read(read_query())
    return answer_response(slots.release(current_service(), name, state, machine, current_author()))


@blueprint.post("/charts/<chart:name>/evict", provide_automatic_options=False)
def post_evict(name: str) -> Response:
    """Take the slot of the machine that the body names away."""
    reason = read_reason()
    machine = read_field("machine", MACHINE_LENGTH)
    if machine is None:
        raise BadRequestError('machine is missing: {"machine": "...", "reason": "..."}')
    return jsonify(operate.evict(current_service(), name, machine, reason, current_author()).as_json())


def _read(query: Query) -> tuple[str, str]:
    machine = query.find("machine", MACHINE_LENGTH, "X-Machine")
    if machine is None:
        raise BadRequestError("machine is missing: a slot belongs to a machine")
    return query.get("state", NAME_LENGTH), machine
