"""The pages that list, make, change, test and delete subscriptions, and show what was sent to each."""

from __future__ import annotations

from flask import Response, request

from app.core.errors import BadRequestError, InvalidSubscriptionError, SubscriptionNotFoundError
from app.service import subscriptions
from app.service.subscriptions import ALL_KINDS, DEFAULT_KINDS, FORMATS
from app.service.webhooks import URL_LENGTH
from app.web.request import current_author, current_service
from app.web.ui.base import blueprint, find_field, find_query, get_field, go_to, render

# Characters of a field that lists patterns or kinds.
LIST_LENGTH = 2000
# Deliveries that the page of a subscription shows.
SHOWN = 100


@blueprint.get("/ui/subscriptions", provide_automatic_options=False)
def get_subscriptions() -> Response:
    """All subscriptions, and the form for a new one."""
    return _list_page(said="Deleted." if find_query("done", 20) == "delete" else None)


@blueprint.post("/ui/subscriptions", provide_automatic_options=False)
def post_subscription() -> Response:
    """Make a subscription or change it; show the secret if the service has made one, this once."""
    try:
        name = get_field("name")
        # The secret as it was typed: spaces inside it count.
        fields = {"url": find_field("url", URL_LENGTH), "secret": request.form.get("secret", "").strip()}
        lists = {key: (find_field(key, LIST_LENGTH) or "").replace(",", " ").split() for key in ("charts", "kinds")}
        given = {key: value for key, value in {**fields, **lists, "format": find_field("format")}.items() if value}
        wanted = subscriptions.read_wanted(given)
        done = subscriptions.put_subscription(current_service(), name, wanted, current_author())
    except (BadRequestError, InvalidSubscriptionError) as error:
        return _list_page(problem=str(error))
    said = f"{name} was {'made' if done.is_new else 'changed'}."
    return _list_page(said=said, secret=done.secret, secret_name=name)


@blueprint.get("/ui/subscriptions/<string:subscription>", provide_automatic_options=False)
def get_subscription(subscription: str) -> Response:
    """One subscription, what was sent to it, and the forms to test, change and delete it."""
    return _page(subscription)


@blueprint.post("/ui/subscriptions/<string:subscription>/test", provide_automatic_options=False)
def post_subscription_test(subscription: str) -> Response:
    """Send a webhook of the kind `test` now, and say what came of it."""
    sent = subscriptions.send_test(current_service(), subscription)
    if sent.error is None:
        answered = "" if sent.status is None else f": the receiver answered {sent.status}"
        return _page(subscription, said=f"The test was delivered{answered}.")
    return _page(subscription, problem=f"The test was not delivered: {sent.error}")


@blueprint.post("/ui/subscriptions/<string:subscription>/delete", provide_automatic_options=False)
def post_subscription_delete(subscription: str) -> Response:
    """Delete a subscription."""
    try:
        subscriptions.delete_subscription(current_service(), subscription)
    except SubscriptionNotFoundError as error:
        return _list_page(problem=str(error))
    return go_to("ui.get_subscriptions", done="delete")


def _list_page(**values: object) -> Response:
    found = subscriptions.list_subscriptions(current_service())
    return render("subscriptions.html", subscriptions=found, **_choices(), **values)


def _page(name: str, **values: object) -> Response:
    service = current_service()
    found = subscriptions.get_subscription(service, name)
    sent = subscriptions.list_deliveries(service, name, SHOWN)
    return render("subscription.html", subscription=found, deliveries=sent, **_choices(), **values)


def _choices() -> dict[str, object]:
    return {"formats": FORMATS, "kinds": ALL_KINDS, "default_kinds": DEFAULT_KINDS}
