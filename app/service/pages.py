"""One chart as its page shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from app import store
from app.core.chart import Chart
from app.core.log import HistoryFilter, LogRow
from app.core.position import Kind
from app.db import Connection, asking, snapshot
from app.diagram import LIGHT, Form, Standing, Theme, draw
from app.diagram.draw import is_large
from app.diagram.texts import FAILED
from app.service.condition import Bearing, Condition, judge
from app.service.context import Service, list_waiting, read_position
from app.service.status import Status, describe
from app.store.overview import MachineFilter, Sample, VisitRow

# Visits of a run that a picture takes into account.
MAX_VISITS = 2000


def draw_chart(service: Service, name: str, form: Form = Form.SVG, theme: Theme = LIGHT) -> str:
    """The picture of a chart as it stands. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        row = store.charts.get_chart(connection, name)
        chart = service.definitions.get(connection, row)
        counts = store.overview.count_reports(connection, row)
        standing = read_standing(connection, row, chart, store.charts.read_values(connection, row.id), counts)
    return draw(chart, standing, form, theme)


def read_standing(
    connection: Connection,
    row: store.charts.ChartRow,
    chart: Chart,
    values: Mapping[str, int],
    counts: Mapping[int, Mapping[str | None, int]],
) -> Standing:
    """Where a chart stands, as a picture shows it; `counts` are the reports of the run's visits, by attribute."""
    passed: dict[str, int | None] = {}
    for visit in store.overview.list_visits(connection, row, MAX_VISITS):
        if visit.left_at is not None and visit.state in chart.states:
            reported = counts.get(visit.visit)
            passed[visit.state] = None if reported is None else reported.get(chart.states[visit.state].default_key, 0)
    return Standing(row.state, values, row.paused_at is not None, passed)


# What a sparkline shows: the last day, an hour a bar.
SPAN = timedelta(hours=24)
BARS = 24


@dataclass(frozen=True, slots=True)
class Glance:
    """A chart in one line; `bars` are the rows that its log grew by in each of the last 24 hours."""

    status: Status
    bearing: Bearing
    bars: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """The charts that were asked for, and how many there are in each condition."""

    glances: tuple[Glance, ...]
    counts: Counter[Condition]


def get_overview(
    service: Service, may_see: Callable[[str], bool], text: str = "", condition: Condition | None = None
) -> Overview:
    """Every chart that `may_see` lets through, has `text` in its name, description or state, and is in `condition`."""
    seen = [glance for glance in list_glances(service) if may_see(glance.status.chart)]
    found = [glance for glance in seen if _is_about(glance.status, text)]
    counts = Counter(glance.bearing.condition for glance in found)
    wanted = [glance for glance in found if condition is None or glance.bearing.condition is condition]
    return Overview(tuple(sorted(wanted, key=_urgency)), counts)


def list_glances(service: Service) -> list[Glance]:
    """Every chart, by name."""
    with snapshot(service.database) as connection:
        now = service.now(store.charts.read_now(connection))
        values = store.charts.list_values(connection)
        samples = store.overview.list_samples(connection)
        found = []
        for row in store.charts.list_charts(connection):
            chart = service.definitions.get(connection, row)
            position = store.charts.build_position(row, values.get(row.id, {}))
            bars = bars_of(samples.get(row.name, ()), now)
            found.append(Glance(describe(chart, row, position, now), judge(chart, row, position, now), bars))
        return found


def bars_of(samples: Sequence[store.overview.Sample], now: datetime) -> tuple[float, ...]:
    """How many rows came in each hour of the last day, between two samples spread evenly."""
    bars = [0.0] * BARS
    start = now - SPAN
    for before, after in pairwise(samples):
        if after.at >= start:
            _spread(bars, (before.at - start) / SPAN * BARS, (after.at - start) / SPAN * BARS, after.seq - before.seq)
    if samples and samples[0].seq == 1 and samples[0].at >= start:
        bars[min(int((samples[0].at - start) / SPAN * BARS), BARS - 1)] += 1
    return tuple(bars)


