"""Slots over HTTP: claim, give back, evict."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from app.core.errors import BadRequestError
from app.service import acts, slots
from app.web.acts import read_field, read_reason
from app.web.answers import answer_response
from app.web.current import current_author, current_service
from app.web.parameters import MACHINE_LENGTH, NAME_LENGTH, Query, read_query
from app.web.state import MAX_WAIT

blueprint = Blueprint("slots", __name__)


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
    return jsonify(acts.evict(current_service(), name, machine, reason, current_author()).as_json())


def _read(query: Query) -> tuple[str, str]:
    machine = query.find("machine", MACHINE_LENGTH, "X-Machine")
    if machine is None:
        raise BadRequestError("machine is missing: a slot belongs to a machine")
    return query.get("state", NAME_LENGTH), machine
