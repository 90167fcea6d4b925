"""What an operator's tools read: health checks, the API's description, metrics, and one log line for each request."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from flask import Blueprint, Flask, Response, current_app, jsonify, request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.chart_file.schema import json_schema
from app.config import Config
from app.core.errors import DatabaseUnavailableError
from app.logs import JsonMessage
from app.metric_files import FOLDER
from app.service.context import Service
from app.service.metrics import BUCKETS, REGISTRY, Condition, Gauges, Roster, counting, is_counting, read_gauges
from app.service.put import Answer
from app.service.tokens import Holder, Role
from app.service.upkeep import check_ready
from app.web.request import (
    MACHINE_LENGTH,
    NAME_LENGTH,
    Request,
    current_holder,
    current_request,
    current_service,
)

blueprint = Blueprint("observe", __name__)


@blueprint.get("/healthz", provide_automatic_options=False)
def get_healthz() -> Response:
    """200 while the process answers at all."""
    return jsonify({"alive": True})


@blueprint.get("/readyz", provide_automatic_options=False)
def get_readyz() -> Response:
    """200 if the database is reachable, migrated and writable. Raises DatabaseUnavailableError, which is 503."""
    check_ready(current_service())
    return jsonify({"ready": True})


SOURCE = Path(__file__).with_name("openapi.yaml")


@blueprint.get("/openapi.json", provide_automatic_options=False)
def get_openapi() -> Response:
    """The OpenAPI document, as JSON."""
    return Response(read_document(), mimetype="application/json")


@cache
def read_document() -> str:
    """The OpenAPI document as JSON, with the aliases of the YAML file written out."""
    # libyaml is ten times as fast; a PyYAML that was built without it reads the same.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return json.dumps(yaml.load(SOURCE.read_text(), Loader=loader), ensure_ascii=False)


@blueprint.get("/chart.schema.json", provide_automatic_options=False)
def get_chart_schema() -> Response:
    """The JSON Schema of chart files, for editors."""
    return Response(_write_schema(), mimetype="application/schema+json")


@cache
def _write_schema() -> str:
    return json.dumps(json_schema(), indent=2) + "\n"


# A client may send any method and any path. Only these methods and our own routes get series; the rest is `other`.
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
# The routes whose PUTs are timed.
PUT_ROUTES = frozenset({"/state", "/charts/<chart:name>/state"})


def count_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count a request that is about to be answered after `seconds`; `route` is the rule that its path matched."""
    if not is_counting():
        return
    with counting():
        _find_counter(method if method in METHODS else OTHER, route or OTHER, status).inc()
        if method == "PUT" and route in PUT_ROUTES:
            PUT_SECONDS.observe(seconds)


@cache
def _find_counter(method: str, route: str, status: int) -> Counter:
    return REQUESTS.labels(method, route, status)


@blueprint.get("/metrics", provide_automatic_options=False)
def get_metrics() -> Response:
    """All metrics, as Prometheus text; of charts, those that the caller's token covers."""
    config: Config = current_app.extensions["stateservice.config"]
    charts = _ChartGauges(current_service(), config.metrics_charts, current_holder())
    text = generate_latest(_find_instruments()) + generate_latest(charts)
    return Response(text, content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _find_instruments() -> Collector:
    folder = os.environ.get(FOLDER)
    # The folder may be gone: TMPDIR was emptied.
    return REGISTRY if folder is None or not os.path.isdir(folder) else MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]  # the library's


class _ChartGauges(Collector):
    """The gauges that each scrape reads from the database; `database_up` is 0 if it cannot."""

    def __init__(self, service: Service, limit: int, holder: Holder) -> None:
        self._service = service
        self._limit = limit
        self._holder = holder

    def collect(self) -> Iterator[Metric]:
        yield _gauge("waiters", "Requests that wait (wait=), in all workers.", self._service.hub.waiters)
        try:
            gauges = read_gauges(self._service, self._limit)
        except DatabaseUnavailableError:
            yield _gauge("database_up", "1 if this scrape could read the database.", 0)
            return
        yield _gauge("database_up", "1 if this scrape could read the database.", 1)
        yield _gauge("sweeper_lag_seconds", "How overdue the most overdue clock transition is.", gauges.lag)
        yield _gauge("clock_ahead_seconds", "How far the time is ahead of a clock that was set back.", gauges.ahead)
        yield _gauge("charts", "How many charts there are.", gauges.total)
        left_out = gauges.total - len(gauges.charts)
        yield _gauge("charts_left_out", "Charts beyond the limit, which have no series.", left_out)
        yield from self._collect_charts(gauges)
        yield from _collect_rosters(gauges.rosters)

    def _collect_charts(self, gauges: Gauges) -> Iterator[Metric]:
        shown = [gauge for gauge in gauges.charts if self._holder.may(Role.READER, gauge.chart)]
        yield _family("state", "The current state: 1.", (((one.chart, one.state), 1) for one in shown), ["state"])
        yield _family("final", "1 if the chart has ended.", (((one.chart,), one.is_final) for one in shown))
        yield _family(
            "state_seconds",
            "How long the chart has been in its state.",
            (((one.chart,), max((gauges.now - one.entered_at).total_seconds(), 0)) for one in shown),
        )
        yield _family(
            "paused", "1 if the chart is paused.", (((one.chart,), one.paused_at is not None) for one in shown)
        )
        yield _family(
            "counted", "The value of the state's first attribute.", (((one.chart,), one.counted) for one in shown)
        )
        yield _family("needed", "The value that moves the chart.", (((one.chart,), one.needed) for one in shown))
        yield _family("failed", "The value of `failed`.", (((one.chart,), one.failed) for one in shown))
        yield from _collect_conditions([one for one in gauges.conditions if self._holder.may(Role.READER, one.chart)])


