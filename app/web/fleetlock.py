"""The FleetLock protocol, version 1: a group is a chart, and the semaphore is the slots of its current state.

Source of the rules: the protocol's published specification (Zincati's "FleetLock protocol"). `/v1/pre-reboot` is a
recursive lock, `/v1/steady-state` a recursive unlock; both are POST with a JSON body and the header
`fleet-lock-protocol: true`, and a client may send the same request any number of times.
"""

from __future__ import annotations

import json
import re

from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from app.core.errors import BadRequestError
from app.service.put import ClaimCurrent, apply_one, report_if_held
from app.service.tokens import Role
from app.web import replies
from app.web.auth import check
from app.web.replies import json_reply
from app.web.request import (
    MACHINE_LENGTH,
    current_author,
    current_holder,
    current_request,
    current_service,
    settle_machine,
)

blueprint = Blueprint("fleetlock", __name__)

_GROUP = re.compile(r"[a-zA-Z0-9.-]{1,128}")
MAX_BODY = 64 * 1024
# An error's kind by its status; any other status is `unavailable`. The kinds are few because clients count errors by
# kind.
ERROR_KINDS = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "unknown_group",
    409: "refused",
    413: "bad_request",
}


class FleetLockError(Exception):
    """A refusal in the protocol's form: a status, a kind for programs and a value for people."""

    def __init__(self, status: int, kind: str, value: str) -> None:
        super().__init__(value)
        self.status = status
        self.kind = kind
        self.value = value


@blueprint.errorhandler(FleetLockError)
def handle_refusal(error: FleetLockError) -> Response:
    """Answer a request that this module refuses."""
    return json_reply({"kind": error.kind, "value": error.value}, error.status).as_response()


@blueprint.errorhandler(Exception)
def handle_error(error: Exception) -> Response:
    """Answer any other error: the status is the one that all routes have for it, the body is the protocol's."""
    response = replies.handle_http(error) if isinstance(error, HTTPException) else replies.handle(error)
    kind = ERROR_KINDS.get(response.status_code, "unavailable")
    response.data = json.dumps({"kind": kind, "value": response.get_json(force=True)["detail"]})
    response.mimetype = "application/json"
    return response


@blueprint.post("/v1/pre-reboot", provide_automatic_options=False)
def post_pre_reboot() -> Response:
    """Lock: claim a slot of the chart's current state."""
    machine, group = read_client()
    try:
        answer = apply_one(current_service(), group, ClaimCurrent(machine), current_author())
    except BadRequestError as error:
        raise FleetLockError(409, ERROR_KINDS[409], str(error)) from None
    if not answer.is_yes:
        raise FleetLockError(409, "failed_lock", f"no slot of {answer.state} for {machine}: {answer.reason}")
    return json_reply({}, 200).as_response()


@blueprint.post("/v1/steady-state", provide_automatic_options=False)
def post_steady_state() -> Response:
    """Unlock: report the machine as done if it holds a slot, else do nothing."""
    machine, group = read_client()
    answer = report_if_held(current_service(), group, machine, current_author())
    if answer is not None and not answer.is_yes:
        raise FleetLockError(409, "failed_unlock", f"{machine} cannot report {answer.state}: {answer.reason}")
    return json_reply({}, 200).as_response()


def read_client() -> tuple[str, str]:
    """The client's id and group. Raises FleetLockError (400) if the request breaks the protocol, ForbiddenError."""
    if request.headers.get("fleet-lock-protocol") != "true":
        raise FleetLockError(400, "bad_request", "the header fleet-lock-protocol: true is missing")
    try:
        body = json.loads(request.get_data(cache=False)[:MAX_BODY])
        client = body["client_params"]
        machine, group = client["id"], client["group"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FleetLockError(400, "bad_request", 'the body is not {"client_params": {"id", "group"}}') from None
    if not isinstance(machine, str) or not 1 <= len(machine) <= MACHINE_LENGTH or not machine.isprintable():
        raise FleetLockError(400, "bad_request", f"id is not 1 to {MACHINE_LENGTH} printable characters")
    if machine != machine.strip():
        raise FleetLockError(400, "bad_request", "id has a space at one of its ends")
    if not isinstance(group, str) or not _GROUP.fullmatch(group):
        raise FleetLockError(400, "bad_request", "group is not 1 to 128 characters of a-z A-Z 0-9 . -")
    check(current_holder(), Role.MACHINE, group)
    settle_machine(current_request(), machine)
    return machine, group
