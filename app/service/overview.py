"""Every chart at a glance, the most urgent first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from app import store
from app.db import snapshot
from app.service.condition import Bearing, Condition, judge
from app.service.context import Service
from app.service.status import Status, describe
from app.store import overview

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
        now = service.now(store.read_now(connection))
        values = store.list_values(connection)
        samples = overview.list_samples(connection)
        found = []
        for row in store.list_charts(connection):
            chart = service.definitions.get(connection, row)
            position = store.build_position(row, values.get(row.id, {}))
            bars = bars_of(samples.get(row.name, ()), now)
            found.append(Glance(describe(chart, row, position, now), judge(chart, row, position, now), bars))
        return found


def bars_of(samples: Sequence[overview.Sample], now: datetime) -> tuple[float, ...]:
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
