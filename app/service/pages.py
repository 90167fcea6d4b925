"""What the pages show: the picture of a chart, the overview of all charts, and the page of one chart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import pairwise

from app import store
from app.core.chart import FAILED_KEY, Chart
from app.core.errors import BadRequestError
from app.db import Connection, asking, snapshot
from app.diagram import LIGHT, Form, Snapshot, Theme, draw
from app.diagram.draw import is_large
from app.service.condition import Condition, Health
from app.service.context import Service, list_positions, list_waiting, read_position
from app.service.crowds import Knowledge, count_expected_in, find_absent_in
from app.service.forecast import Growth, find_growth
from app.service.operate import Loss, describe_loss
from app.service.reading import PAGE_SIZE, HistoryPage, HistoryQuery, get_history
from app.service.roll import Worker, is_work_unseen, list_working
from app.service.runs import compare_with_last_run
from app.service.status import Status, describe_status
from app.store.machines import MachineFilter, ReportFilter, VisitRow
from app.store.subscriptions import Delivery

# A picture takes at most this many visits of a run into account.
MAX_VISITS = 2000
# A sparkline shows the last day, in one bar an hour.
SPAN = timedelta(hours=24)
BARS = 24
# Up to this many states a page draws the whole chart. Of a larger chart it draws the states around the current one.
PAGE_STATES = 60
# A chart's page shows this many visits.
VISITS = 60

# The banner of a chart names this many of the machines that failed.
MAX_FAILED = 200

# How many machines reported on which attribute, for each visit.
Counts = Mapping[int, Mapping[str | None, int]]

# The picture of a chart


def draw_chart(service: Service, name: str, form: Form = Form.SVG, theme: Theme = LIGHT) -> str:
    """Draw a chart with its current position. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        row = store.charts.get_chart(connection, name)
        chart = service.definitions.get(connection, row)
        counts = store.machines.count_reports_of_visits(connection, row)
        standing = read_standing(connection, row, chart, store.charts.read_values(connection, row.id), counts)
    return draw(chart, standing, form, theme)


def read_standing(
    connection: Connection,
    row: store.charts.ChartRow,
    chart: Chart,
    values: Mapping[str, int],
    counts: Counts,
) -> Snapshot:
    """Return what a picture shows of the chart's position. `counts` are the reports of this run's visits."""
    passed: dict[str, int | None] = {}
    visits = store.machines.list_visits(connection, row, MAX_VISITS)
    for visit in visits:
        if visit.left_at is not None and visit.state in chart.states:
            reported = counts.get(visit.visit)
            passed[visit.state] = None if reported is None else reported.get(chart.states[visit.state].default_key, 0)
    moves = pairwise(visit.state for visit in visits)
    expected = store.charts.build_position(row, values).expected
    return Snapshot(row.state, values, row.paused_at is not None, passed, frozenset(moves), expected=expected)


# All charts


@dataclass(frozen=True, slots=True)
class Glance:
    """A chart in one line. `bars` are how many log rows each of the last 24 hours added."""

    status: Status
    bars: tuple[float, ...]

    @property
    def health(self) -> Health:
        """How the chart is doing."""
        return self.status.health


@dataclass(frozen=True, slots=True)
class Overview:
    """The charts to show, the most urgent first.

    `counts` says how many charts are in each condition, not only in the condition that was asked for.
    """

    glances: tuple[Glance, ...]
    counts: Counter[Condition]


def get_overview(
    service: Service, may_see: Callable[[str], bool], text: str = "", condition: Condition | None = None
) -> Overview:
    """Return the charts that a person may see, and that match what the person searches for.

    `may_see` is asked for each chart's name. A chart matches if each word of `text` is in its name, description or
    state, and if it is in `condition`; None stands for any condition.
    """
    seen = [glance for glance in list_glances(service) if may_see(glance.status.chart)]
    found = [glance for glance in seen if _is_about(glance.status, text)]
    counts = Counter(glance.health.condition for glance in found)
    wanted = [glance for glance in found if condition is None or glance.health.condition is condition]
    return Overview(tuple(sorted(wanted, key=_urgency)), counts)


def list_glances(service: Service) -> list[Glance]:
    """Every chart that is not archived, ordered by name."""
    with snapshot(service.database) as connection:
        positions, now = list_positions(service, connection)
        samples = store.log.list_samples(connection)
        return [
            Glance(
                describe_status(connection, chart, row, position, now, known=service.know(connection, row)),
                bars_of(samples.get(row.name, ()), now),
            )
            for row, chart, position in positions
        ]


def bars_of(samples: Sequence[store.log.Sample], now: datetime) -> tuple[float, ...]:
    """Return how many log rows each hour of the last day added; rows between two samples are spread evenly."""
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
    health = glance.health
    share = 0.0 if health.timing.is_planned else health.timing.share or 0.0
    failures = health.failures.share if health.failures is not None else 0.0
    return health.condition, -failures, -share, -glance.status.updated_at.timestamp()


