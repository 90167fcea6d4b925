"""What administrators do over HTTP: make and revoke tokens, with which machines enrol; make and test subscriptions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, jsonify, request

from app.chart_file.fields import ScalarError, to_age
from app.core.errors import BadRequestError
from app.service import subscriptions, tokens
from app.service.tokens import NAME_LENGTH
from app.web.auth import check_may_manage_tokens, current_access
from app.web.operate import read_field, read_object
from app.web.request import MACHINE_LENGTH, current_author, current_holder, current_service, read_query

# Tokens

tokens_blueprint = Blueprint("tokens", __name__)
PATTERN_LENGTH = 256


@tokens_blueprint.get("/tokens", provide_automatic_options=False)
def get_tokens() -> Response:
    """Every token, also each revoked one; never a secret."""
    check_may_manage_tokens(current_holder())
    return jsonify([row.as_json() for row in tokens.list_tokens(current_service())])


@tokens_blueprint.put("/tokens/<string:token>", provide_automatic_options=False)
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


@tokens_blueprint.delete("/tokens/<string:token>", provide_automatic_options=False)
def delete_token(token: str) -> Response:
    """Revoke a token, in every process within a second."""
    check_may_manage_tokens(current_holder())
    tokens.revoke_token(current_service(), token, current_author())
    return jsonify({"name": token, "revoked": True})


@tokens_blueprint.post("/enrol", provide_automatic_options=False)
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


# Subscriptions

subscriptions_blueprint = Blueprint("subscriptions", __name__)

# Rows of one list of deliveries.
MAX_DELIVERIES = 1000


@subscriptions_blueprint.get("/subscriptions", provide_automatic_options=False)
def get_subscriptions() -> Response:
    """Every subscription, by name, without its secret."""
    return jsonify([found.as_json() for found in subscriptions.list_subscriptions(current_service())])


@subscriptions_blueprint.get("/subscriptions/<string:subscription>", provide_automatic_options=False)
def get_subscription(subscription: str) -> Response:
    """One subscription, without its secret."""
    return jsonify(subscriptions.get_subscription(current_service(), subscription).as_json())


@subscriptions_blueprint.put("/subscriptions/<string:subscription>", provide_automatic_options=False)
def put_subscription(subscription: str) -> tuple[Response, int]:
    """Make a subscription (201) or change it (200). A secret that the service makes is shown in this answer only."""
    wanted = subscriptions.read_wanted(read_object())
    done = subscriptions.put_subscription(current_service(), subscription, wanted, current_author())
    return jsonify(done.as_json()), 201 if done.is_new else 200


@subscriptions_blueprint.delete("/subscriptions/<string:subscription>", provide_automatic_options=False)
def delete_subscription(subscription: str) -> Response:
    """Delete a subscription and the list of its deliveries; answers with what it was."""
    return jsonify(subscriptions.delete_subscription(current_service(), subscription).as_json())


@subscriptions_blueprint.get("/subscriptions/<string:subscription>/deliveries", provide_automatic_options=False)
def get_deliveries(subscription: str) -> Response:
    """What was sent to the subscription, newest first."""
    limit = read_query().find_number("limit", 1, MAX_DELIVERIES) or 100
    found = subscriptions.list_deliveries(current_service(), subscription, limit)
    return jsonify([delivery.as_json() for delivery in found])


@subscriptions_blueprint.post("/subscriptions/<string:subscription>/test", provide_automatic_options=False)
def post_test(subscription: str) -> Response:
    """Send a webhook of the kind `test` now, and say what came of it."""
    return jsonify(subscriptions.send_test(current_service(), subscription).as_json())
