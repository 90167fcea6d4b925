"""The tables of subscriptions: who is told of which rows of the log, how far each has come, and what was sent."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.core.log import format_instant
from app.db import Connection
from app.models import charts, deliveries, subscription_cursors, subscriptions

# Deliveries that are kept of each subscription.
KEPT = 1000
# How long a sender may keep a cursor without writing to it: more than the 13 s that a webhook may take. The rows of a
# sender that was killed are late by this time.
CLAIM = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A receiver, and what it is told of: `charts` are patterns, `kinds` are kinds of log rows and conditions."""

    id: int
    name: str
    url: str
    secret: str = field(repr=False)
    charts: tuple[str, ...]
    kinds: tuple[str, ...]
    format: str
    created_at: datetime
    created_by: str | None
    updated_at: datetime

    def as_json(self) -> dict[str, Any]:
        """Return the subscription without its secret, as the HTTP interface and `--json` give it."""
        fields = asdict(self)
        del fields["id"], fields["secret"]
        return fields | {name: format_instant(fields[name]) for name in ("created_at", "updated_at")}


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a subscription has come in the log of `chart`."""

    chart: str
    seq: int
    attempts: int
    condition: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One request to a receiver. `status` is the HTTP status that came back; `error` is None if it was delivered."""

    webhook_id: str
    chart: str | None
    seq: int | None
    kind: str
    at: datetime
    attempt: int
    status: int | None
    error: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the delivery as the HTTP interface and `--json` give it."""
        return {**asdict(self), "at": format_instant(self.at), "delivered": self.error is None}


def list_subscriptions(connection: Connection) -> list[Subscription]:
    """List every subscription, by name. Used by: senders, each second; the lists."""
    rows = connection.execute(select(subscriptions).order_by(subscriptions.c.name)).mappings()
    return [_as_subscription(dict(row)) for row in rows]


def find_subscription(connection: Connection, name: str) -> Subscription | None:
    """Return the subscription of that name, if there is one."""
    row = connection.execute(select(subscriptions).where(subscriptions.c.name == name)).mappings().one_or_none()
    return None if row is None else _as_subscription(dict(row))


def _as_subscription(row: dict[str, Any]) -> Subscription:
    lists = {name: tuple(json.loads(row[name])) for name in ("charts", "kinds")}
    return Subscription(**{**row, **lists})


def add_subscription(connection: Connection, values: dict[str, Any]) -> None:
    """Write a new subscription. It begins after the rows that the charts' logs have now."""
    inserted = insert(subscriptions).values(_columns(values)).returning(subscriptions.c.id)
    new_id = connection.execute(inserted).scalar_one()
    present = select(literal(new_id), charts.c.name, charts.c.seq)
    columns = [subscription_cursors.c[name] for name in ("subscription_id", "chart", "seq")]
    connection.execute(insert(subscription_cursors).from_select(columns, present))


def change_subscription(connection: Connection, subscription_id: int, values: dict[str, Any]) -> None:
    """Change a subscription; it goes on where it was, and what failed is tried again at once.

    A process that sends rows of it now goes by what it was before, and loses its cursors.
    """
    connection.execute(update(subscriptions).where(subscriptions.c.id == subscription_id).values(_columns(values)))
    is_its = subscription_cursors.c.subscription_id == subscription_id
    free: dict[str, Any] = {"next_at": None, "attempts": 0, "claimed_by": None, "claimed_until": None}
    connection.execute(update(subscription_cursors).where(is_its).values(free))


def _columns(values: dict[str, Any]) -> dict[str, Any]:
    return values | {name: json.dumps(values[name]) for name in ("charts", "kinds")}


def delete_subscription(connection: Connection, subscription_id: int) -> None:
    """Delete a subscription and all that was noted of it."""
    for table in (deliveries, subscription_cursors):
        connection.execute(delete(table).where(table.c.subscription_id == subscription_id))
    connection.execute(delete(subscriptions).where(subscriptions.c.id == subscription_id))


# Cursors


def list_charts_behind(
    connection: Connection, subscription_id: int, now: datetime, among: Collection[str] | None = None
) -> list[str]:
    """List the charts whose log has rows after the subscription's cursor, and that may be worked on now.

    With `among` only those charts are looked at, and else all of them, which reads each chart's row.
    """
    cursor = subscription_cursors
    query = (
        select(charts.c.name)
        .outerjoin(cursor, (cursor.c.subscription_id == subscription_id) & (cursor.c.chart == charts.c.name))
        .where(charts.c.seq > func.coalesce(cursor.c.seq, 0))
        .where(or_(cursor.c.next_at.is_(None), cursor.c.next_at <= now))
        .where(or_(cursor.c.claimed_until.is_(None), cursor.c.claimed_until <= now))
        .order_by(charts.c.name)
    )
    if among is not None:
        query = query.where(charts.c.name.in_(among))
    return list(connection.execute(query).scalars())