def _collect_rosters(rosters: Sequence[Roster]) -> Iterator[Metric]:
    for name, meaning, values in (
        ("machines", "The machines of the roster's newest version.", [one.machines for one in rosters]),
        ("version", "The roster's newest version.", [one.version for one in rosters]),
        (
            "imported_timestamp_seconds",
            "When the roster's newest version was imported.",
            [one.imported_at.timestamp() for one in rosters],
        ),
    ):
        family = GaugeMetricFamily(f"stateservice_roster_{name}", meaning, labels=["roster"])
        for one, value in zip(rosters, values, strict=True):
            family.add_metric([one.name], float(value))
        yield family


def _collect_conditions(shown: Sequence[Condition]) -> Iterator[Metric]:
    meaning = "The chart's condition (failed, backing_out, at_the_edge, stuck, waiting, paused, running, ended): 1."
    yield _family("condition", meaning, (((one.chart, one.condition), 1) for one in shown), ["condition"])
    yield _family(
        "leases_expired",
        "Slots that are held although their lease ran out.",
        (((one.chart,), one.expired) for one in shown),
    )
    yield _family(
        "deadline_seconds",
        "How long it is until the clock takes the chart off its main path; none while it is paused.",
        (((one.chart,), one.left) for one in shown),
    )
    yield _family(
        "forecast_seconds",
        "How long it takes until the state is left as planned, at the present pace.",
        (((one.chart, name), value) for one in shown for name, value in (("0.5", one.p50), ("0.9", one.p90))),
        ["quantile"],
    )
    yield _family(
        "reports_per_hour",
        "The pace of the state that is current.",
        (((one.chart,), one.per_hour) for one in shown),
    )
    yield _family(
        "window_open",
        "1 if the state's window is open; none for a state without one.",
        (((one.chart,), one.is_open) for one in shown),
    )
    yield _family(
        "awaits_approval", "1 if people decide on the state.", (((one.chart,), one.awaits_approval) for one in shown)
    )


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


logger = logging.getLogger("stateservice.access")
# The header by which a caller finds its request in the log.
REQUEST_ID = "X-Request-Id"
# These answers carry no id: clients search them for "200", which an id may contain.
_ANSWERS = frozenset({"state", "reached", "slot", "turn"})
# Characters of a reason that are logged.
REASON_LENGTH = 500


def register(app: Flask) -> None:
    """Have every request timed, counted and logged. Call it before other modules add their request hooks."""
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    asked = current_request()
    asked.chart = (request.view_args or {}).get("name")
    asked.rule = None if request.url_rule is None else request.url_rule.rule


def _end(response: Response) -> Response:
    asked = current_request()
    if may_carry_id(request.path):
        response.headers[REQUEST_ID] = asked.request_id
    config: Config = current_app.extensions["stateservice.config"]
    finish(config, asked, response.status_code)
    return response


def finish(config: Config, asked: Request, status: int) -> None:
    """Count and log a request that is about to be answered."""
    seconds = time.perf_counter() - asked.started
    try:
        count_request(asked.method, asked.rule, status, seconds)
    except Exception:
        # The request may be committed: its answer must not depend on a counter.
        logger.exception("a request could not be counted")
    if config.access_log and logger.isEnabledFor(logging.INFO):
        message = JsonMessage(describe(asked, status, seconds))
        # Not logger.info, which looks for its caller on the stack.
        logger.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, message, (), None))


def may_carry_id(path: str) -> bool:
    """True for the paths under /charts whose answers clients do not search for status digits."""
    if not path.startswith("/charts"):
        return False
    parts = path.rstrip("/").split("/")
    return parts[1] == "charts" and not (len(parts) == 4 and parts[3] in _ANSWERS)


def describe(asked: Request, status: int, seconds: float) -> dict[str, Any]:
    """The fields of a request's log line."""
    answer, holder = asked.answer, asked.holder
    return {
        "request_id": asked.request_id,
        "method": asked.method[:16],
        "path": _decode(asked.path)[:MACHINE_LENGTH],
        "chart": answer.chart if answer is not None else asked.chart,
        "state": _first(asked.parameters, "state", NAME_LENGTH),
        "machine": _first(asked.parameters, "machine", MACHINE_LENGTH) or _find_machine_header(asked),
        "actor": None if holder is None else holder.name,
        "remote_addr": asked.remote_addr or None,
        "outcome": find_outcome(answer, status),
        "reason": answer.reason if answer is not None else asked.problem and asked.problem[:REASON_LENGTH],
        "status": status,
        "milliseconds": round(seconds * 1000, 3),
    }


def find_outcome(answer: Answer | None, status: int) -> str:
    """The result of a request in one word: yes or no if a machine asked, else done, refused or failed."""
    if answer is not None:
        return "yes" if answer.is_yes else "no"
    if status < 400:
        return "done"
    return "refused" if status < 500 else "failed"


def _find_machine_header(asked: Request) -> str | None:
    sent = asked.headers.get("x-machine")
    return None if sent is None else _decode(sent)[:MACHINE_LENGTH]


def _decode(text: str) -> str:
    # WSGI hands text over as Latin-1. Bytes that are not UTF-8 are logged as replacement characters.
    return text.encode("latin-1").decode(errors="replace")


def _first(query: dict[str, list[str]], name: str, limit: int) -> str | None:
    values = query.get(name)
    return values[0][:limit] if values else None
