"""Delivers rows of the log to subscriptions: in order for each chart, at least once, and again until it succeeds.

The log is the outbox. A cursor says how far a subscription has come in a chart's log, and it moves in a transaction
after the receiver has answered. Every worker has a deliverer; whoever claims a cursor sends that chart's rows, and a
claim ends by itself if its worker is killed. Each subscription has a thread of its own, so that a receiver that hangs
delays no other.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from app import store
from app.core.errors import ChartNotFoundError, StateServiceError
from app.core.log import HistoryFilter
from app.core.position import Step
from app.db import Connection, asking, transaction
from app.service import metrics
from app.service.condition import Condition
from app.service.context import Service
from app.service.reading import get_status, list_statuses
from app.service.subscriptions import CONDITION, Message, describe_condition, describe_row, send_message
from app.store.subscriptions import CLAIM, Cursor, Delivery, Subscription

logger = logging.getLogger("stateservice.delivering")

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
        """Send the rows that a subscription has not been told of yet, until one fails or there are no more."""
        with transaction(self._service.database) as connection:
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
        # The condition that is seen first is told only if somebody must look: the chart may have had it for long.
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
