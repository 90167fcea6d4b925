"""What an operator counts: instruments that the use cases feed, and a look at the charts for a scrape.

Under gunicorn the instruments live in files that all workers share (see gunicorn.conf.py), so that whichever worker
is scraped gives the sum; one that was killed has lost nothing that it had counted.
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
# From a request that nobody else's touches to one that ran into the lock's time limit (app/db/).
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

LOCK_WAIT = Histogram(
    "stateservice_lock_wait_seconds",
    "From the wish for a transaction of PUTs to holding their chart's row: the pool, BEGIN and the row's lock.",
    buckets=BUCKETS,
    registry=REGISTRY,
)
LAST_SWEEP = Gauge(
    "stateservice_sweep_timestamp_seconds",
    "When a sweeper of this server last finished looking for clock guards that are due.",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)


@dataclass(frozen=True, slots=True)
class Gauges:
    """Where the charts stand at one moment; `charts` is cut to the number asked for, `total` is not.

    `lag` is the seconds by which the clock transition that is most overdue is overdue.
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
    """Note that a transaction of PUTs holds its chart's row, which it began to ask for at `asked_at` (perf_counter)."""
    if _is_counting:
        LOCK_WAIT.observe(time.perf_counter() - asked_at)


def sweep_is_done() -> None:
    """Note that the sweeper has finished a pass."""
    if _is_counting:
        LAST_SWEEP.set_to_current_time()


def read_gauges(service: Service, limit: int) -> Gauges:
    """Read up to `limit` charts, in one snapshot. Raises DatabaseUnavailableError."""
    with snapshot(service.database) as connection:
        now = service.now(store.charts.read_now(connection))
        due = store.overview.find_oldest_due(connection)
        lag = 0.0 if due is None else max((now - due).total_seconds(), 0.0)
        return Gauges(
            store.overview.list_chart_gauges(connection, limit), store.overview.count_charts(connection), lag, now
        )
