"""What a request costs: GET and PUT beside an empty view and pgbench."""

from __future__ import annotations

from contextlib import ExitStack

from bench.charts import HOT, STATE
from bench.databases import DATABASES, Databases
from bench.fill import add_chart, add_copies
from bench.pgbench import run_pgbench
from bench.rounds import CONNECTIONS, HOT_PATH, TITLES, Ask, Options, Samples, rates, take_turns, wrk
from bench.servers import empty_view, service, services
from bench.table import Row
from tests.support.servers import Server

CHARTS = 1000
WARM_SECONDS = 4
MACHINES = 5000
# A chart of the thousand, another one each time; the empty view is asked by the same script.
RANDOM_PATH = f"/charts/c{{chart}}/state?state={STATE}"
EMPTY = "an empty Flask view"


def measure_get(found: Databases, options: Options) -> list[Row]:
    """GET state, beside an empty view."""
    goals = {"sqlite": 0.80, "postgresql": 0.60}
    with services(found) as servers, empty_view(found.folder) as empty:
        asks = {("empty", count): wrk(empty.port, "GET", "/", count) for count in CONNECTIONS}
        asks |= _asks(servers, "GET", HOT_PATH)
        return _beside_empty("GET state", _turns(asks, options), goals)


def measure_charts(found: Databases, options: Options) -> list[Row]:
    """PUT on a random one of 1,000 charts, beside an empty view."""
    goals = {"sqlite": 0.40, "postgresql": 0.35}
    with ExitStack() as stack:
        servers = {}
        for which in DATABASES:
            url = found.new(which)
            stack.callback(found.drop, url)
            add_chart(url)
            add_copies(url, CHARTS)
            servers[which] = stack.enter_context(service(url, found.folder))
            # Until each worker has read nearly every definition.
            wrk(servers[which].port, "GET", RANDOM_PATH, charts=CHARTS)(WARM_SECONDS)
        empty = stack.enter_context(empty_view(found.folder))
        path = "/?chart={chart}"
        asks = {("empty", count): wrk(empty.port, "PUT", path, count, charts=CHARTS) for count in CONNECTIONS}
        asks |= _asks(servers, "PUT", RANDOM_PATH, CHARTS)
        return _beside_empty(f"PUT, {CHARTS:,} charts", _turns(asks, options), goals)


def _asks(servers: dict[str, Server], method: str, path: str, charts: int = 1) -> dict[tuple[str, int], Ask]:
    return {
        (which, count): wrk(server.port, method, path, count, charts=charts)
        for count in CONNECTIONS
        for which, server in servers.items()
    }


def _turns(asks: dict[tuple[str, int], Ask], options: Options) -> dict[tuple[str, int], list[float]]:
    named = {f"{who} {count}": ask for (who, count), ask in asks.items()}
    samples = take_turns(named, options)
    return {key: rates(samples[f"{key[0]} {key[1]}"]) for key in asks}


def _beside_empty(what: str, found: dict[tuple[str, int], list[float]], goals: dict[str, float]) -> list[Row]:
    return [
        Row(
            f"{what}, {TITLES[which]}, {count} connections",
            "/s",
            found[which, count],
            EMPTY,
            found["empty", count],
            goals[which],
        )
        for which in DATABASES
        for count in CONNECTIONS
    ]


def measure_hot(found: Databases, options: Options) -> list[Row]:
    """PUT on one chart, beside pgbench with the same statements on the same row of a database of its own."""
    url = found.new("postgresql")
    add_chart(url)
    with services(found) as servers:
        asks = {f"{which} {count}": ask for (which, count), ask in _asks(servers, "PUT", HOT_PATH).items()}
        asks["pgbench"] = lambda seconds: run_pgbench(found.programs, url, found.folder, seconds=seconds)
        samples = take_turns(asks, options)
    found.drop(url)
    return [*_hot_rows(samples), *_tail_rows(samples)]


def _hot_rows(samples: Samples) -> list[Row]:
    peer = ("pgbench, 16 clients, the same statements", rates(samples["pgbench"]))
    return [
        Row(
            f"PUT, one hot chart, {TITLES[which]}, {count} connections",
            "/s",
            rates(samples[f"{which} {count}"]),
            *peer,
            0.75 if which == "postgresql" else None,
        )
        for which in DATABASES
        for count in CONNECTIONS
    ]


def _tail_rows(samples: Samples) -> list[Row]:
    return [
        Row(
            f"PUT, one hot chart, {TITLES[which]}, 64 connections: p99 / p50",
            "x",
            [sample.p99 / sample.p50 for sample in samples[f"{which} 64"]],
            goal=5,
            at_most=True,
        )
        for which in DATABASES
    ]


def measure_machines(found: Databases, options: Options) -> list[Row]:
    """PUT with a machine that is new each time, where 5,000 have reported, beside PUT without."""
    named = f"{HOT_PATH}&machine={{machine}}"
    with services(found) as servers:
        asks = {}
        for which, server in servers.items():
            server.import_chart("anonymous", server.ask("GET", f"/charts/{HOT}", Accept="application/yaml").body)
            _report(server, named)
            asks[f"{which} with"] = wrk(server.port, "PUT", named)
            asks[f"{which} without"] = wrk(server.port, "PUT", HOT_PATH.replace(HOT, "anonymous"))
        samples = take_turns(asks, options)
    return [
        Row(
            f"PUT with a machine id, {MACHINES:,} machines, {TITLES[which]}, 16 connections",
            "/s",
            rates(samples[f"{which} with"]),
            "PUT without",
            rates(samples[f"{which} without"]),
            0.80,
        )
        for which in DATABASES
    ]


def _report(server: Server, path: str) -> None:
    """Have at least 5,000 machines report."""
    while server.status(HOT)["seq"] <= MACHINES:
        wrk(server.port, "PUT", path)(1)
