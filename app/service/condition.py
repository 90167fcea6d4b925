"""How a chart fares, in one word and the reasons for it: what a person looks at first.

A chart is *stuck* where it is past half its deadline, or where nothing was reported for long: for an hour, and for
ten times as long as reports in this visit took on average. Its deadline is the first clock guard that is not planned
(see `app.core.plan`): a state that is meant to end by the clock has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from app import store
from app.core.chart import FAILED_KEY, Chart, State
from app.core.plan import list_failed_endings, list_planned
from app.core.position import Position

LONG = timedelta(hours=1)
TIMES_THE_USUAL = 10


class Condition(IntEnum):
    """How a chart fares, the most urgent first."""

    STUCK = 1
    FAILED = 2
    PAUSED = 3
    RUNNING = 4
    ENDED = 5

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Failures:
    """How many failures were counted, and how many it takes for the chart to turn away, if any number does."""

    value: int
    limit: int | None
    target: str | None

    @property
    def share(self) -> float:
        """How near the failures are to their limit, from 0 to 1."""
        if self.limit is None or self.limit <= 0:
            return float(self.value > 0)
        return min(self.value / self.limit, 1.0)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the visit has lasted, pauses left out, and how long it may (`allowed`) before it goes to `target`.

    `is_planned` tells a state that is meant to end by the clock from a deadline.
    """

    spent: timedelta
    allowed: timedelta | None = None
    target: str | None = None
    is_planned: bool = False

    @property
    def share(self) -> float | None:
        """How much of the time allowed is over, from 0 to 1."""
        if self.allowed is None:
            return None
        return min(max(self.spent / self.allowed, 0.0), 1.0) if self.allowed else 1.0


@dataclass(frozen=True, slots=True)
class Bearing:
    """How a chart fares: one word, the reasons, its failures and its time."""

    condition: Condition
    reasons: tuple[str, ...]
    failures: Failures | None
    timing: Timing


def judge(chart: Chart, row: store.charts.ChartRow, position: Position, now: datetime) -> Bearing:
    """How the chart fares at `now`."""
    state = chart.states[position.state]
    timing = find_timing(state, position, now)
    failures = find_failures(state, position)
    if state.is_final:
        has_failed = state.name in list_failed_endings(chart)
        return Bearing(Condition.FAILED if has_failed else Condition.ENDED, (), failures, timing)
    if position.is_paused:
        return Bearing(Condition.PAUSED, (), failures, timing)
    reasons = tuple(reason for reason in (_say_late(timing), _say_quiet(state, row, position, now)) if reason)
    return Bearing(Condition.STUCK if reasons else Condition.RUNNING, reasons, failures, timing)


def find_timing(state: State, position: Position, now: datetime) -> Timing:
    """How long the visit has lasted, against the clock guard that comes due first."""
    spent = max(now - position.entered_at - position.pause_in_visit(now), timedelta(0))
    planned = list_planned(state)
    clocks = [(item.guard.due_at(position), item) for item in state.transitions if item.guard.is_clock]
    if not clocks:
        return Timing(spent)
    due, first = min(clocks, key=lambda clock: clock[0])
    allowed = max(due - position.entered_at - position.paused_for, timedelta(0))
    return Timing(spent, allowed, first.target, first in planned)


def find_failures(state: State, position: Position) -> Failures | None:
    """The count on the attribute `failed`, and the first guard on it."""
    if FAILED_KEY not in position.values:
        return None
    for item in state.transitions:
        guard = item.guard
        if not guard.is_clock and guard.key == FAILED_KEY:
            limit = guard.threshold + 1 if guard.op == ">" else guard.threshold
            return Failures(position.values[FAILED_KEY], limit, item.target)
    return Failures(position.values[FAILED_KEY], None, None)


def _say_late(timing: Timing) -> str | None:
    share = timing.share
    if share is None or timing.is_planned or share <= 0.5:
        return None
    return f"{share * 100:.0f} % of its time is over"


def _say_quiet(state: State, row: store.charts.ChartRow, position: Position, now: datetime) -> str | None:
    if not state.is_counting or all(item.guard.is_clock for item in list_planned(state)):
        return None
    quiet = now - max(row.updated_at, position.entered_at)
    initial = state.initial_values()
    counted = sum(abs(value - initial.get(key, value)) for key, value in position.values.items())
    usual = (row.updated_at - position.entered_at) / counted if counted else timedelta(0)
    if quiet <= max(LONG, usual * TIMES_THE_USUAL):
        return None
    return f"no report for {say_span(quiet)}"


def say_span(span: timedelta) -> str:
    """A length of time in its two largest units."""
    seconds = max(int(span.total_seconds()), 0)
    for size, unit, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            # Nobody counts the seconds of half an hour.
            rest = 0 if small == "s" and seconds >= 600 else seconds % size // smaller
            return f"{seconds // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{seconds} s"
