"""Subscriptions over HTTP: who is told of which rows of the log. Admins make, test and delete them."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from app.service import subscriptions
from app.web.operate import read_object
from app.web.request import current_author, current_service, read_query

blueprint = Blueprint("subscriptions", __name__)

# Rows of one list of deliveries.
MAX_DELIVERIES = 1000


@blueprint.get("/subscriptions", provide_automatic_options=False)
def get_subscriptions() -> Response:
    """Every subscription, by name, without its secret."""
    return jsonify([found.as_json() for found in subscriptions.list_subscriptions(current_service())])


@blueprint.get("/subscriptions/<string:subscription>", provide_automatic_options=False)
def get_subscription(subscription: str) -> Response:
    """One subscription, without its secret."""
    return jsonify(subscriptions.get_subscription(current_service(), subscription).as_json())


@blueprint.put("/subscriptions/<string:subscription>", provide_automatic_options=False)
def put_subscription(subscription: str) -> tuple[Response, int]:
    """Make a subscription (201) or change it (200). A secret that the service makes is shown in this answer only."""
    wanted = subscriptions.read_wanted(read_object())
    done = subscriptions.put_subscription(current_service(), subscription, wanted, current_author())
    return jsonify(done.as_json()), 201 if done.is_new else 200


@blueprint.delete("/subscriptions/<string:subscription>", provide_automatic_options=False)
def delete_subscription(subscription: str) -> Response:
    """Delete a subscription and the list of its deliveries; answers with what it was."""
    return jsonify(subscriptions.delete_subscription(current_service(), subscription).as_json())


@blueprint.get("/subscriptions/<string:subscription>/deliveries", provide_automatic_options=False)
def get_deliveries(subscription: str) -> Response:
    """What was sent to the subscription, newest first."""
    limit = read_query().find_number("limit", 1, MAX_DELIVERIES) or 100
    found = subscriptions.list_deliveries(current_service(), subscription, limit)
    return jsonify([delivery.as_json() for delivery in found])


@blueprint.post("/subscriptions/<string:subscription>/test", provide_automatic_options=False)
def post_test(subscription: str) -> Response:
    """Send a webhook of the kind `test` now, and say what came of it."""
    return jsonify(subscriptions.send_test(current_service(), subscription).as_json())
