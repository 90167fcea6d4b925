"""One chart as its page shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app import store
from app.core.chart import Chart
from app.core.log import LogRow
from app.core.position import Kind
from app.db import Connection, asking, snapshot
from app.diagram.draw import is_large
from app.diagram.standing import Standing
from app.diagram.words import FAILED
from app.service.condition import Bearing, judge
from app.service.context import Service, list_waiting, read_position
from app.service.drawing import read_standing
from app.service.status import Status, describe
from app.store import overview
from app.store.overview import MachineFilter, Sample, VisitRow

# What a page draws whole; of a larger chart it shows the states around the current one.
PAGE_STATES = 60
VISITS = 60
POINTS = 160
PAGE = 20

# How many machines reported on which attribute, for each visit.
Counts = Mapping[int, Mapping[str | None, int]]


@dataclass(frozen=True, slots=True)
class MachineQuery:
    """Which machines a page shows: `kind` is reported, failed or missing."""

    kind: str = "reported"
    text: str = ""
    page: int = 1


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which rows of the log a page shows, newest first, those before row `before`."""

    kind: str | None = None
    machine: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True)
class MachinePage:
    """A page of machines. `missing` is how many are expected and have not reported; None where nobody knows."""

    reports: Sequence[store.MachineReport]
    absent: Sequence[str]
    total: int
    reported: int
    failed: int
    missing: int | None
    has_roster: bool


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of the log; `older` is the row to ask before for the next one, None where this is the end."""

    rows: Sequence[LogRow]
    older: int | None


@dataclass(frozen=True, slots=True)
class Stay:
    """A visit and how long it took, or has taken so far."""

    visit: VisitRow
    span: timedelta
    reported: int


@dataclass(frozen=True, slots=True)
class Detail:
    """A chart as its page shows it. `samples` tell how its log grew in this run."""

    chart: Chart
    status: Status
    bearing: Bearing
    standing: Standing
    is_large: bool
    stays: Sequence[Stay]
    samples: Sequence[Sample]
    machines: MachinePage
    history: HistoryPage
    versions: Sequence[store.Version]


def get_detail(service: Service, name: str, machines: MachineQuery, history: HistoryQuery) -> Detail:
    """Everything that a chart's page shows. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        row = store.get_chart(connection, name)
        chart = service.definitions.get(connection, row)
        position, now = read_position(service, connection, row, chart)
        counts = overview.count_reports(connection, row)
        return Detail(
            chart,
            describe(chart, row, position, now, list_waiting(connection, row, chart, now)),
            judge(chart, row, position, now),
            read_standing(connection, row, chart, position.values, counts),
            is_large(chart, PAGE_STATES),
            _list_stays(connection, row, now, counts),
            _list_samples(connection, row),
            _get_machines(connection, row, chart, machines, counts.get(row.visit, {})),
            _get_history(connection, row, history),
            store.list_versions(connection, row.id),
        )


def find_seq(service: Service, name: str) -> int | None:
    """The chart's last row in its log; None once it is archived. Raises ChartNotFoundError."""
    with asking(service.database) as connection:
        row = store.get_chart_even_archived(connection, name)
    return None if row.archived_at is not None else row.seq


def list_kinds() -> tuple[str, ...]:
    """Every kind of row that a log can have."""
    return tuple(str(kind) for kind in Kind)


def _list_stays(connection: Connection, row: store.ChartRow, now: datetime, counts: Counts) -> list[Stay]:
    return [
        Stay(
            visit,
            max((visit.left_at or now) - visit.entered_at, timedelta(0)),
            sum(counts.get(visit.visit, {}).values()),
        )
        for visit in overview.list_visits(connection, row, VISITS)
    ]


def _list_samples(connection: Connection, row: store.ChartRow) -> list[Sample]:
    first = overview.find_first_seq(connection, row)
    last = row.seq
    wanted = sorted({first + (last - first) * number // POINTS for number in range(POINTS + 1)})
    return overview.list_log_samples(connection, row.name, wanted)


def _get_machines(
    connection: Connection, row: store.ChartRow, chart: Chart, query: MachineQuery, counts: Mapping[str | None, int]
) -> MachinePage:
    reported, failed = sum(counts.values()), counts.get(FAILED, 0)
    missing = None if chart.expect is None else max(chart.expect - reported, 0)
    wanted = MachineFilter(query.text, FAILED if query.kind == "failed" else None, (query.page - 1) * PAGE, PAGE)
    if query.kind == "missing":
        absent, total = overview.list_missing_page(connection, row, row.visit, wanted)
        return MachinePage([], absent, total, reported, failed, missing, chart.roster is not None)
    reports, total = overview.list_reports_page(connection, row, row.visit, wanted)
    return MachinePage(reports, [], total, reported, failed, missing, chart.roster is not None)


def _get_history(connection: Connection, row: store.ChartRow, query: HistoryQuery) -> HistoryPage:
    wanted = store.HistoryFilter(kind=query.kind, machine=query.machine, since=query.since, until=query.until)
    rows = overview.list_latest_history(connection, row.name, wanted, query.before, PAGE + 1)
    return HistoryPage(rows[:PAGE], rows[PAGE - 1].seq if len(rows) > PAGE else None)
