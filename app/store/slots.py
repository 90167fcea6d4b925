"""Who waits for a slot. (The slots themselves are part of a chart's position: see rows and record.)"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, select

from app.models import slot_waiters
from app.store.record import upsert

_UPSERT = {
    dialect: upsert(dialect, slot_waiters, ("chart_id", "machine"), ("since", "until"))
    for dialect in ("sqlite", "postgresql")
}


def add_slot_waiter(connection: Connection, chart_id: int, machine: str, since: datetime, until: datetime) -> None:
    """Note that a machine waits for a slot of a chart, at the latest until then."""
    values = {"chart_id": chart_id, "machine": machine, "since": since, "until": until}
    connection.execute(_UPSERT[connection.dialect.name], values)


def remove_slot_waiter(connection: Connection, chart_id: int, machine: str) -> None:
    """Note that a machine waits no longer."""
    here = (slot_waiters.c.chart_id == chart_id, slot_waiters.c.machine == machine)
    connection.execute(delete(slot_waiters).where(*here))


def list_slot_waiters(connection: Connection, chart_id: int, now: datetime) -> list[str]:
    """The machines that wait for a slot of a chart, longest first."""
    query = (
        select(slot_waiters.c.machine)
        .where(slot_waiters.c.chart_id == chart_id, slot_waiters.c.until > now)
        .order_by(slot_waiters.c.since, slot_waiters.c.machine)
    )
    return list(connection.execute(query).scalars())
