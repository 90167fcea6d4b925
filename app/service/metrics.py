"""Metrics: two instruments that use cases feed, and the positions of the charts, read for each scrape.

Under gunicorn the instruments are kept in files that all workers share (see gunicorn.conf.py). Any worker answers a
scrape with the sum over all workers, and what a killed worker has counted is not lost.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge, Histogram

from app import store
from app.db import snapshot
from app.service.context import Service

REGISTRY = CollectorRegistry()
# In seconds: from a request that waits for no lock to a request that gives up waiting for one (see app/db).
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

LOCK_WAIT = Histogram(
    "stateservice_lock_wait_seconds",
    "From asking for a transaction of PUTs to holding the row of their chart: pool, BEGIN and row lock.",
    buckets=BUCKETS,
    registry=REGISTRY,
)
LAST_SWEEP = Gauge(
    "stateservice_sweep_timestamp_seconds",
    "When a sweeper of this server last finished a pass over the charts whose clock was due.",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)


@dataclass(frozen=True, slots=True)
class Gauges:
    """The charts at one moment, `now`. `charts` holds at most the number that was asked for; `total` counts all.

    `lag` is how overdue the most overdue clock transition is, in seconds.
    """

    charts: list[store.overview.ChartGauge]
    total: int
    lag: float
    now: datetime


_is_counting = True


def stop_counting() -> None:
    """Count nothing in this process: there is no room for its counters (see app/metric_files.py)."""
    global _is_counting
    _is_counting = False


def is_counting() -> bool:
    """True if this process counts."""
    return _is_counting


def lock_is_held(asked_at: float) -> None:
    """Count how long a transaction of PUTs has waited for its chart's row.

    It began to ask for the row at `asked_at`, a value of `time.perf_counter()`.
    """
    if _is_counting:
        LOCK_WAIT.observe(time.perf_counter() - asked_at)


def sweep_is_done() -> None:
    """Keep the present time as the end of the sweeper's last pass."""
    if _is_counting:
        LAST_SWEEP.set_to_current_time()


def read_gauges(service: Service, limit: int) -> Gauges:
    """Read up to `limit` charts in one snapshot. Raises DatabaseUnavailableError."""
    with snapshot(service.database) as connection:
        now = service.now(store.charts.read_now(connection))
        due = store.overview.find_oldest_due(connection)
        return Gauges(
            charts=store.overview.list_chart_gauges(connection, limit),
            total=store.overview.count_charts(connection),
            lag=0.0 if due is None else max((now - due).total_seconds(), 0.0),
            now=now,
        )
