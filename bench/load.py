"""What a request costs: GET and PUT beside an empty view, pgbench and etcd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

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
PGBENCH = "pgbench, 16 clients, the same statements"
# The least ratio at so many connections.
Goals = Mapping[int, float]


def measure_get(found: Databases, options: Options) -> list[Row]:
    """GET state beside an empty view, and with a machine's id beside without."""
    with services(found) as servers, empty_view(found.folder) as empty:
        asks = ask_at_each("empty", empty.port, "GET", "/")
        for which, server in servers.items():
            asks |= ask_at_each(which, server.port, "GET", HOT_PATH)
            asks |= ask_at_each(f"{which} machine", server.port, "GET", f"{HOT_PATH}&machine={{machine}}")
        samples = take_turns(asks, options)
    rows = _beside("GET state", samples, EMPTY, "empty", {16: 1.6, 64: 2.0})
    return rows + [
        Row(
            f"GET state with a machine id, {TITLES[which]}, {count} connections",
            "/s",
            rates(samples[f"{which} machine {count}"]),
            "GET without",
            rates(samples[f"{which} {count}"]),
            0.8,
        )
        for which in DATABASES
        for count in CONNECTIONS
    ]


def measure_charts(found: Databases, options: Options) -> list[Row]:
    """PUT on a random one of 1,000 charts, beside an empty view."""
    with services_with_copies(found, CHARTS) as servers, empty_view(found.folder) as empty:
        asks = ask_at_each("empty", empty.port, "PUT", "/?chart={chart}", CHARTS)
        for which, server in servers.items():
            asks |= ask_at_each(which, server.port, "PUT", RANDOM_PATH, CHARTS)
        samples = take_turns(asks, options)
    return _beside(f"PUT, {CHARTS:,} charts", samples, EMPTY, "empty", {16: 0.4, 64: 0.6})


@contextmanager
def services_with_copies(found: Databases, charts: int) -> Iterator[dict[str, Server]]:
    """The service with that many charts, on a new database of each kind; each worker has read nearly all of them."""
    with ExitStack() as stack:
        servers = {}
        for which in DATABASES:
            url = found.new(which)
            stack.callback(found.drop, url)
            add_chart(url)
            add_copies(url, charts)
            servers[which] = stack.enter_context(service(url, found.folder))
            wrk(servers[which].port, "GET", RANDOM_PATH, charts=charts)(WARM_SECONDS)
        yield servers


def ask_at_each(who: str, port: int, method: str, path: str, charts: int = 1) -> dict[str, Ask]:
    """The same question at each number of connections, by the name `WHO CONNECTIONS`."""
    return {f"{who} {count}": wrk(port, method, path, count, charts=charts) for count in CONNECTIONS}


def _beside(what: str, samples: Samples, name: str, peer: str, goals: Goals) -> list[Row]:
    """A row for each database and number of connections, beside the peer at the same number."""
    return [
        Row(
            f"{what}, {TITLES[which]}, {count} connections",
            "/s",
            rates(samples[f"{which} {count}"]),
            name,
            rates(samples[f"{peer} {count}"]),
            goals[count],
        )
        for which in DATABASES
        for count in CONNECTIONS
    ]


def measure_hot(found: Databases, options: Options) -> list[Row]:
    """PUT on one chart, beside an empty view, and beside pgbench with the same statements on a row of its own."""
    url = found.new("postgresql")
    add_chart(url)
    with services(found) as servers, empty_view(found.folder) as empty:
        asks = ask_at_each("empty", empty.port, "PUT", "/")
        for which, server in servers.items():
            asks |= ask_at_each(which, server.port, "PUT", HOT_PATH)
        asks["pgbench"] = lambda seconds: run_pgbench(found.programs, url, found.folder, seconds=seconds)
        samples = take_turns(asks, options)
    found.drop(url)
    rows = _beside("PUT, one hot chart", samples, EMPTY, "empty", {16: 0.5, 64: 0.8})
    return [*rows, *_pgbench_rows(samples), *_tail_rows(samples)]


def _pgbench_rows(samples: Samples) -> list[Row]:
    goals = {16: 1.5, 64: 3.0}
    return [
        Row(
            f"PUT, one hot chart, PostgreSQL, {count} connections",
            "/s",
            rates(samples[f"postgresql {count}"]),
            PGBENCH,
            rates(samples["pgbench"]),
            goals[count],
        )
        for count in CONNECTIONS
    ]


def _tail_rows(samples: Samples) -> list[Row]:
    return [
        Row(
            f"PUT, one hot chart, {TITLES[which]}, {count} connections: p99 / p50",
            "x",
            [sample.p99 / sample.p50 for sample in samples[f"{which} {count}"]],
            goal=4,
            at_most=True,
        )
        for which in DATABASES
        for count in CONNECTIONS
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
