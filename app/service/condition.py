"""A chart's health: one word and the reasons for it. It is what a person looks at first.

A chart is *stuck* if more than half of the time to its deadline is over, or if no report has come for long: for more
than an hour, and for more than ten times the average time between the reports of this visit. The deadline is the
clock guard that comes due first, unless it is planned (see `app.core.plan`): a state that is meant to end by the
clock is never late.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from app import store
from app.core.chart import FAILED_KEY, Chart, State
from app.core.plan import list_failed_endings, list_planned
from app.core.position import Position
from app.service.status import find_next_clock, say_span

# No report for longer than this makes a chart stuck, if it is also longer than so many times the usual interval.
LONG = timedelta(hours=1)
TIMES_THE_USUAL = 10


class Condition(IntEnum):
    """How a chart is doing, in one word. The most urgent condition comes first."""

    STUCK = 1
    FAILED = 2
    PAUSED = 3
    RUNNING = 4
    ENDED = 5

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Failures:
    """How many failures were counted. At `limit` failures the chart goes to `target`; both are None without a limit."""

    value: int
    limit: int | None
    target: str | None

    @property
    def share(self) -> float:
        """How near the failures are to their limit, from 0 to 1. Without a limit, 1 from the first failure on."""
        if self.limit is None or self.limit <= 0:
            return float(self.value > 0)
        return min(self.value / self.limit, 1.0)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the visit has lasted without its pauses, and the time `allowed` before the clock takes it to `target`.

    `is_planned` is True if the state is meant to end by the clock; otherwise the end of that time is a deadline.
    """

    spent: timedelta
    allowed: timedelta | None = None
    target: str | None = None
    is_planned: bool = False

    @property
    def share(self) -> float | None:
        """How much of the allowed time is over, from 0 to 1. None if there is no limit."""
        if self.allowed is None:
            return None
        return min(max(self.spent / self.allowed, 0.0), 1.0) if self.allowed else 1.0


@dataclass(frozen=True, slots=True)
class Health:
    """How a chart is doing: its condition, the reasons if it is stuck, its failures and its time."""

    condition: Condition
    reasons: tuple[str, ...]
    failures: Failures | None
    timing: Timing

    @property
    def has_failed(self) -> bool:
        """True if the chart has ended in a state that it was not meant to end in."""
        return self.condition is Condition.FAILED


def judge_health(chart: Chart, row: store.charts.ChartRow, position: Position, now: datetime) -> Health:
    """The chart's health at `now`."""
    state = chart.states[position.state]
    timing = find_timing(state, position, now)
    failures = find_failures(state, position)
    if state.is_final:
        has_failed = state.name in list_failed_endings(chart)
        return Health(Condition.FAILED if has_failed else Condition.ENDED, (), failures, timing)
    if position.is_paused:
        return Health(Condition.PAUSED, (), failures, timing)
    reasons = tuple(reason for reason in (_say_late(timing), _say_quiet(state, row, position, now)) if reason)
    return Health(Condition.STUCK if reasons else Condition.RUNNING, reasons, failures, timing)


def find_timing(state: State, position: Position, now: datetime) -> Timing:
    """How long the visit has lasted, and how long it may last until the first clock guard comes due."""
    spent = max(now - position.entered_at - position.pause_in_visit(now), timedelta(0))
    first = find_next_clock(state, position)
    if first is None:
        return Timing(spent)
    due, transition = first
    allowed = max(due - position.entered_at - position.paused_for, timedelta(0))
    return Timing(spent, allowed, transition.target, transition in list_planned(state))


def find_failures(state: State, position: Position) -> Failures | None:
    """The count on the attribute `failed`, and the limit by the first guard on it. None without the attribute."""
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
