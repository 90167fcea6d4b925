"""What a PUT costs as the chart, the log and the number of charts grow; each beside the smallest of its kind."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from bench.charts import STATE, chart_text
from bench.databases import DATABASES, Databases
from bench.fill import add_chart, add_copies, add_log_rows
from bench.rounds import HOT_PATH, TITLES, Ask, Options, Samples, rates, take_turns, wrk
from bench.servers import service, services
from bench.table import Row

GOAL = 0.90
WARM_SECONDS = 5


def measure_states(found: Databases, options: Options) -> list[Row]:
    """A chart of 3 states beside one of 10,000."""
    with services(found) as servers:
        asks = {}
        for which, server in servers.items():
            server.import_chart("large", chart_text(options.states))
            large = f"/charts/large/state?state={STATE}"
            # Each worker reads the definition once.
            wrk(server.port, "GET", large)(WARM_SECONDS)
            asks[f"{which} large"] = wrk(server.port, "PUT", large)
            asks[f"{which} small"] = wrk(server.port, "PUT", HOT_PATH)
        samples = take_turns(asks, options)
    return _rows(f"PUT, a chart of {options.states:,} states", "3 states", samples)


def measure_log(found: Databases, options: Options) -> list[Row]:
    """A chart with an empty log beside one with 10 million rows."""
    samples = _measure_filled(found, options, "log")
    return _rows(f"PUT, {options.log_rows:,} rows of the chart in the log", "an empty log", samples)


def measure_many(found: Databases, options: Options) -> list[Row]:
    """One chart alone beside one among 100,000."""
    samples = _measure_filled(found, options, "charts")
    return _rows(f"PUT, one chart of {options.charts:,}", "the only chart", samples)


def _measure_filled(found: Databases, options: Options, what: str) -> Samples:
    urls = {f"{which} {size}": found.new(which) for which in DATABASES for size in ("large", "small")}
    for url in urls.values():
        add_chart(url)
    fill = partial(add_log_rows, count=options.log_rows) if what == "log" else partial(add_copies, count=options.charts)
    started = time.monotonic()
    with ThreadPoolExecutor(len(DATABASES)) as pool:
        list(pool.map(fill, [urls[f"{which} large"] for which in DATABASES]))
    print(f"{what}: filled in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    with ExitStack() as stack:
        asks: dict[str, Ask] = {}
        for name, url in urls.items():
            stack.callback(found.drop, url)
            server = stack.enter_context(service(url, found.folder))
            asks[name] = wrk(server.port, "PUT", HOT_PATH)
        return take_turns(asks, options)


def _rows(what: str, smallest: str, samples: Samples) -> list[Row]:
    return [
        Row(
            f"{what}, {TITLES[which]}, 16 connections",
            "/s",
            rates(samples[f"{which} large"]),
            smallest,
            rates(samples[f"{which} small"]),
            GOAL,
        )
        for which in DATABASES
    ]
