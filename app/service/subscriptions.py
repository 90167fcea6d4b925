"""Subscriptions: receivers that are told of rows of the log by webhook. Made, listed, tested and deleted by admins."""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app import store
from app.core.chart import CHART_NAME, CHART_NAME_RULE
from app.core.errors import BadRequestError, InvalidSubscriptionError, SubscriptionNotFoundError
from app.core.log import Author, HashedRow, format_instant
from app.core.position import Kind
from app.db import asking, retrying, transaction
from app.service.condition import Condition
from app.service.context import Service
from app.service.tokens import PATTERN
from app.service.webhooks import SECRET_PREFIX, AllowedHosts, Outcome, read_secret, read_target, send, sign
from app.store.subscriptions import Delivery, Subscription

FORMATS = ("event", "text")
CONDITION = "condition:"
# What a subscription is told of if it does not say: whatever moves a chart, and what operators do. Not each report.
DEFAULT_KINDS = tuple(
    str(kind)
    for kind in Kind
    if kind not in (Kind.UPDATE, Kind.CLAIM, Kind.RELEASE, Kind.EXPIRE, Kind.WITHDRAW, Kind.PRUNE)
)
ALL_KINDS = (*(str(kind) for kind in Kind), *(f"{CONDITION}{condition}" for condition in Condition))
MAX_SUBSCRIPTIONS = 100
# Characters.
SECRET_LENGTH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A subscription as an admin asks for it; a secret that is None is kept, or made for a new subscription."""

    url: str
    secret: str | None = None
    charts: tuple[str, ...] = ("*",)
    kinds: tuple[str, ...] = DEFAULT_KINDS
    format: str = "event"


@dataclass(frozen=True, slots=True)
class Put:
    """What became of a subscription. `secret` is set only if the service made it; it is shown this once."""

    subscription: Subscription
    is_new: bool
    secret: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the subscription, with its secret if it was made now."""
        return self.subscription.as_json() | ({} if self.secret is None else {"secret": self.secret})


def read_wanted(fields: dict[str, Any]) -> Wanted:
    """Return the subscription that a JSON object asks for. Raises InvalidSubscriptionError, BadRequestError."""
    known = set(Wanted.__slots__)
    for name in fields:
        if name not in known:
            raise BadRequestError(f"unknown field {name!r}; the fields are {', '.join(sorted(known))}")
    if not isinstance(fields.get("url"), str):
        raise InvalidSubscriptionError("url is missing: the address that is told, such as https://hooks.example.org/x")
    values: dict[str, Any] = {"url": fields["url"]}
    for name in ("secret", "format"):
        if fields.get(name) is not None:
            values[name] = _check_text(name, fields[name])
    for name in ("charts", "kinds"):
        if fields.get(name) is not None:
            given = fields[name] if isinstance(fields[name], list) else [fields[name]]
            values[name] = tuple(_check_text(name, item) for item in given)
    return Wanted(**values)


def _check_text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > SECRET_LENGTH or not value.isprintable():
        raise InvalidSubscriptionError(f"{name} must be text of 1 to {SECRET_LENGTH} printable characters")
    return value


def check_name(name: str) -> None:
    """Raise BadRequestError if no subscription can have this name."""
    if not CHART_NAME.fullmatch(name):
        raise BadRequestError(f"subscription name {name!r} must be {CHART_NAME_RULE}")


@retrying
def put_subscription(service: Service, name: str, wanted: Wanted, author: Author) -> Put:
    """Make or change the subscription `name`. A new one begins after the rows that the logs have now.

    Raises InvalidSubscriptionError, BadRequestError.
    """
    check_name(name)
    _check(wanted, service.webhook_hosts)
    with transaction(service.database) as connection:
        old = store.subscriptions.find_subscription(connection, name)
        now = service.read_now(connection)
        made = None
        if wanted.secret is None and old is None:
            made = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
        kept = "" if old is None else old.secret
        values = {
            "name": name,
            "url": wanted.url,
            "secret": wanted.secret or made or kept,
            "charts": wanted.charts,
            "kinds": wanted.kinds,
            "format": wanted.format,
            "updated_at": now,
        }
        if old is None:
            if len(store.subscriptions.list_subscriptions(connection)) >= MAX_SUBSCRIPTIONS:
                raise InvalidSubscriptionError(f"there are {MAX_SUBSCRIPTIONS} subscriptions already; delete one first")
            store.subscriptions.add_subscription(connection, values | {"created_at": now, "created_by": author.actor})
        else:
            store.subscriptions.change_subscription(connection, old.id, values)
        found = store.subscriptions.find_subscription(connection, name)
    assert found is not None  # written above
    return Put(found, old is None, made)


