"""How fast the current state counts, and when it will be left as planned if it goes on like that.

The pace is that of the whole visit without its pauses: the reports counted on the first attribute, over the time spent.
The time that the missing reports take is treated as a sum of independent waits whose mean is itself only estimated
from the reports so far. So its variance has two parts: that of the waits to come, and that of the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import sqrt
from typing import Any

from app.core.chart import State
from app.core.log import format_instant
from app.core.plan import list_planned
from app.core.position import Position
from app.service.words import say_number, say_span

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
