"""What a scrape reads: where charts stand, in no more rows than it was told to take."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, ColumnElement, String, and_, column, func, select, table

from app.db import Connection
from app.models import UtcDateTime, attribute_values, charts

# A report on this attribute is a failure: the convention of charts, of `on_expire: fail` and of the clients.
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ChartGauge:
    """A chart as a graph needs it: its first attribute, what the first guard on that needs, and its failures."""

    chart: str
    state: str
    is_final: bool
    entered_at: datetime
    paused_at: datetime | None
    counted: int | None
    needed: int | None
    failed: int | None


# The view's other columns, such as the count of reports, are not computed where nobody names them.
_CURRENT = table(
    "v_current",
    column("chart", String),
    column("current_state", String),
    column("is_final", Boolean),
    column("entered_at", UtcDateTime),
    column("paused_at", UtcDateTime),
    column("value", BigInteger),
    column("needed", BigInteger),
)
_COLUMNS: tuple[ColumnElement[Any], ...] = (*_CURRENT.c, attribute_values.c.value.label("failed"))
_GAUGES = (
    select(*_COLUMNS)
    .select_from(
        _CURRENT.join(charts, charts.c.name == _CURRENT.c.chart).outerjoin(
            attribute_values, and_(attribute_values.c.chart_id == charts.c.id, attribute_values.c.key == FAILED)
        )
    )
    .order_by(_CURRENT.c.is_final, _CURRENT.c.chart)
)


def list_chart_gauges(connection: Connection, limit: int) -> list[ChartGauge]:
    """Up to `limit` charts, those that still go on before those that have ended, by name. Reader: /metrics."""
    return [ChartGauge(*row) for row in connection.execute(_GAUGES.limit(limit))]


def count_charts(connection: Connection) -> int:
    """How many charts there are, archived ones left out. Reader: /metrics."""
    query = select(func.count()).select_from(charts).where(charts.c.archived_at.is_(None))
    return int(connection.execute(query).scalar_one())


def find_oldest_due(connection: Connection) -> datetime | None:
    """When the clock should first have done what it has not done yet, or will do next. Reader: /metrics."""
    query = select(func.min(charts.c.due_at)).where(charts.c.archived_at.is_(None))
    found: datetime | None = connection.execute(query).scalar_one()
    return found
