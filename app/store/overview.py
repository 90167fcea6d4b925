"""What a scrape reads: where charts stand, in no more rows than it was told to take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Boolean,
    ColumnElement,
    Select,
    String,
    and_,
    column,
    func,
    literal,
    select,
    table,
)

from app.core.chart import FAILED_KEY
from app.core.log import COLUMNS, HistoryFilter, LogRow
from app.db import Connection
from app.models import UtcDateTime, attribute_values, chart_versions, charts, reports, roster, transition_log, visits
from app.store.charts import ChartRow
from app.store.machines import MachineReport

# Samples a chart: dense near the end of its log, where the last day is, sparse towards its beginning.
SAMPLES = 24


@dataclass(frozen=True, slots=True)
class Sample:
    """When the log of a chart reached row `seq`."""

    seq: int
    at: datetime


@dataclass(frozen=True, slots=True)
class VisitRow:
    """A stay in a state; `left_at` is None while it lasts."""

    run: int
    visit: int
    state: str
    entered_at: datetime
    left_at: datetime | None


def _sample_numbers() -> CTE:
    numbers = select(literal(0).label("number")).cte("numbers", recursive=True)
    return numbers.union_all(select(numbers.c.number + 1).where(numbers.c.number < SAMPLES))


def _sampled() -> Select[Any]:
    numbers = _sample_numbers()
    cube = numbers.c.number * numbers.c.number * numbers.c.number
    # The distance from the end grows with the cube, in whole numbers: log and charts meet in the index.
    seq = charts.c.seq - (charts.c.seq - 1) * cube // SAMPLES**3
    wanted = and_(transition_log.c.chart == charts.c.name, transition_log.c.seq == seq)
    return (
        select(charts.c.name, transition_log.c.seq, transition_log.c.at)
        .select_from(charts.join(numbers, charts.c.archived_at.is_(None)).join(transition_log, wanted))
        .order_by(charts.c.name, transition_log.c.seq)
        .distinct()
    )


_SAMPLED = _sampled()


def list_samples(connection: Connection) -> dict[str, list[Sample]]:
    """Samples of the log of every chart that is not archived, oldest first. Reader: the page of all charts."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for name, seq, at in connection.execute(_SAMPLED):
        found[name].append(Sample(seq, at))
    return found


def list_log_samples(connection: Connection, chart: str, seqs: Sequence[int]) -> list[Sample]:
    """When a chart's log reached each of `seqs`. Reader: the plot of reports over time."""
    query = (
        select(transition_log.c.seq, transition_log.c.at)
        .where(transition_log.c.chart == chart, transition_log.c.seq.in_(seqs))
        .order_by(transition_log.c.seq)
    )
    return [Sample(*row) for row in connection.execute(query)]


def find_first_seq(connection: Connection, row: ChartRow) -> int:
    """The first row of the current run in the log, found by halving: runs rise with `seq`."""
    # A pruned log does not begin with 1.
    first = select(func.min(transition_log.c.seq)).where(transition_log.c.chart == row.name)
    low: int = connection.execute(first).scalar_one()
    high = row.seq
    while low < high:
        middle = (low + high) // 2
        query = select(transition_log.c.run).where(transition_log.c.chart == row.name, transition_log.c.seq == middle)
        run = connection.execute(query).scalar_one()
        low, high = (low, middle) if run >= row.run else (middle + 1, high)
    return low


def list_visits(connection: Connection, row: ChartRow, limit: int) -> list[VisitRow]:
    """The latest visits of the current run, oldest first."""
    query = (
        select(*(visits.c[name] for name in VisitRow.__slots__))
        .where(visits.c.chart_id == row.id, visits.c.run == row.run)
        .order_by(visits.c.visit.desc())
        .limit(limit)
    )
    return [VisitRow(*found) for found in reversed(connection.execute(query).all())]


def count_reports(connection: Connection, row: ChartRow) -> dict[int, dict[str | None, int]]:
    """How many machines reported on which attribute, for each visit of the current run."""
    query = (
        select(reports.c.visit, reports.c.key, func.count())
        .where(reports.c.chart_id == row.id, reports.c.run == row.run)
        .group_by(reports.c.visit, reports.c.key)
    )
    found: dict[int, dict[str | None, int]] = defaultdict(dict)
    for visit, key, count in connection.execute(query):
        found[visit][key] = count
    return found


@dataclass(frozen=True, slots=True)
class MachineFilter:
    """Which machines of a visit are wanted: with `text` in their id, on one attribute, a page of them."""

    text: str = ""
    key: str | None = None
    offset: int = 0
    limit: int = 50


def list_reports_page(
    connection: Connection, row: ChartRow, visit: int, wanted: MachineFilter
) -> tuple[list[MachineReport], int]:
    """A page of the machines that reported in a visit of the current run, latest first, and how many there are."""
    query = select(*(reports.c[name] for name in MachineReport.__slots__)).where(
        reports.c.chart_id == row.id, reports.c.run == row.run, reports.c.visit == visit
    )
    if wanted.text:
        query = query.where(reports.c.machine.contains(wanted.text, autoescape=True))
    if wanted.key is not None:
        query = query.where(reports.c.key == wanted.key)
    total = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
    page = query.order_by(reports.c.seq.desc(), reports.c.machine).offset(wanted.offset).limit(wanted.limit)
    return [MachineReport(*found) for found in connection.execute(page)], total


def list_missing_page(
    connection: Connection, row: ChartRow, visit: int, wanted: MachineFilter
) -> tuple[list[str], int]:
    """A page of the machines on the roster that have not reported in a visit, and how many there are."""
    reported = and_(
        reports.c.chart_id == row.id,
        reports.c.run == row.run,
        reports.c.visit == visit,
        reports.c.machine == roster.c.machine,
    )
    query = (
        select(roster.c.machine, roster.c.position)
        .select_from(
            chart_versions.join(roster, roster.c.version_id == chart_versions.c.id).outerjoin(reports, reported)
        )
        .where(chart_versions.c.chart_id == row.id, chart_versions.c.version == row.version)
        .where(reports.c.machine.is_(None))
    )
    if wanted.text:
        query = query.where(roster.c.machine.contains(wanted.text, autoescape=True))
    total = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
    page = query.order_by(roster.c.position).offset(wanted.offset).limit(wanted.limit)
    return [found.machine for found in connection.execute(page)], total


def list_latest_history(
    connection: Connection, chart: str, wanted: HistoryFilter, before: int | None, limit: int
) -> list[LogRow]:
    """Rows of a chart's log that `wanted` lets through, newest first, those before row `before`."""
    log = transition_log.c
    query = select(*(log[name] for name in COLUMNS)).where(log.chart == chart)
    if before is not None:
        query = query.where(log.seq < before)
    if wanted.kind is not None:
        query = query.where(log.kind == wanted.kind)
    if wanted.machine is not None:
        query = query.where(log.machine == wanted.machine)
    if wanted.since is not None:
        query = query.where(log.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(log.at < wanted.until)
    return [LogRow.from_values(row) for row in connection.execute(query.order_by(log.seq.desc()).limit(limit))]


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
            attribute_values, and_(attribute_values.c.chart_id == charts.c.id, attribute_values.c.key == FAILED_KEY)
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