def list_conditions(connection: Connection, subscription_id: int) -> dict[str, str | None]:
    """Return for each chart the condition that a subscription has last seen."""
    cursor = subscription_cursors
    query = select(cursor.c.chart, cursor.c.condition).where(cursor.c.subscription_id == subscription_id)
    return dict(connection.execute(query).all())


def list_charts_to_retry(connection: Connection, subscription_id: int, now: datetime) -> list[str]:
    """List the charts whose next row has failed and is to be tried again now."""
    cursor = subscription_cursors
    query = select(cursor.c.chart).where(cursor.c.subscription_id == subscription_id, cursor.c.next_at <= now)
    return list(connection.execute(query).scalars())


def claim_cursor(
    connection: Connection, subscription_id: int, chart: str, sender: str, *, now: datetime, until: datetime
) -> Cursor | None:
    """Give the chart's cursor to `sender`, so that no other sends its rows; None if another has it or it must wait."""
    upsert: Any = (sqlite if connection.is_sqlite else postgresql).insert(subscription_cursors)
    new = upsert.values(subscription_id=subscription_id, chart=chart, seq=0).on_conflict_do_nothing()
    connection.execute(new)
    cursor = subscription_cursors
    claimed = (
        update(cursor)
        .where(
            cursor.c.subscription_id == subscription_id,
            cursor.c.chart == chart,
            or_(cursor.c.claimed_until.is_(None), cursor.c.claimed_until <= now),
            or_(cursor.c.next_at.is_(None), cursor.c.next_at <= now),
        )
        .values(claimed_by=sender, claimed_until=until)
        .returning(cursor.c.chart, cursor.c.seq, cursor.c.attempts, cursor.c.condition)
    )
    row = connection.execute(claimed).one_or_none()
    return None if row is None else Cursor(*row)


def move_cursor(connection: Connection, subscription_id: int, sender: str, cursor: Cursor, **values: Any) -> bool:
    """Write how far the sender has come; False if another sender has taken the cursor over."""
    done = connection.execute(
        update(subscription_cursors)
        .where(
            subscription_cursors.c.subscription_id == subscription_id,
            subscription_cursors.c.chart == cursor.chart,
            subscription_cursors.c.claimed_by == sender,
        )
        .values(seq=cursor.seq, attempts=cursor.attempts, condition=cursor.condition, **values)
    )
    return done.rowcount == 1


# Deliveries


def add_delivery(connection: Connection, subscription_id: int, delivery: Delivery) -> None:
    """Note what was sent; the oldest beyond KEPT are forgotten."""
    inserted = insert(deliveries).values(subscription_id=subscription_id, **asdict(delivery)).returning(deliveries.c.id)
    new_id = connection.execute(inserted).scalar_one()
    if new_id % 100 == 0:
        _forget_old(connection, subscription_id)


def _forget_old(connection: Connection, subscription_id: int) -> None:
    its = deliveries.c.subscription_id == subscription_id
    newest = select(deliveries.c.id).where(its).order_by(deliveries.c.id.desc()).offset(KEPT).limit(1).scalar_subquery()
    connection.execute(delete(deliveries).where(its, deliveries.c.id <= newest))


def list_deliveries(connection: Connection, subscription_id: int, limit: int) -> Sequence[Delivery]:
    """List what was sent to a subscription, newest first."""
    query = (
        select(*(deliveries.c[name] for name in Delivery.__slots__))
        .where(deliveries.c.subscription_id == subscription_id)
        .order_by(deliveries.c.id.desc())
        .limit(limit)
    )
    return [Delivery(**row) for row in connection.execute(query).mappings()]


def list_latest_deliveries(connection: Connection, chart: str) -> dict[int, Delivery]:
    """Return what was sent last about a chart, by the id of the subscription. Used by: the page of a chart."""
    latest = select(func.max(deliveries.c.id)).where(deliveries.c.chart == chart).group_by(deliveries.c.subscription_id)
    query = select(deliveries).where(deliveries.c.id.in_(latest))
    return {
        row["subscription_id"]: Delivery(**{name: row[name] for name in Delivery.__slots__})
        for row in connection.execute(query).mappings()
    }
