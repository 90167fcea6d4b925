"""A chart's picture with the state in which it stands."""

from __future__ import annotations

from collections.abc import Mapping

from app import store
from app.core.chart import Chart
from app.db import Connection, snapshot
from app.diagram import LIGHT, Form, Standing, Theme, draw
from app.service.context import Service
from app.store import overview

# Visits of a run that a picture takes into account.
MAX_VISITS = 2000


def draw_chart(service: Service, name: str, form: Form = Form.SVG, theme: Theme = LIGHT) -> str:
    """The picture of a chart as it stands. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        row = store.get_chart(connection, name)
        chart = service.definitions.get(connection, row)
        counts = overview.count_reports(connection, row)
        standing = read_standing(connection, row, chart, store.read_values(connection, row.id), counts)
    return draw(chart, standing, form, theme)


def read_standing(
    connection: Connection,
    row: store.ChartRow,
    chart: Chart,
    values: Mapping[str, int],
    counts: Mapping[int, Mapping[str | None, int]],
) -> Standing:
    """Where a chart stands, as a picture shows it; `counts` are the reports of the run's visits, by attribute."""
    passed: dict[str, int | None] = {}
    for visit in overview.list_visits(connection, row, MAX_VISITS):
        if visit.left_at is not None and visit.state in chart.states:
            reported = counts.get(visit.visit)
            passed[visit.state] = None if reported is None else reported.get(chart.states[visit.state].default_key, 0)
    return Standing(row.state, values, row.paused_at is not None, passed)
