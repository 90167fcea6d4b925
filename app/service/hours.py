"""When charts are open: what machines and people are told of it, and the labels that name machines' own time zones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app import store
from app.core.chart import Chart
from app.core.log import format_instant
from app.core.position import Reason
from app.core.window import NO_LABELS, Hours, Labels, find_fitting, judge
from app.db import Connection
from app.service.words import say_opening

# The reasons of a no that a window gives.
WINDOW_REASONS = frozenset({Reason.WINDOW, Reason.WINDOW_SHORT})


@dataclass(frozen=True, slots=True)
class Closed:
    """When a machine that was refused by a window may ask again: `seconds` from now, at `opens_at`.

    Both are None if it does not open, or not within the horizon. `says` is for people.
    """

    opens_at: datetime | None
    seconds: float | None
    says: str

    def as_json(self) -> dict[str, Any]:
        """The members that an answer has beside the others."""
        return {"opens_at": None if self.opens_at is None else format_instant(self.opens_at), "opens": self.says}


def describe_closed(
    chart: Chart, state: str, hours: Hours, now: datetime, *, reason: Reason, labels: Labels = NO_LABELS
) -> Closed | None:
    """Return when the window opens that gave a no for `reason`; None if the reason is another."""
    schedule = chart.find_schedule(state) if reason in WINDOW_REASONS else None
    if schedule is None:
        return None
    opening = judge(schedule, hours, now, labels)
    opens_at, says = opening.opens_at, say_opening(opening, now)
    rule = chart.states[state].slots
    if reason is Reason.WINDOW_SHORT and rule is not None and rule.lease is not None:
        opens_at = find_fitting(schedule, hours, now, rule.lease, labels)
        says = f"a lease of {rule.lease_written} does not fit: it {says}"
    return Closed(opens_at, None if opens_at is None else (opens_at - now).total_seconds(), says)


def read_labels(
    connection: Connection, row: store.charts.ChartRow, chart: Chart, machines: Collection[str]
) -> Mapping[str, Labels]:
    """Return the labels of `machines` that name time zones, by machine; of nobody if no window of the state asks."""
    schedule = chart.find_schedule(row.state)
    if schedule is None or not schedule.needs_labels:
        return {}
    # Labels come with rosters; a chart without one has machines without labels.
    return {}
