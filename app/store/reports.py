"""Reading the reports of machines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from app.core.log import format_instant
from app.db import Connection
from app.models import reports, visits
from app.store.rows import ChartRow


@dataclass(frozen=True, slots=True)
class MachineReport:
    """A machine's latest report in a visit; `key` is None once an upgrade has dropped the attribute."""

    machine: str
    key: str | None
    reported_at: datetime
    seq: int

    def as_json(self) -> dict[str, Any]:
        """The report as the HTTP interface gives it."""
        return {
            "machine": self.machine,
            "key": self.key,
            "reported_at": format_instant(self.reported_at),
            "seq": self.seq,
        }


def find_latest_visit(connection: Connection, row: ChartRow, state: str) -> int | None:
    """The number of the latest visit of `state` in the chart's current run."""
    query = select(func.max(visits.c.visit)).where(
        visits.c.chart_id == row.id, visits.c.run == row.run, visits.c.state == state
    )
    found: int | None = connection.execute(query).scalar_one()
    return found


def list_reports(connection: Connection, row: ChartRow, visit: int) -> list[MachineReport]:
    """Every machine's report in a visit of the current run, by machine."""
    columns = tuple(reports.c[name] for name in MachineReport.__slots__)
    query = (
        select(*columns)
        .where(reports.c.chart_id == row.id, reports.c.run == row.run, reports.c.visit == visit)
        .order_by(reports.c.machine)
    )
    return [MachineReport(*found) for found in connection.execute(query)]