def _spread(bars: list[float], left: float, right: float, rows: int) -> None:
    if right - left < 1e-9:
        bars[min(max(int(right), 0), len(bars) - 1)] += rows
        return
    for bar in range(max(int(left), 0), min(int(right) + 1, len(bars))):
        overlap = min(right, bar + 1) - max(left, bar)
        bars[bar] += rows * max(overlap, 0.0) / (right - left)


def _is_about(status: Status, text: str) -> bool:
    words = text.lower().split()
    about = f"{status.chart} {status.current_state} {status.description}".lower()
    return all(word in about for word in words)


def _urgency(glance: Glance) -> tuple[object, ...]:
    bearing = glance.bearing
    share = 0.0 if bearing.timing.is_planned else bearing.timing.share or 0.0
    failures = bearing.failures.share if bearing.failures is not None else 0.0
    return bearing.condition, -len(bearing.reasons), -failures, -share, -glance.status.updated_at.timestamp()


def list_conditions() -> Iterable[Condition]:
    """Every condition, the most urgent first."""
    return tuple(Condition)


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

    reports: Sequence[store.machines.MachineReport]
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
    versions: Sequence[store.definitions.Version]


def get_detail(service: Service, name: str, machines: MachineQuery, history: HistoryQuery) -> Detail:
    """Everything that a chart's page shows. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        row = store.charts.get_chart(connection, name)
        chart = service.definitions.get(connection, row)
        position, now = read_position(service, connection, row, chart)
        counts = store.overview.count_reports(connection, row)
        return Detail(
            chart,
            describe(chart, row, position, now, list_waiting(service, row, chart)),
            judge(chart, row, position, now),
            read_standing(connection, row, chart, position.values, counts),
            is_large(chart, PAGE_STATES),
            _list_stays(connection, row, now, counts),
            _list_samples(connection, row),
            _get_machines(connection, row, chart, machines, counts.get(row.visit, {})),
            _get_history(connection, row, history),
            store.definitions.list_versions(connection, row.id),
        )


def find_seq(service: Service, name: str) -> int | None:
    """The chart's last row in its log; None once it is archived. Raises ChartNotFoundError."""
    with asking(service.database) as connection:
        row = store.charts.get_chart_even_archived(connection, name)
    return None if row.archived_at is not None else row.seq


def list_kinds() -> tuple[str, ...]:
    """Every kind of row that a log can have."""
    return tuple(str(kind) for kind in Kind)


def _list_stays(connection: Connection, row: store.charts.ChartRow, now: datetime, counts: Counts) -> list[Stay]:
    return [
        Stay(
            visit,
            max((visit.left_at or now) - visit.entered_at, timedelta(0)),
            sum(counts.get(visit.visit, {}).values()),
        )
        for visit in store.overview.list_visits(connection, row, VISITS)
    ]


def _list_samples(connection: Connection, row: store.charts.ChartRow) -> list[Sample]:
    first = store.overview.find_first_seq(connection, row)
    last = row.seq
    wanted = sorted({first + (last - first) * number // POINTS for number in range(POINTS + 1)})
    return store.overview.list_log_samples(connection, row.name, wanted)


def _get_machines(
    connection: Connection,
    row: store.charts.ChartRow,
    chart: Chart,
    query: MachineQuery,
    counts: Mapping[str | None, int],
) -> MachinePage:
    reported, failed = sum(counts.values()), counts.get(FAILED, 0)
    missing = None if chart.expect is None else max(chart.expect - reported, 0)
    wanted = MachineFilter(query.text, FAILED if query.kind == "failed" else None, (query.page - 1) * PAGE, PAGE)
    if query.kind == "missing":
        absent, total = store.overview.list_missing_page(connection, row, row.visit, wanted)
        return MachinePage([], absent, total, reported, failed, missing, chart.roster is not None)
    reports, total = store.overview.list_reports_page(connection, row, row.visit, wanted)
    return MachinePage(reports, [], total, reported, failed, missing, chart.roster is not None)


def _get_history(connection: Connection, row: store.charts.ChartRow, query: HistoryQuery) -> HistoryPage:
    wanted = HistoryFilter(kind=query.kind, machine=query.machine, since=query.since, until=query.until)
    rows = store.overview.list_latest_history(connection, row.name, wanted, query.before, PAGE + 1)
    return HistoryPage(rows[:PAGE], rows[PAGE - 1].seq if len(rows) > PAGE else None)
