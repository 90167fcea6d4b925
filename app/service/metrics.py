"""Metrics: two instruments that use cases feed, and the positions of the charts, read for each scrape.

Under gunicorn the instruments are kept in files that all workers share (see gunicorn.conf.py). Any worker answers a
scrape with the sum over all workers, and what a killed worker has counted is not lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app import store
from app.db import Connection, snapshot
from app.db.sqlite import find_clock
from app.service.condition import find_timing, judge
from app.service.context import Service, list_positions
from app.service.forecast import find_forecast
from app.service.status import find_window

logger = logging.getLogger("stateservice.metrics")
REGISTRY = CollectorRegistry()
# In seconds: from a request that waits for no lock to a request that gives up waiting for one (see app/db).
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

LOCK_WAIT = Histogram(
    "stateservice_lock_wait_seconds",
    "From asking for a transaction of PUTs to holding the row of their chart: pool, BEGIN and row lock.",
    buckets=BUCKETS,
    registry=REGISTRY,
)
DELIVERIES = Counter(
    "stateservice_deliveries",
    "Webhooks that were sent, by what came of them: delivered or failed.",
    ["subscription", "outcome"],
    registry=REGISTRY,
)
LAST_SWEEP = Gauge(
    "stateservice_sweep_timestamp_seconds",
    "When a sweeper of this server last finished a pass over the charts whose clock was due.",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What a scrape says of a chart's condition.

    `left` is the time until the deadline and `p50` the time until the state is left as planned, each in seconds and
    None if there is none; `expired` is how many slots are held although their lease ran out. `is_open` says whether
    the state's window is open; None if the state has none, or one that each machine has in its own time zone.
    """

    chart: str
    condition: str
    expired: int
    left: float | None
    p50: float | None
    p90: float | None
    per_hour: float | None
    is_open: bool | None
    awaits_approval: bool


@dataclass(frozen=True, slots=True)
class Roster:
    """What a scrape says of a roster: its newest version, how many machines that has, and when it was imported."""

    name: str
    version: int
    machines: int
    imported_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """The charts at one moment, `now`. `charts` holds at most the number that was asked for; `total` counts all.

    `conditions` are those of the same charts. `lag` is how overdue the most overdue clock transition is, and
    `ahead` how far the time that the service goes by is ahead of the machine's clock, both in seconds.
    """

    charts: list[store.overview.ChartGauge]
    conditions: list[Condition]
    rosters: list[Roster]
    total: int
    lag: float
    ahead: float
    now: datetime


_is_counting = True


def stop_counting() -> None:
    """Count nothing in this process: there is no room for its counters (see app/metric_files.py)."""
    global _is_counting
    _is_counting = False


def is_counting() -> bool:
    """True if this process counts."""
    return _is_counting


@contextmanager
def counting() -> Iterator[None]:
    """Use an instrument inside this block. If its file is gone, this process counts no longer, and its work goes on."""
    try:
        yield
    except OSError as error:
        stop_counting()
        logger.warning("the files that requests are counted in are gone (%s): this worker counts none", error)


def lock_is_held(asked_at: float) -> None:
    """Count how long a transaction of PUTs has waited for its chart's row.

    It began to ask for the row at `asked_at`, a value of `time.perf_counter()`.
    """
    if _is_counting:
        with counting():
            LOCK_WAIT.observe(time.perf_counter() - asked_at)


def delivery_is_done(subscription: str, *, is_delivered: bool) -> None:
    """Count a webhook that was sent."""
    if _is_counting:
        with counting():
            DELIVERIES.labels(subscription, "delivered" if is_delivered else "failed").inc()


def sweep_is_done() -> None:
    """Keep the present time as the end of the sweeper's last pass."""
    if _is_counting:
        with counting():
            LAST_SWEEP.set_to_current_time()


def read_gauges(service: Service, limit: int) -> Gauges:
    """Read up to `limit` charts in one snapshot. Raises DatabaseUnavailableError."""
    with snapshot(service.database) as connection:
        now = service.read_now(connection)
        due = store.overview.find_oldest_due(connection)
        charts = store.overview.list_chart_gauges(connection, limit)
        return Gauges(
            charts=charts,
            conditions=_list_conditions(service, connection, {gauge.chart for gauge in charts}),
            rosters=[
                Roster(roster.name, newest.version, newest.machines, newest.imported_at)
                for roster, newest in store.rosters.list_rosters(connection)[:limit]
            ],
            total=store.overview.count_charts(connection),
            lag=0.0 if due is None else max((now - due).total_seconds(), 0.0),
            ahead=find_clock(service.database.engine).ahead.total_seconds(),
            now=now,
        )


def _list_conditions(service: Service, connection: Connection, names: Collection[str]) -> list[Condition]:
    positions, now = list_positions(service, connection, names)
    found = []
    for row, chart, position in positions:
        verdict = judge(chart, row, position, now)
        left = find_timing(chart, position, now).left
        state = chart.state_at(position)
        forecast = find_forecast(state, position, now)
        window = find_window(chart, position, now)
        found.append(
            Condition(
                chart=row.name,
                condition=str(verdict.condition),
                expired=sum(slot.expired_at is not None for slot in position.slots.values()),
                left=None if left is None or position.is_paused else left.total_seconds(),
                p50=None if forecast is None else (forecast.p50 - now).total_seconds(),
                p90=None if forecast is None else (forecast.p90 - now).total_seconds(),
                per_hour=None if forecast is None else forecast.per_hour,
                is_open=None if window is None else window.is_open,
                awaits_approval=state.approvers is not None,
            )
        )
    return found
