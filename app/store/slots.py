"""Who waits for a slot, and the slots of many charts at a time. (One chart's are part of its position: see rows.)"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import and_, delete, func, select

from app.core.position import Slot
from app.db import Connection
from app.models import charts, reports, slot_waiters, slots
from app.store.record import upsert

_UPSERT = {
    dialect: upsert(dialect, slot_waiters, ("chart_id", "machine"), ("since", "until"))
    for dialect in ("sqlite", "postgresql")
}


def add_slot_waiter(connection: Connection, chart_id: int, machine: str, since: datetime, until: datetime) -> None:
    """Note that a machine waits for a slot of a chart, at the latest until then."""
    values = {"chart_id": chart_id, "machine": machine, "since": since, "until": until}
    connection.execute(_UPSERT[connection.dialect], values)


def remove_slot_waiter(connection: Connection, chart_id: int, machine: str) -> None:
    """Note that a machine waits no longer."""
    here = (slot_waiters.c.chart_id == chart_id, slot_waiters.c.machine == machine)
    connection.execute(delete(slot_waiters).where(*here))


def list_slot_waiters(connection: Connection, chart_ids: Collection[int], now: datetime) -> dict[int, list[str]]:
    """The machines that wait for a slot of each of the charts, longest first."""
    query = (
        select(slot_waiters.c.chart_id, slot_waiters.c.machine)
        .where(slot_waiters.c.chart_id.in_(chart_ids), slot_waiters.c.until > now)
        .order_by(slot_waiters.c.since, slot_waiters.c.machine)
    )
    found: dict[int, list[str]] = {}
    for chart_id, machine in connection.execute(query):
        found.setdefault(chart_id, []).append(machine)
    return found


def list_slots(connection: Connection, chart_ids: Collection[int]) -> dict[int, dict[str, Slot]]:
    """The slots held of each of the charts, by machine. Reader: the list of charts."""
    query = select(slots.c.chart_id, *(slots.c[name] for name in Slot.__slots__)).where(slots.c.chart_id.in_(chart_ids))
    found: dict[int, dict[str, Slot]] = {}
    for chart_id, *columns in connection.execute(query):
        slot = Slot(*columns)
        found.setdefault(chart_id, {})[slot.machine] = slot
    return found


def count_reports(connection: Connection, chart_ids: Collection[int]) -> dict[int, int]:
    """How many machines have reported in the current visit of each of the charts. Reader: the list of charts."""
    is_current = and_(
        reports.c.chart_id == charts.c.id, reports.c.run == charts.c.run, reports.c.visit == charts.c.visit
    )
    query = (
        select(charts.c.id, func.count())
        .join(reports, is_current)
        .where(charts.c.id.in_(chart_ids))
        .group_by(charts.c.id)
    )
    return dict(connection.execute(query).all())
