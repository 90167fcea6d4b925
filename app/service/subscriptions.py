"""Subscriptions: receivers that are told of rows of the log by webhook. Admins make them, and workers deliver.

The log is the outbox. A cursor says how far a subscription has come in a chart's log, and it moves in a transaction
after the receiver has answered: in order for each chart, at least once, and again until it succeeds. Every worker has a
deliverer; the one that claims a cursor sends that chart's rows, and a claim ends by itself if its worker is killed.
Each subscription has a thread of its own, so that a receiver that hangs delays no other.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from app import store
from app.core.chart import CHART_NAME, CHART_NAME_RULE
from app.core.errors import (
    BadRequestError,
    ChartNotFoundError,
    InvalidSubscriptionError,
    StateServiceError,
    SubscriptionNotFoundError,
)
from app.core.log import Author, HashedRow, HistoryFilter, format_instant
from app.core.position import Kind, Step
from app.db import Connection, asking, retrying, transaction
from app.service import metrics
from app.service.condition import Condition
from app.service.context import Service
from app.service.reading import get_status, list_statuses
from app.service.tokens import PATTERN
from app.service.webhooks import (
    SECRET_PREFIX,
    AllowedHosts,
    Outcome,
    check_notification,
    notify,
    read_secret,
    read_target,
    send,
    sign,
)
from app.store.subscriptions import CLAIM, Cursor, Delivery, Subscription

logger = logging.getLogger("stateservice.delivering")
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
    if allowed.lists_scheme(wanted.url):
        check_notification(wanted.url)
    else:
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
    """Sign a message, send it, and return what came of it; a service that apprise knows gets its text."""
    if service.webhook_hosts.lists_scheme(subscription.url):
        return notify(subscription.url, message.text)
    body, timestamp = message.encode(subscription.format), int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "StateService",
        "webhook-id": message.webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(subscription.secret, message.webhook_id, timestamp, body),
    }
    return send(subscription.url, headers, body, service.webhook_hosts)


# Deliveries

# How often a deliverer looks for what is to be tried again, and for charts that this worker has moved.
LOOK_SECONDS = 1.0
# The shortest time between two looks, however many commits there are.
LEAST_SECONDS = 0.05
# How often it looks at every chart: for rows that another worker wrote and did not send, because it was killed.
SCAN_SECONDS = 10.0
# The pauses between two attempts double from the first to the last of these.
FIRST_PAUSE, LAST_PAUSE = timedelta(seconds=1), timedelta(hours=1)
BATCH = 100


def pause_after(attempts: int) -> timedelta:
    """Return how long to wait after so many attempts that failed."""
    doublings = min(attempts - 1, 20)
    return min(FIRST_PAUSE * (1 << doublings), LAST_PAUSE)


def tells_conditions(subscription: Subscription) -> bool:
    """Return whether a subscription is told of any condition."""
    return any(kind.startswith(CONDITION) for kind in subscription.kinds)


class Deliverer:
    """The threads of one process that send webhooks."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._name = secrets.token_hex(8)
        self._moved: set[str] = set()
        self._pending: dict[int, set[str]] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_stopping = threading.Event()
        # As the last look found it. Without a subscription no commit is worth a look.
        self._has_subscriptions = False
        self._scanned_at = -SCAN_SECONDS
        self._thread = threading.Thread(target=self._run, name="deliverer", daemon=True)

    def note_commit(self, chart: str, step: Step) -> None:
        """Remember that a chart's log has new rows. Called after each commit of this process."""
        with self._lock:
            self._moved.add(chart)
        if self._has_subscriptions:
            self._wake.set()

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no further webhook. One that is being sent is not waited for: it will be sent again."""
        self._is_stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._is_stopping.wait(LEAST_SECONDS):
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            if self._is_stopping.is_set():
                return
            try:
                self.look()
            except StateServiceError as error:
                logger.warning("could not look for what is to be delivered, will try again: %s", error)
            except Exception:
                logger.exception("the deliverer failed, and will try again")

    def look(self) -> None:
        """Find the charts that each subscription must be told of, and have its thread send them."""
        with self._lock:
            moved, self._moved = self._moved, set()
        is_scan = time.monotonic() - self._scanned_at >= SCAN_SECONDS
        conditions: dict[str, str] = {}
        with asking(self._service.database) as connection:
            found = store.subscriptions.list_subscriptions(connection)
            self._has_subscriptions = bool(found)
            if not found:
                return
            now = self._service.read_now(connection)
            if is_scan and any(map(tells_conditions, found)):
                # A condition may also change with time alone.
                conditions = {one.chart: str(one.health.condition) for one in list_statuses(self._service)}
            for subscription in found:
                charts = self._list_charts(connection, subscription, None if is_scan else moved, now)
                if tells_conditions(subscription):
                    seen = store.subscriptions.list_conditions(connection, subscription.id)
                    charts |= {name for name, one in conditions.items() if seen.get(name) != one}
                wanted = {name for name in charts if any(fnmatchcase(name, one) for one in subscription.charts)}
                if wanted:
                    self._hand_over(subscription, wanted)
        if is_scan:
            self._scanned_at = time.monotonic()

    def _list_charts(
        self, connection: Connection, subscription: Subscription, moved: Collection[str] | None, now: datetime
    ) -> set[str]:
        retries = store.subscriptions.list_charts_to_retry(connection, subscription.id, now)
        behind = (
            store.subscriptions.list_charts_behind(connection, subscription.id, now, moved)
            if moved is None or moved
            else []
        )
        return {*retries, *behind}

    def _hand_over(self, subscription: Subscription, charts: set[str]) -> None:
        """Give the charts to the subscription's thread, which is started if it does not run."""
        with self._lock:
            self._pending.setdefault(subscription.id, set()).update(charts)
            if subscription.id in self._threads:
                return
            thread = threading.Thread(
                target=self._send_pending, args=[subscription], name=f"deliver {subscription.name}", daemon=True
            )
            self._threads[subscription.id] = thread
        thread.start()

    def _send_pending(self, subscription: Subscription) -> None:
        while True:
            with self._lock:
                pending = self._pending.get(subscription.id)
                if not pending or self._is_stopping.is_set():
                    del self._threads[subscription.id]
                    return
                chart = pending.pop()
            try:
                self.deliver(subscription, chart)
            except StateServiceError as error:
                logger.warning("subscription %r: could not deliver %r now: %s", subscription.name, chart, error)
            except Exception:
                logger.exception("subscription %r: delivering %r failed", subscription.name, chart)

    def deliver(self, subscription: Subscription, chart: str) -> None:
        """Send the rows that a subscription has not been told of yet, until one fails or there are no more.

        It goes by what the subscription is now: it may have been changed since it was read. A change while rows are
        sent takes the cursor away, and the next look hands the chart over again.
        """
        with transaction(self._service.database) as connection:
            found = store.subscriptions.find_subscription(connection, subscription.name)
            if found is None or found.id != subscription.id:
                return  # deleted
            subscription = found
            now = self._service.read_now(connection)
            cursor = store.subscriptions.claim_cursor(
                connection, subscription.id, chart, self._name, now=now, until=now + CLAIM
            )
        while cursor is not None and not self._is_stopping.is_set():
            with asking(self._service.database) as connection:
                rows = store.log.list_history(connection, chart, HistoryFilter(after=cursor.seq, limit=BATCH))
            if not rows:
                break
            for row in rows:
                after = replace(cursor, seq=row.row.seq)
                if row.row.kind in subscription.kinds:
                    cursor = self._tell(subscription, cursor, after, describe_row(row))
                    if cursor is None:
                        return
                else:
                    cursor = after
        if cursor is not None and tells_conditions(subscription):
            cursor = self._tell_condition(subscription, cursor)
        if cursor is not None:
            with transaction(self._service.database) as connection:
                store.subscriptions.move_cursor(
                    connection, subscription.id, self._name, cursor, claimed_by=None, claimed_until=None, next_at=None
                )

    def _tell_condition(self, subscription: Subscription, cursor: Cursor) -> Cursor | None:
        """Tell of the chart's condition if it is not the one that was last seen; the answer is as that of `_tell`."""
        try:
            status = get_status(self._service, cursor.chart)
        except ChartNotFoundError:
            return cursor  # archived
        condition = str(status.health.condition)
        if condition == cursor.condition:
            return cursor
        after = replace(cursor, condition=condition)
        # The condition that is seen first is told only if an operator must look: the chart may have had it for long.
        is_news = cursor.condition is not None or status.health.condition < Condition.WAITING
        if f"{CONDITION}{condition}" not in subscription.kinds or not is_news:
            return after
        message = describe_condition(cursor.chart, cursor.seq, condition, status.health.because, status.health.since)
        return self._tell(subscription, cursor, after, message)

    def _tell(self, subscription: Subscription, before: Cursor, after: Cursor, message: Message) -> Cursor | None:
        """Send one message and move the cursor to `after`.

        Return None if it failed, and the cursor stays at `before`, or if another deliverer has taken over.
        """
        outcome = send_message(self._service, subscription, message)
        metrics.delivery_is_done(subscription.name, is_delivered=outcome.error is None)
        attempt = before.attempts + 1
        with transaction(self._service.database) as connection:
            now = self._service.read_now(connection)
            if outcome.error is None:
                cursor = replace(after, attempts=0)
                values = {"next_at": None, "claimed_until": now + CLAIM}
            else:
                cursor = replace(before, attempts=attempt)
                values = {"next_at": now + pause_after(attempt), "claimed_by": None, "claimed_until": None}
            is_ours = store.subscriptions.move_cursor(connection, subscription.id, self._name, cursor, **values)
            if is_ours:
                delivery = Delivery(
                    webhook_id=message.webhook_id,
                    chart=after.chart,
                    seq=after.seq,
                    kind=message.kind,
                    at=now,
                    attempt=attempt,
                    status=outcome.status,
                    error=outcome.error,
                )
                store.subscriptions.add_delivery(connection, subscription.id, delivery)
        return cursor if is_ours and outcome.error is None else None
