"""How the counts of a visit grew over time: what the plot on a chart's page shows.

The count on the first attribute is read from rows of the log at even distances, so that a long log costs no more than a
short one; rows without a value, such as claims, are passed over. Failures are few: each one is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app import store
from app.core.chart import FAILED_KEY, Chart, State
from app.core.position import Position
from app.db import Connection
from app.service.forecast import Forecast
from app.service.words import say_number
from app.store.machines import VisitRow

# Rows of the log that are looked up for a plot, and failures of which each has its own point.
POINTS = 300
MAX_FAILURES = 1000

Point = tuple[datetime, float]


@dataclass(frozen=True, slots=True)
class Count:
    """A count over time, with the value at which it moves the chart to `target`; both None if no guard is on it."""

    key: str
    points: Sequence[Point]
    threshold: int | None
    target: str | None

    @property
    def value(self) -> int:
        """The count in the end."""
        return int(self.points[-1][1])

    @property
    def says(self) -> str:
        """The count in words: `1,224 of 1,980 on count`."""
        of = "" if self.threshold is None else f" of {say_number(self.threshold)}"
        return f"{say_number(self.value)}{of} {'failed' if self.key == FAILED_KEY else f'on {self.key}'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """The counts of a visit up to `until`. `forecast` and `deadline` are None for a visit that is over."""

    visit: VisitRow
    until: datetime
    counts: Sequence[Count]
    forecast: Forecast | None
    deadline: tuple[datetime, str] | None


def find_growth(
    connection: Connection,
    row: store.charts.ChartRow,
    chart: Chart,
    position: Position,
    *,
    shown: tuple[VisitRow, Mapping[str | None, int]],
    ahead: tuple[datetime, Forecast | None, tuple[datetime, str] | None],
) -> Growth | None:
    """Return how the counts of a visit of the current run grew; None if its state counts nothing.

    `shown` is the visit with its reports by attribute, `ahead` is now, the forecast and the deadline.
    """
    visit, reported = shown
    is_current = visit.visit == row.visit
    state = chart.state_at(position) if is_current else chart.states.get(visit.state)
    if state is None or not state.is_counting or state.default_key is None:
        return None
    now, forecast, deadline = ahead
    until = visit.left_at or now
    values = dict(position.values) if is_current else {}
    sampled = _sample(connection, row, visit)
    counts = []
    for attribute in state.attributes:
        if attribute.key not in (state.default_key, FAILED_KEY):
            continue
        points = [(at, float(value)) for at, key, value in sampled if key == attribute.key]
        if attribute.key == FAILED_KEY and reported.get(FAILED_KEY, 0) <= MAX_FAILURES:
            times = store.machines.list_report_times(connection, row, visit.visit, FAILED_KEY)
            # Failures that came without a machine's id are in the log alone.
            if len(times) >= len(points):
                steps = enumerate(times, attribute.value)
                points = [(at, float(value)) for before, at in steps for value in (before, before + 1)]
        last = values.get(attribute.key, points[-1][1] if points else attribute.value)
        whole = [(visit.entered_at, float(attribute.value)), *points, (until, float(last))]
        counts.append(Count(attribute.key, whole, *_find_threshold(state, attribute.key)))
    ahead_only = (forecast, deadline) if is_current else (None, None)
    return Growth(visit=visit, until=until, counts=counts, forecast=ahead_only[0], deadline=ahead_only[1])


def _sample(connection: Connection, row: store.charts.ChartRow, visit: VisitRow) -> Sequence[tuple[datetime, str, int]]:
    """Return time, attribute and value of some reports of the visit, oldest first."""
    oldest, entered = store.log.find_seq_at(connection, row.name, visit.entered_at)
    first = oldest if entered is None else entered
    last = row.seq if visit.left_at is None else store.log.find_seq_at(connection, row.name, visit.left_at)[1] or first
    wanted = sorted({first + (last - first) * number // POINTS for number in range(POINTS + 1)})
    return store.log.list_values(connection, row.name, wanted, (visit.run, visit.visit))


def _find_threshold(state: State, key: str) -> tuple[int | None, str | None]:
    """Return the value at which the first guard on an attribute holds, and where it leads."""
    for move in state.transitions:
        guard = move.guard
        if not guard.is_clock and guard.key == key and guard.share is None:
            return guard.needed, move.target
    return None, None
