"""Tokens over HTTP: an administrator lists, makes and revokes them, and a machine enrols."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, jsonify, request

from app.chart_file.fields import ScalarError, to_age
from app.core.errors import BadRequestError
from app.service import tokens
from app.service.tokens import NAME_LENGTH
from app.web.auth import check_may_manage_tokens, current_access
from app.web.operate import read_field
from app.web.request import MACHINE_LENGTH, current_author, current_holder, current_service, read_query

blueprint = Blueprint("tokens", __name__)
PATTERN_LENGTH = 256


@blueprint.get("/tokens", provide_automatic_options=False)
def get_tokens() -> Response:
    """Every token, also each revoked one; never a secret."""
    check_may_manage_tokens(current_holder())
    return jsonify([row.as_json() for row in tokens.list_tokens(current_service())])


@blueprint.put("/tokens/<string:token>", provide_automatic_options=False)
def put_token(token: str) -> tuple[Response, int]:
    """Make a token; the answer has its secret, this once."""
    check_may_manage_tokens(current_holder())
    role = read_field("role", NAME_LENGTH)
    if role is None:
        raise BadRequestError('role is missing: {"role": "machine"}')
    # An empty limit is a variable that a script did not set, not a wish for a token without the limit.
    secret = tokens.create_token(
        current_service(),
        token,
        tokens.read_role(role),
        read_field("charts", PATTERN_LENGTH, may_be_empty=False) or "*",
        current_author(),
        machine=read_field("machine", MACHINE_LENGTH, may_be_empty=False),
        lifetime=read_lifetime(read_field("expires", 20, may_be_empty=False)),
    )
    return _answer({"name": token, "token": secret})


@blueprint.delete("/tokens/<string:token>", provide_automatic_options=False)
def delete_token(token: str) -> Response:
    """Revoke a token, in every process within a second."""
    check_may_manage_tokens(current_holder())
    tokens.revoke_token(current_service(), token, current_author())
    return jsonify({"name": token, "revoked": True})


@blueprint.post("/enrol", provide_automatic_options=False)
def post_enrol() -> tuple[Response, int]:
    """Give the machine that asks a token of its own, for the charts that the enrolling token is for."""
    if not current_access().uses_tokens:
        raise BadRequestError("the service does not ask for tokens: STATE_SERVICE_AUTH is not tokens")
    query = read_query()
    machine, lifetime = query.get_machine(), read_lifetime(query.find("expires", 20))
    done = tokens.enrol_machine(current_service(), machine, current_holder().pattern, current_author(), lifetime)
    if request.accept_mimetypes.best_match(["application/json", "text/plain"]) == "text/plain":
        return _close(Response(f"{done.secret}\n", mimetype="text/plain")), 201
    row = done.row.as_json()
    shown = {name: row[name] for name in ("name", "machine", "pattern", "expires_at")}
    return _answer({**shown, "token": done.secret})


def read_lifetime(text: str | None) -> timedelta | None:
    """How long a token lives, written as in a chart file; None if it is not given. Raises BadRequestError."""
    if text is None:
        return None
    try:
        return to_age(text)
    except ScalarError as error:
        raise BadRequestError(f"expires={text}: {error}") from None


def _answer(fields: dict[str, Any]) -> tuple[Response, int]:
    return _close(jsonify(fields)), 201


def _close(response: Response) -> Response:
    # The answer holds a secret.
    response.headers["Cache-Control"] = "no-store"
    return response
