"""The view `v_current`, and counts over the table `charts`: what a scrape of /metrics reads; and reports by time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, Boolean, String, and_, column, func, select, table

from app.core.chart import FAILED_KEY
from app.db import Connection
from app.models import UtcDateTime, attribute_values, charts, reports
from app.store.charts import ChartRow
from app.store.machines import VisitRow


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartGauge:
    """A chart as a graph needs it.

    `counted` is the value of the current state's first attribute, `needed` the threshold of the first guard on that
    attribute, and `failed` the value of the attribute of that name; each is None if the state lacks it.
    """

    chart: str
    state: str
    is_final: bool
    entered_at: datetime
    paused_at: datetime | None
    counted: int | None
    needed: int | None
    failed: int | None


# The database does not compute the view's columns that are left out here, such as the count of reports.
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
_GAUGES = (
    select(
        _CURRENT.c.chart,
        _CURRENT.c.current_state.label("state"),
        _CURRENT.c.is_final,
        _CURRENT.c.entered_at,
        _CURRENT.c.paused_at,
        _CURRENT.c.value.label("counted"),
        _CURRENT.c.needed,
        attribute_values.c.value.label("failed"),
    )
    .select_from(
        _CURRENT.join(charts, charts.c.name == _CURRENT.c.chart).outerjoin(
            attribute_values, and_(attribute_values.c.chart_id == charts.c.id, attribute_values.c.key == FAILED_KEY)
        )
    )
    .order_by(_CURRENT.c.is_final, _CURRENT.c.chart)
)


def list_chart_gauges(connection: Connection, limit: int) -> list[ChartGauge]:
    """List up to `limit` charts, by name, charts that have ended after all others. Used by: /metrics."""
    return [ChartGauge(**row) for row in connection.execute(_GAUGES.limit(limit)).mappings()]


def count_charts(connection: Connection) -> int:
    """Count the charts that are not archived. Used by: /metrics."""
    query = select(func.count()).select_from(charts).where(charts.c.archived_at.is_(None))
    return int(connection.execute(query).scalar_one())


def find_oldest_due(connection: Connection) -> datetime | None:
    """Return the earliest `due_at` of all charts, which may be past or future. Used by: /metrics."""
    query = select(func.min(charts.c.due_at)).where(charts.c.archived_at.is_(None))
    found: datetime | None = connection.execute(query).scalar_one()
    return found


def find_report_time(connection: Connection, row: ChartRow, visit: VisitRow, key: str, number: int) -> datetime | None:
    """Return when the report with this number on an attribute was made in a visit of any run; None if there were fewer.

    Used by: the comparison of runs.
    """
    query = (
        select(reports.c.reported_at)
        .where(reports.c.chart_id == row.id, reports.c.run == visit.run, reports.c.visit == visit.visit)
        .where(reports.c.key == key)
        .order_by(reports.c.seq)
        .offset(number - 1)
        .limit(1)
    )
    return connection.execute(query).scalar_one_or_none()


def count_reports_until(connection: Connection, row: ChartRow, run: int, key: str, until: datetime) -> int:
    """Count the reports of a run on an attribute up to an instant. Used by: the comparison of runs."""
    query = (
        select(func.count())
        .select_from(reports)
        .where(reports.c.chart_id == row.id, reports.c.run == run)
        .where(reports.c.key == key, reports.c.reported_at <= until)
    )
    return int(connection.execute(query).scalar_one())