# One chart


@dataclass(frozen=True, slots=True)
class MachineQuery:
    """Which machines a page shows. `kind` is `reported`, `failed`, `missing` or `working`; pages count from 1.

    They are those of the visit numbered `visit`, else of the latest visit of `state`, else of the current visit.
    """

    kind: str = "reported"
    text: str = ""
    page: int = 1
    state: str | None = None
    visit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinePage:
    """A page of machines: `reports` of those that reported, ids of those that are `absent`, or `workers`.

    `total` counts the machines that match the query, `reported` and `failed` those of the visit. `missing` is how many
    machines have not reported; None if the chart does not say how many it expects. `working` is how many are at work,
    or were when the chart moved on; None if the state has no slots. `is_work_unseen` is whether machines work there all
    the same.
    """

    reports: Sequence[store.machines.MachineReport]
    absent: Sequence[str]
    workers: Sequence[Worker]
    total: int
    reported: int
    failed: int
    expected: int | None
    missing: int | None
    has_roster: bool
    working: int | None
    is_work_unseen: bool
    visit: VisitRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What went wrong in a visit: the machines that failed, of `total`, and those that were at work when it ended.

    `is_over` is whether the chart has left the visit.
    """

    visit: VisitRow
    failed: Sequence[store.machines.MachineReport]
    total: int
    working: Sequence[Worker]
    is_over: bool


@dataclass(frozen=True, slots=True)
class Telling:
    """A subscription that is told of a chart, and what was sent to it last about the chart; None if nothing was."""

    subscription: str
    latest: Delivery | None


@dataclass(frozen=True, slots=True)
class Stay:
    """A visit, how long it took or has taken so far, and how many machines reported in it."""

    visit: VisitRow
    span: timedelta
    reported: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """A chart as its page shows it."""

    chart: Chart
    status: Status
    standing: Snapshot
    is_large: bool
    stays: Sequence[Stay]
    growth: Growth | None
    machines: MachinePage
    history: HistoryPage
    versions: Sequence[store.definitions.Version]
    trouble: Trouble | None
    told: Sequence[Telling]
    loss: Loss
    # How this run compares with the one before it.
    compared: str | None
    # Each roster that the chart goes by, in the version in force.
    rosters: Sequence[tuple[str, store.rosters.RosterVersion]] = ()

    @property
    def health(self) -> Health:
        """How the chart is doing."""
        return self.status.health


def _list_rosters(connection: Connection, versions: Mapping[str, int]) -> list[tuple[str, store.rosters.RosterVersion]]:
    """Return the rosters by which a chart goes, by name."""
    found = []
    for name, version in sorted(versions.items()):
        roster = store.rosters.find_roster(connection, name)
        one = None if roster is None else store.rosters.find_version(connection, roster.id, version)
        found += [] if one is None else [(name, one)]
    return found


def get_detail(service: Service, name: str, machines: MachineQuery, history: HistoryQuery) -> Detail:
    """Return all that a chart's page shows, read at one moment. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        row = store.charts.get_chart(connection, name)
        chart = service.definitions.get(connection, row)
        position, now = read_position(service, connection, row, chart)
        counts = store.machines.count_reports_of_visits(connection, row)
        status = describe_status(
            connection,
            chart,
            row,
            position,
            now,
            waiting=list_waiting(service, row, chart),
            known=service.know(connection, row),
        )
        shown = _find_shown_visit(connection, row, chart, machines, counts)
        return Detail(
            chart=chart,
            status=status,
            standing=read_standing(connection, row, chart, position.values, counts),
            is_large=is_large(chart, PAGE_STATES),
            stays=_list_stays(connection, row, now, counts),
            growth=find_growth(
                connection,
                row,
                chart,
                position,
                visit=shown,
                reported=counts.get(shown.visit, {}),
                now=now,
                forecast=status.health.forecast,
                deadline=_find_deadline(status),
            ),
            machines=_get_machines(
                connection,
                row,
                chart,
                machines,
                shown=(shown, counts.get(shown.visit, {})),
                known=service.know(connection, row),
            ),
            history=get_history(connection, row, history),
            rosters=_list_rosters(connection, position.rosters),
            versions=store.definitions.list_versions(connection, row.id),
            trouble=_find_trouble(connection, row, status.health, counts),
            told=_list_told(connection, name),
            compared=compare_with_last_run(connection, row, chart, now),
            loss=describe_loss(chart, position, sum(counts.get(row.visit, {}).values())),
        )


