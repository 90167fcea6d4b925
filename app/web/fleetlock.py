"""The FleetLock protocol, version 1: a chart is a group, its current state's slots are the semaphore.

Source of the rules: the protocol's published specification (Zincati's "FleetLock protocol"). `/v1/pre-reboot` is a
recursive lock, `/v1/steady-state` a recursive unlock; both are POST with a JSON body and the header
`fleet-lock-protocol: true`, and a client's id may come again any number of times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import wraps

from flask import Blueprint, Response, request

from app.core import errors
from app.service import slots
from app.service.tokens import Role
from app.web.answers import json_response
from app.web.auth import check, current_holder
from app.web.current import current_author, current_service
from app.web.parameters import MACHINE_LENGTH

blueprint = Blueprint("fleetlock", __name__)

_GROUP = re.compile(r"[a-zA-Z0-9.-]{1,128}")
MAX_BODY = 64 * 1024


class FleetLockError(Exception):
    """A no, as the protocol says it: a status, a kind for programs, a value for people."""

    def __init__(self, status: int, kind: str, value: str) -> None:
        super().__init__(value)
        self.status = status
        self.kind = kind
        self.value = value


def answering(view: Callable[[str, str], None]) -> Callable[[], Response]:
    """Run a view on the client's id and group, and answer as the protocol wants, errors too."""

    @wraps(view)
    def run() -> Response:
        try:
            machine, group = read_client()
            check(current_holder(), Role.MACHINE, group)
            view(machine, group)
        except FleetLockError as error:
            return refuse(error.status, error.kind, error.value)
        except errors.ChartNotFoundError as error:
            return refuse(404, "unknown_group", str(error))
        except (errors.BadRequestError, errors.ConflictError) as error:
            return refuse(409, "refused", str(error))
        return json_response({}, 200, "application/json")

    return run


@blueprint.post("/v1/pre-reboot", provide_automatic_options=False)
@answering
def post_pre_reboot(machine: str, group: str) -> None:
    """Lock: claim a slot of the group's current state."""
    answer = slots.claim(current_service(), group, None, machine, current_author())
    if not answer.is_yes:
        raise FleetLockError(409, "failed_lock", f"no slot of {answer.state} for {machine}: {answer.reason}")


@blueprint.post("/v1/steady-state", provide_automatic_options=False)
@answering
def post_steady_state(machine: str, group: str) -> None:
    """Unlock: report the machine as done, if it holds a slot; nothing otherwise."""
    answer = slots.report_if_held(current_service(), group, machine, current_author())
    if answer is not None and not answer.is_yes:
        raise FleetLockError(409, "failed_unlock", f"{machine} cannot report {answer.state}: {answer.reason}")


def read_client() -> tuple[str, str]:
    """The client's id and group. Raises FleetLockError 400 for anything that is not the protocol."""
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
    if not isinstance(group, str) or not _GROUP.fullmatch(group):
        raise FleetLockError(400, "bad_request", "group is not made of a-z A-Z 0-9 . -")
    return machine, group


def refuse(status: int, kind: str, value: str) -> Response:
    """An error's body as the protocol has it."""
    return json_response({"kind": kind, "value": value}, status, "application/json")
