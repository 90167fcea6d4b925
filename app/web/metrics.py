"""`/metrics`: the Prometheus text of every worker's instruments, and of where the charts stand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cache

from flask import Blueprint, Response, current_app
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.config import Config
from app.core.errors import DatabaseUnavailableError
from app.service.context import Service
from app.service.metrics import BUCKETS, REGISTRY, Gauges, read_gauges
from app.service.tokens import Holder, Role
from app.web.current import current_holder, current_service

blueprint = Blueprint("metrics", __name__)

# Set by gunicorn.conf.py: the folder of the files that all workers count in.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# A caller may send any word for a method and any path; neither may make a new series.
METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"})
OTHER = "other"

REQUESTS = Counter(
    "stateservice_requests",
    "Requests answered, by method, route and status.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
PUT_SECONDS = Histogram(
    "stateservice_put_seconds",
    "From the arrival of a PUT on a state to its answer.",
    buckets=BUCKETS,
    registry=REGISTRY,
)
PUTS = frozenset({"/state", "/charts/<chart:name>/state"})


def count_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count a request that is about to be answered; `route` is the rule that its path matched."""
    _find_counter(method if method in METHODS else OTHER, route or OTHER, status).inc()
    if method == "PUT" and route in PUTS:
        PUT_SECONDS.observe(seconds)


@cache
def _find_counter(method: str, route: str, status: int) -> Counter:
    return REQUESTS.labels(method, route, status)


@blueprint.get("/metrics", provide_automatic_options=False)
def get_metrics() -> Response:
    """Everything there is to scrape; charts only as far as the caller's token reaches."""
    config: Config = current_app.extensions["stateservice.config"]
    charts = _Charts(current_service(), config.metrics_charts, current_holder())
    text = generate_latest(_find_instruments()) + generate_latest(charts)
    return Response(text, content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _find_instruments() -> Collector:
    folder = os.environ.get(FOLDER)
    return REGISTRY if folder is None else MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]  # the library's


class _Charts(Collector):
    """The gauges that are read at every scrape. With the database away, what is left says so."""

    def __init__(self, service: Service, limit: int, holder: Holder) -> None:
        self._service = service
        self._limit = limit
        self._holder = holder

    def collect(self) -> Iterator[Metric]:
        yield _gauge("waiters", "Requests that wait (wait=), in all workers.", self._service.hub.waiters)
        try:
            gauges = read_gauges(self._service, self._limit)
        except DatabaseUnavailableError:
            yield _gauge("database_up", "1 where this scrape could read the database.", 0)
            return
        yield _gauge("database_up", "1 where this scrape could read the database.", 1)
        yield _gauge("sweeper_lag_seconds", "How overdue the most overdue clock transition is.", gauges.lag)
        yield _gauge("charts", "Charts that there are.", gauges.total)
        yield _gauge("charts_left_out", "Charts beyond the limit, without series.", gauges.total - len(gauges.charts))
        yield from self._collect_charts(gauges)

    def _collect_charts(self, gauges: Gauges) -> Iterator[Metric]:
        shown = [gauge for gauge in gauges.charts if self._holder.may(Role.READER, gauge.chart)]
        yield _family("state", "The current state: 1.", (((one.chart, one.state), 1) for one in shown), ["state"])
        yield _family("final", "1 where the chart has ended.", (((one.chart,), one.is_final) for one in shown))
        yield _family(
            "state_seconds",
            "How long the chart has been in its state.",
            (((one.chart,), max((gauges.now - one.entered_at).total_seconds(), 0)) for one in shown),
        )
        yield _family(
            "paused", "1 where the chart is paused.", (((one.chart,), one.paused_at is not None) for one in shown)
        )
        yield _family(
            "counted", "The value of the state's first attribute.", (((one.chart,), one.counted) for one in shown)
        )
        yield _family("needed", "The value at which it moves the chart.", (((one.chart,), one.needed) for one in shown))
        yield _family("failed", "The value of `failed`.", (((one.chart,), one.failed) for one in shown))


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stateservice_{name}", meaning, value=value)


def _family(
    name: str, meaning: str, samples: Iterable[tuple[tuple[str, ...], float | None]], labels: Iterable[str] = ()
) -> Metric:
    family = GaugeMetricFamily(f"stateservice_chart_{name}", meaning, labels=["chart", *labels])
    for values, value in samples:
        if value is not None:
            family.add_metric(values, float(value))
    return family
