"""How fast a visit counts: when it will be left as planned if it goes on like that, and how its counts grew until now.

The pace is that of the whole visit without its pauses: the reports counted on the first attribute, over the time spent.
The time that the missing reports take is treated as a sum of independent waits whose mean is itself only estimated
from the reports so far. So its variance has two parts: that of the waits to come, and that of the estimate.

The plot shows how the counts grew. The count on the first attribute is read from rows of the log at even distances, so
that a long log costs no more than a short one; rows without a value, such as claims, are passed over. Failures are few:
each one is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import sqrt
from typing import Any

from app import store
from app.core.chart import FAILED_KEY, Chart, State
from app.core.log import format_instant
from app.core.plan import list_planned
from app.core.position import Position
from app.db import Connection
from app.service.words import say_number, say_span
from app.store.machines import VisitRow

# How fast a visit counts, and when it will be left

# With fewer reports than this, a forecast would be a guess.
MIN_REPORTS = 20
# The 90th percentile of the normal distribution, in standard deviations.
P90 = 1.2816
# No forecast goes further than this: a pace that takes longer says nothing about the end.
FARTHEST = timedelta(days=3650)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The reports `counted` towards the plan of a state in `spent`, the time without pauses, and those `missing`.

    `value` is the attribute `key` now, and `needed` the value that moves the chart.
    """

    key: str
    value: int
    needed: int
    counted: int
    missing: int
    spent: timedelta

    def time_left(self, more: float = 0.0) -> timedelta:
        """How long the missing reports take at this pace, if `more` reports than were counted are taken for granted."""
        if self.counted + more <= 0:
            return FARTHEST
        return _stretch(self.spent, self.missing / (self.counted + more))


@dataclass(frozen=True, slots=True)
class Forecast:
    """When the state will be left as planned: by `p50` with an even chance, by `p90` in nine of ten cases.

    `basis` says in words what the pace `per_hour` is computed from.
    """

    p50: datetime
    p90: datetime
    per_hour: float
    basis: str

    def as_json(self) -> dict[str, Any]:
        """The forecast as the HTTP interface gives it."""
        return {
            "p50": format_instant(self.p50),
            "p90": format_instant(self.p90),
            "per_hour": self.per_hour,
            "basis": self.basis,
        }


def _stretch(span: timedelta, times: float) -> timedelta:
    """Return `span` that many times, at most FARTHEST: a longer one may be more than a timedelta can hold."""
    return FARTHEST if times * span.total_seconds() >= FARTHEST.total_seconds() else span * times


def find_pace(state: State, position: Position, now: datetime) -> Pace | None:
    """Return the pace of the state that is current; None if its plan counts nothing."""
    guards = (move.guard for move in list_planned(state))
    guard = next((guard for guard in guards if not guard.is_clock and guard.key == state.default_key), None)
    if guard is None or state.func is None or not state.is_counting:
        return None
    value, first = position.values[guard.key], state.attributes[0].value
    return Pace(
        key=guard.key,
        value=value,
        needed=guard.needed,
        counted=state.func.count_missing(first, value),
        missing=state.func.count_missing(value, guard.needed),
        spent=max(now - position.entered_at - position.pause_in_visit(now), timedelta(0)),
    )


def find_forecast(state: State, position: Position, now: datetime) -> Forecast | None:
    """Return the forecast for the state that is current.

    None if fewer than MIN_REPORTS reports are counted, if the plan of the state counts nothing, or while the chart is
    paused.
    """
    pace = find_pace(state, position, now)
    if pace is None or position.is_paused or pace.counted < MIN_REPORTS or pace.spent <= timedelta(0):
        return None
    missing = max(pace.missing, 0)
    mean = _stretch(pace.spent, missing / pace.counted)
    spread = _stretch(pace.spent, sqrt(missing + missing * missing / pace.counted) / pace.counted)
    return Forecast(
        p50=now + mean,
        p90=now + mean + spread * P90,
        per_hour=round(timedelta(hours=1) / pace.spent * pace.counted, 1),
        basis=f"{say_number(pace.counted)} reports on {pace.key} in {say_span(pace.spent)}",
    )


# How the counts grew

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
    forecast: Forecast | None = None
    deadline: tuple[datetime, str] | None = None


def find_growth(
    connection: Connection,
    row: store.charts.ChartRow,
    chart: Chart,
    position: Position,
    *,
    visit: VisitRow,
    reported: Mapping[str | None, int],
    now: datetime,
    forecast: Forecast | None,
    deadline: tuple[datetime, str] | None,
) -> Growth | None:
    """Return how the counts of a visit of the current run grew; None if its state counts nothing.

    `reported` are the visit's reports by attribute. Forecast and deadline are those of the current visit.
    """
    is_current = visit.visit == row.visit
    state = chart.state_at(position) if is_current else chart.states.get(visit.state)
    if state is None or not state.is_counting or state.default_key is None:
        return None
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
    if not is_current:
        return Growth(visit=visit, until=until, counts=counts)
    return Growth(visit=visit, until=until, counts=counts, forecast=forecast, deadline=deadline)


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
