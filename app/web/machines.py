"""Who has reported, and who is missing."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from app.core.errors import BadRequestError
from app.service.machines import list_machines
from app.web.current import current_service
from app.web.parameters import NAME_LENGTH, read_query

blueprint = Blueprint("machines", __name__)


@blueprint.get("/charts/<chart:name>/machines", provide_automatic_options=False)
def get_machines(name: str) -> Response:
    """The machines of a state's latest visit: those that reported, or with `is=missing` those that did not."""
    query = read_query()
    wanted = query.find("is", NAME_LENGTH) or "reported"
    if wanted not in ("reported", "missing"):
        raise BadRequestError(f"is={wanted} is neither reported nor missing")
    state = query.find("state", NAME_LENGTH)
    only_missing = wanted == "missing"
    found = list_machines(current_service(), name, state, only_missing=only_missing)
    if request.accept_mimetypes.best_match(["application/json", "text/plain"]) == "text/plain":
        return Response(found.as_text(only_missing=only_missing), mimetype="text/plain")
    return jsonify(found.as_json(only_missing=only_missing))
