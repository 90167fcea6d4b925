"""Where the time of one GET and one PUT goes, layer by layer: `python -m bench.profile`.

Ever larger parts are called in a loop, in one thread, on one chart: the bare statements on the driver, the same inside
the service's own transaction, the use case. What a layer costs is the difference to the one below. Then 16 callers at
once ask what a worker runs on its event loop, and wrk asks the whole under gunicorn. CPU is that of the process; that
of PostgreSQL is read from its processes.
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import os
import pstats
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import psutil

from app.config import Config
from app.db.engine import normalize_url
from app.logs import BatchHandler, JsonFormatter
from app.wiring import create_app, service_of
from bench.charts import HOT, STATE, chart_text
from bench.databases import DATABASES, Databases, databases
from bench.layers import CALLERS, PATH, AtDoor, Cost, layers_in_process
from bench.servers import empty_view, service
from bench.wrk import run_wrk


def cpu_seconds(pids: list[int]) -> float:
    """The CPU that these processes have used."""
    used = 0.0
    for pid in pids:
        with suppress(psutil.NoSuchProcess):  # a vacuum that is done
            times = psutil.Process(pid).cpu_times()
            used += times.user + times.system
    return used


def family(pid: int) -> list[int]:
    """A process and its children."""
    return [pid, *(child.pid for child in psutil.Process(pid).children())]


def ask_gunicorn(
    port: int, pids: list[int], method: str, path: str, database_pids: list[int], seconds: int
) -> dict[str, float]:
    """CPU a request, in microseconds, of gunicorn's processes and of the database's, at 16 connections."""
    run_wrk(port, method, path, connections=CALLERS, seconds=1)
    own, others = cpu_seconds(pids), cpu_seconds(database_pids)
    sample = run_wrk(port, method, path, connections=CALLERS, seconds=seconds)
    each = 1e6 / sample.requests
    return {
        "gunicorn": (cpu_seconds(pids) - own) * each,
        "database": (cpu_seconds(database_pids) - others) * each,
        "rate": sample.rate,
    }


def postgresql_pids(url: str) -> list[int]:
    """PostgreSQL's processes, where that is what is behind `url`."""
    folder = normalize_url(url).query.get("host")
    if folder is None:
        return []
    return family(int(Path(str(folder), "postmaster.pid").read_text().split()[0]))


def under_gunicorn(found: Databases, seconds: int) -> dict[str, dict[str, float]]:
    """What a request costs when everything is in its place."""
    results = {}
    with empty_view(found.folder) as peer:
        results["empty"] = ask_gunicorn(peer.port, family(peer.pid), "GET", "/", [], seconds)
    for which in DATABASES:
        with service(found.new(which), found.folder) as server:
            server.import_chart(HOT, chart_text())
            for method in ("GET", "PUT"):
                pids, others = family(server.process.pid), postgresql_pids(server.database_url)
                path = f"{PATH}?state={STATE}"
                results[f"{method} {which}"] = ask_gunicorn(server.port, pids, method, path, others, seconds)
    return results


def print_layers(costs: dict[str, dict[str, Cost]], served: dict[str, dict[str, float]]) -> None:
    """Print a Markdown table: microseconds of CPU / of wall, a column for each method and database."""
    columns = list(costs)
    print("| layer, µs of CPU / of wall a request | " + " | ".join(columns) + " |")
    print("|---|" + "--:|" * len(columns))
    lines: list[tuple[str, Callable[[dict[str, Cost]], Cost]]] = [
        ("service, decision, store", lambda of: of["service"].minus(of["core"])),
        ("SQLAlchemy: pool, transaction", lambda of: of["core"].minus(of["driver"])),
        ("driver, and the database's work", lambda of: of["fast"]),
        ("waiting for the disk", lambda of: of["driver"].minus(of["fast"])),
        ("**the use case, one request alone**", lambda of: of["service"]),
        (f"on the event loop, {CALLERS} requests at once", lambda of: of["loop"]),
        (f"**the door in all, {CALLERS} requests at once**", lambda of: of["door"]),
        ("beside it: an empty Flask view", lambda of: of["empty"]),
    ]
    for name, cost in lines:
        cells = [cost(of) for of in costs.values()]
        print(f"| {name} | " + " | ".join(f"{one.cpu:.0f} / {one.wall:.0f}" for one in cells) + " |")
    for title, key in (
        ("CPU under gunicorn", "gunicorn"),
        ("CPU of PostgreSQL", "database"),
        ("requests a second", "rate"),
    ):
        print(f"| {title}, 16 connections | " + " | ".join(f"{served[name][key]:.0f}" for name in columns) + " |")
    empty_cost, rate = served["empty"]["gunicorn"], served["empty"]["rate"]
    print(f"\nThe empty view under gunicorn: {empty_cost:.0f} µs of CPU, {rate:.0f} requests/s.")


def print_functions(url: str, count: int, lines: int) -> None:
    """Print where the CPU of a GET and of a PUT goes on the event loop, by function."""
    app = create_app(Config(database_url=url, auth="open"))
    for method in ("GET", "PUT"):
        profiler = cProfile.Profile()
        profiler.enable()
        AtDoor(app, method).measure(count)
        profiler.disable()
        print(f"{method} on {url.partition(':')[0]}, {count} times in each of five rounds")
        pstats.Stats(profiler).sort_stats("tottime").print_stats(lines)
    service_of(app).database.engine.dispose()


def log_to(stream: TextIO) -> None:
    """Have requests in this process write their lines as those of a server do, to `stream`."""
    handler = BatchHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("stateservice.access")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers[:] = [handler]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="calls a round (default: 1000)")
    parser.add_argument("--seconds", type=int, default=4, metavar="S", help="of each run of wrk (default: 4)")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="also the N functions that cost most")
    options = parser.parse_args()
    costs: dict[str, dict[str, Cost]] = {}
    with Path(os.devnull).open("w") as nowhere, databases() as found:
        log_to(nowhere)
        for which in DATABASES:
            url = found.new(which)
            costs |= layers_in_process(url, which, options.count)
            if options.functions:
                print_functions(url, options.count, options.functions)
        print_layers(costs, under_gunicorn(found, options.seconds))


if __name__ == "__main__":
    main()