def _check(wanted: Wanted, allowed: AllowedHosts) -> None:
    if wanted.format not in FORMATS:
        raise InvalidSubscriptionError(f"format {wanted.format!r} is not one of {', '.join(FORMATS)}")
    for kind in wanted.kinds:
        if kind not in ALL_KINDS:
            raise InvalidSubscriptionError(f"kind {kind!r} is not one of {', '.join(ALL_KINDS)}")
    for pattern in wanted.charts:
        if not PATTERN.fullmatch(pattern):
            raise InvalidSubscriptionError(f"charts: {pattern!r} may have only characters of chart names, * and ?")
    if not wanted.kinds or not wanted.charts:
        raise InvalidSubscriptionError("charts and kinds must not be empty lists")
    if wanted.secret is not None:
        read_secret(wanted.secret)
    allowed.check_name(read_target(wanted.url).host)


def list_subscriptions(service: Service) -> list[Subscription]:
    """List every subscription, by name."""
    with asking(service.database) as connection:
        return store.subscriptions.list_subscriptions(connection)


def get_subscription(service: Service, name: str) -> Subscription:
    """Return the subscription `name`. Raises SubscriptionNotFoundError."""
    with asking(service.database) as connection:
        found = store.subscriptions.find_subscription(connection, name)
    if found is None:
        raise SubscriptionNotFoundError(f"no subscription named {name!r}")
    return found


@retrying
def delete_subscription(service: Service, name: str) -> Subscription:
    """Delete the subscription `name` and the list of its deliveries. Raises SubscriptionNotFoundError."""
    with transaction(service.database) as connection:
        found = store.subscriptions.find_subscription(connection, name)
        if found is None:
            raise SubscriptionNotFoundError(f"no subscription named {name!r}")
        store.subscriptions.delete_subscription(connection, found.id)
    return found


def list_deliveries(service: Service, name: str, limit: int = 100) -> list[Delivery]:
    """List what was sent to a subscription, newest first. Raises SubscriptionNotFoundError."""
    found = get_subscription(service, name)
    with asking(service.database) as connection:
        return list(store.subscriptions.list_deliveries(connection, found.id, limit))


def send_test(service: Service, name: str) -> Delivery:
    """Send a webhook of the kind `test` now, note the delivery and return it. Raises SubscriptionNotFoundError."""
    found = get_subscription(service, name)
    with asking(service.database) as connection:
        now = service.read_now(connection)
    webhook_id = f"test/{secrets.token_hex(8)}"
    said = f"StateService tests the subscription {name}"
    message = Message(webhook_id, "test", now, {"subscription": name}, said)
    outcome = send_message(service, found, message)
    delivery = Delivery(
        webhook_id=webhook_id,
        chart=None,
        seq=None,
        kind="test",
        at=now,
        attempt=1,
        status=outcome.status,
        error=outcome.error,
    )
    with transaction(service.database) as connection:
        store.subscriptions.add_delivery(connection, found.id, delivery)
    return delivery


# What is sent


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to tell: `data` for programs, `text` for people."""

    webhook_id: str
    kind: str
    at: datetime
    data: dict[str, Any]
    text: str

    def encode(self, form: str) -> bytes:
        """Return the body: an event of Standard Webhooks, or `{"text": ...}`, as Slack, Mattermost and Teams take."""
        if form == "text":
            return json.dumps({"text": self.text}, ensure_ascii=False).encode()
        event = {"type": self.kind, "timestamp": format_instant(self.at), "data": self.data}
        return json.dumps(event, ensure_ascii=False).encode()


def describe_row(found: HashedRow) -> Message:
    """Return what is told of a row of the log."""
    row = found.row
    return Message(f"{row.chart}/{row.seq}", row.kind, row.at, found.as_json(), say_row(found))


def describe_condition(chart: str, seq: int, condition: str, because: str, at: datetime) -> Message:
    """Return what is told of a chart whose condition has changed after its row `seq`."""
    data = {"chart": chart, "seq": seq, "condition": condition, "because": because}
    text = f"{chart}: {condition.replace('_', ' ')}" + (f": {because}" if because else "")
    kind = f"{CONDITION}{condition}"
    return Message(f"{chart}/{seq}/{kind}", kind, at, data, text)


def say_row(found: HashedRow) -> str:
    """Return a row of the log as one line for people: `web: update: count 3 in fleet, by web-01`."""
    row = found.row
    moved = f"{row.from_state} to {row.to_state}" if row.from_state != row.to_state else row.from_state
    counted = f", {row.key} {row.value_after}" if row.key is not None and row.value_after is not None else ""
    who = row.machine or row.actor
    by = f", by {who}" if who else ""
    why = f": {row.reason}" if row.reason else ""
    return f"{row.chart}: {row.kind}, {moved}{counted}{by}{why}"


def send_message(service: Service, subscription: Subscription, message: Message) -> Outcome:
    """Sign a message, send it, and return what came of it."""
    body, timestamp = message.encode(subscription.format), int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "StateService",
        "webhook-id": message.webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(subscription.secret, message.webhook_id, timestamp, body),
    }
    return send(subscription.url, headers, body, service.webhook_hosts)
