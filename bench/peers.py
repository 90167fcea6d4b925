"""Ours beside what else could do: etcd, and a service of the seed's kind, which rewrites a file."""

from __future__ import annotations

from bench.charts import STATE
from bench.databases import Databases
from bench.load import RANDOM_PATH, services_with_copies
from bench.rounds import CONNECTIONS, Ask, Options, rates, take_turns, wrk
from bench.servers import etcd, rewriter
from bench.table import Row
from bench.wrk import LOAD

# wrk has two threads, and each has keys of its own: 2,000 in all.
KEYS = 1000
CHARTS = 2000
SWAP, RANGE = "etcd, compare-and-swap of one key in 2,000", "etcd, range of one key in 2,000"
GOALS = {("GET", 16): 1.0, ("GET", 64): 1.5, ("PUT", 16): 1.0, ("PUT", 64): 1.0}


def measure_peers(found: Databases, options: Options) -> list[Row]:
    """GET and PUT on a random one of 2,000 charts, beside etcd with 2,000 keys and a service that rewrites a file."""
    with services_with_copies(found, CHARTS) as servers, etcd(found.folder) as keys, rewriter(found.folder) as file:
        port = servers["postgresql"].port
        asks: dict[str, Ask] = {}
        for count in CONNECTIONS:
            asks[f"PUT {count}"] = wrk(port, "PUT", RANDOM_PATH, count, charts=CHARTS)
            asks[f"GET {count}"] = wrk(port, "GET", RANDOM_PATH, count, charts=CHARTS)
            asks[f"PUT etcd {count}"] = _ask_etcd(keys.port, "txn", count)
            asks[f"GET etcd {count}"] = _ask_etcd(keys.port, "range", count)
        path = f"/state?state={STATE}"
        asks |= {f"{method} file": wrk(file.port, method, path) for method in ("GET", "PUT")}
        samples = take_turns(asks, options)
    rows = [
        Row(
            f"{method}, 2,000 charts, PostgreSQL, {count} connections",
            "/s",
            rates(samples[f"{method} {count}"]),
            RANGE if method == "GET" else SWAP,
            rates(samples[f"{method} etcd {count}"]),
            GOALS[method, count],
        )
        for method in ("GET", "PUT")
        for count in CONNECTIONS
    ]
    files = {"GET": "a YAML file read", "PUT": "a YAML file rewritten, not synced"}
    return rows + [
        Row(
            f"{method}, 2,000 charts, PostgreSQL, 16 connections",
            "/s",
            rates(samples[f"{method} 16"]),
            name,
            rates(samples[f"{method} file"]),
        )
        for method, name in files.items()
    ]


def _ask_etcd(port: int, what: str, count: int) -> Ask:
    return wrk(port, "POST", f"/v3/kv/{what}", count, charts=KEYS, script=LOAD.with_name("etcd.lua"))
