"""Ours beside what else could do: etcd, and a service of the seed's kind, which rewrites a file."""

from __future__ import annotations

from bench.charts import STATE
from bench.databases import Databases
from bench.rounds import HOT_PATH, Ask, Options, rates, take_turns, wrk
from bench.servers import etcd, rewriter, services
from bench.table import Row
from bench.wrk import LOAD

KEYS = 1000


def measure_peers(found: Databases, options: Options) -> list[Row]:
    """Ours beside etcd and beside a service that rewrites a file."""
    with services(found) as servers, etcd(found.folder) as keys, rewriter(found.folder) as file:
        puts = {
            "etcd, compare-and-swap of one key": _swap(keys.port, 1),
            "etcd, compare-and-swap of one key in 2,000": _swap(keys.port, KEYS),
            "a YAML file rewritten, not synced": wrk(file.port, "PUT", f"/state?state={STATE}"),
        }
        gets = {
            "etcd, range of one key": wrk(keys.port, "POST", "/v3/kv/range", body='{"key": "aG90"}'),
            "a YAML file read": wrk(file.port, "GET", f"/state?state={STATE}"),
        }
        port = servers["postgresql"].port
        ours = {"PUT, one hot chart": wrk(port, "PUT", HOT_PATH), "GET state": wrk(port, "GET", HOT_PATH)}
        samples = take_turns({**ours, **puts, **gets}, options)
    return [
        Row(f"{what}, PostgreSQL, 16 connections", "/s", rates(samples[what]), name, rates(samples[name]))
        for what, peers in zip(ours, (puts, gets), strict=True)
        for name in peers
    ]


def _swap(port: int, keys: int) -> Ask:
    return wrk(port, "POST", "/v3/kv/txn", charts=keys, script=LOAD.with_name("etcd.lua"))