def _find_shown_visit(
    connection: Connection, row: store.charts.ChartRow, chart: Chart, query: MachineQuery, counts: Counts
) -> VisitRow:
    """Return the visit whose machines are shown. Raises BadRequestError if this run has no such visit.

    Without a wish it is the current one; of a chart that has ended, the last one in which machines reported.
    """
    number = query.visit
    if number is None and query.state is None:
        number = row.visit
        if chart.states[row.state].is_final:
            number = max((visit for visit, reported in counts.items() if reported), default=number)
    if number == row.visit and query.state is None:
        return VisitRow(row.run, row.visit, row.state, row.entered_at, None)
    found = store.machines.find_visit(connection, row, row.run, state=query.state, visit=number)
    if found is None:
        wanted = f"state {query.state!r}" if query.visit is None else f"visit {query.visit}"
        raise BadRequestError(f"run {row.run} of chart {row.name!r} has not been in {wanted}")
    return found


def _find_deadline(status: Status) -> tuple[datetime, str] | None:
    deadline = status.deadline
    return None if deadline is None or deadline.at is None else (deadline.at, deadline.target)


def _find_trouble(connection: Connection, row: store.charts.ChartRow, health: Health, counts: Counts) -> Trouble | None:
    """Return what went wrong where the chart left its main path, or else in the current visit; None if nothing did."""
    number = row.visit if health.departure is None else health.departure.row.visit
    visit = store.machines.find_visit(connection, row, row.run, visit=number)
    if visit is None:
        return None
    total = counts.get(number, {}).get(FAILED_KEY, 0)
    failed = store.machines.list_reports_of(connection, row, visit, ReportFilter(key=FAILED_KEY, limit=MAX_FAILED))
    is_over = health.departure is not None
    working = list_working(connection, row, visit) if is_over else ()
    return (
        Trouble(visit=visit, failed=failed, total=total, working=working, is_over=is_over) if total or working else None
    )


def _list_told(connection: Connection, chart: str) -> list[Telling]:
    latest = store.subscriptions.list_latest_deliveries(connection, chart)
    return [
        Telling(one.name, latest.get(one.id))
        for one in store.subscriptions.list_subscriptions(connection)
        if any(fnmatchcase(chart, pattern) for pattern in one.charts)
    ]


def find_seq(service: Service, name: str) -> int | None:
    """Return the seq of the chart's last log row; None if it is archived. Raises ChartNotFoundError."""
    with asking(service.database) as connection:
        row = store.charts.get_chart_even_archived(connection, name)
    return None if row.archived_at is not None else row.seq


def _list_stays(connection: Connection, row: store.charts.ChartRow, now: datetime, counts: Counts) -> list[Stay]:
    return [
        Stay(
            visit,
            max((visit.left_at or now) - visit.entered_at, timedelta(0)),
            sum(counts.get(visit.visit, {}).values()),
        )
        for visit in store.machines.list_visits(connection, row, VISITS)
    ]


def _get_machines(
    connection: Connection,
    row: store.charts.ChartRow,
    chart: Chart,
    query: MachineQuery,
    *,
    shown: tuple[VisitRow, Mapping[str | None, int]],
    known: Knowledge,
) -> MachinePage:
    visit, counts = shown
    wanted = MachineFilter(
        text=query.text,
        key=FAILED_KEY if query.kind == "failed" else None,
        offset=(query.page - 1) * PAGE_SIZE,
        limit=PAGE_SIZE,
    )
    reports: Sequence[store.machines.MachineReport] = ()
    absent: Sequence[str] = ()
    workers: Sequence[Worker] = ()
    here = chart.states.get(visit.state)
    has_slots = here is not None and here.slots is not None
    working = list_working(connection, row, visit) if has_slots else ()
    if query.kind == "working":
        workers = [worker for worker in working if query.text in worker.machine]
        total = len(workers)
    elif query.kind == "missing":
        found = (
            find_absent_in(known, connection, row, chart, visit.state, visit=visit.visit, wanted=wanted)
            if visit.state in chart.states
            else None
        )
        absent, total = (found.machines, found.total) if found is not None else ((), 0)
    else:
        reports, total = store.machines.list_reports_page(connection, row, visit.visit, wanted)
    reported = sum(counts.values())
    expect = chart.expect_of(visit.state) if visit.state in chart.states else None
    expected = count_expected_in(known, connection, row, chart, visit)
    names_machines = expect is not None and expect.names_machines
    return MachinePage(
        reports=reports,
        absent=absent,
        workers=workers[wanted.offset : wanted.offset + PAGE_SIZE],
        total=total,
        reported=reported,
        failed=counts.get(FAILED_KEY, 0),
        expected=expected,
        missing=None if expected is None else max(expected - reported, 0),
        has_roster=names_machines,
        working=len(working) if has_slots else None,
        is_work_unseen=is_work_unseen(chart, visit.state),
        visit=visit,
    )
