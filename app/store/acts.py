"""What imports and operators write beside the log, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import and_, insert, select, update

from app.core.chart import Chart
from app.core.position import Step
from app.db import Connection
from app.models import charts, reports, visits
from app.store.log import Author, append_log, make_log_row
from app.store.record import insert_values, insert_visits, leave_visit, position_values
from app.store.rows import ChartRow


def create_chart(
    connection: Connection, name: str, step: Step, now: datetime, author: Author, log_key: bytes | None = None
) -> ChartRow:
    """Write a new chart with the first step of its first run."""
    rows = [make_log_row(name, seq, entry, now, author) for seq, entry in enumerate(step.entries, 1)]
    (last_hash,) = append_log(connection, [("", rows)], log_key)
    seq = rows[-1].seq
    values = {"name": name, "created_at": now, **position_values(step, now, seq, last_hash)}
    row = ChartRow(*connection.execute(insert(charts).values(values).returning(charts)).one())
    insert_values(connection, row.id, step.position.values)
    insert_visits(connection, row.id, step.visits, now)
    return row


def set_archived(connection: Connection, row: ChartRow, archived_at: datetime | None) -> ChartRow:
    """Put a chart away, or (None) bring it back; one that is put away has no pending clock, and its visit is over."""
    due_at = row.due_at if archived_at is None else None
    if archived_at is not None:
        leave_visit(connection, row, archived_at)
    return _set(connection, row, {"archived_at": archived_at, "due_at": due_at})


def set_pause(connection: Connection, row: ChartRow, paused_by: str | None, reason: str | None) -> ChartRow:
    """Note who paused a chart and why; both None when it goes on."""
    return _set(connection, row, {"paused_by": paused_by, "pause_reason": reason})


def _set(connection: Connection, row: ChartRow, values: dict[str, Any]) -> ChartRow:
    connection.execute(update(charts).where(charts.c.id == row.id).values(values))
    return row._replace(**values)


def rename_visits(connection: Connection, row: ChartRow, homes: Mapping[str, str]) -> None:
    """Give this run's visits of states that are gone the names of their new homes."""
    for old, new in homes.items():
        here = (visits.c.chart_id == row.id, visits.c.run == row.run, visits.c.state == old)
        connection.execute(update(visits).where(*here).values(state=new))


def drop_report_keys(connection: Connection, row: ChartRow, chart: Chart) -> None:
    """Turn this run's reports on attributes that `chart` lacks into reports on no attribute."""
    query = (
        select(visits.c.visit, visits.c.state, reports.c.key)
        .join(
            reports,
            and_(
                reports.c.chart_id == visits.c.chart_id,
                reports.c.run == visits.c.run,
                reports.c.visit == visits.c.visit,
            ),
        )
        .where(visits.c.chart_id == row.id, visits.c.run == row.run, reports.c.key.is_not(None))
        .distinct()
    )
    for visit, state, key in connection.execute(query).all():
        if state not in chart.states or chart.states[state].has_attribute(key):
            continue
        here = (reports.c.chart_id == row.id, reports.c.run == row.run, reports.c.visit == visit)
        connection.execute(update(reports).where(*here, reports.c.key == key).values(key=None))
