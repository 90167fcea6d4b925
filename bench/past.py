"""How soon a server says where a chart stood: `python -m bench.past` fills a log with a million rows, and asks.

The rows are those that the service would write, with their hashes; they are written without it. Then a server is asked
at instants of the log's beginning, middle and end: before any process has read the log, after that, and as the first
question after a new start.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import create_engine, insert, select, update
from sqlalchemy.pool import NullPool

from app.core.log import COLUMNS, LogRow, chain_hash
from app.db.engine import normalize_url
from app.models import attribute_values, charts, transition_log
from bench.databases import DATABASES, databases, query
from bench.fill import add_chart, filling
from bench.rounds import TITLES
from bench.servers import service
from tests.support.servers import JSON, Server

NAME = "past"
# Rows in one statement.
BATCH = 5000
CHART = """
current_state: odd
expect: {machines}
require_machine: true
states:
- {{name: odd, func: increment, {values}, target: [{{name: even, {all}}}, {{name: done, {failed}}}]}}
- {{name: even, func: increment, {values}, target: [{{name: odd, {all}}}, {{name: done, {failed}}}]}}
- {{name: done}}
"""
WORDS = {
    "values": "current: [{key: count, value: 0}, {key: failed, value: 0}]",
    "all": 'when: {key: count, value: "100%"}',
    "failed": "when: {key: failed, value: 1}",
}
# The parts of the log that are asked for, as shares of its rows.
PARTS = {"beginning": (0.0, 0.02), "middle": (0.49, 0.51), "end": (0.98, 1.0)}


def fill(url: str, rows: int, machines: int) -> None:
    """Give a new chart so many rows of the log: each of `machines` reports once in each visit."""
    add_chart(url, NAME, CHART.format(machines=machines, **WORDS))
    engine = create_engine(normalize_url(url), poolclass=NullPool)
    with filling(url), engine.connect() as raw:
        if engine.dialect.name == "postgresql":
            raw.exec_driver_sql("SET session_replication_role = replica")
        last_hash, began = raw.execute(select(charts.c.last_hash, charts.c.updated_at)).one()
        last, made = None, _make_rows(began, rows, machines)
        while batch := list(islice(made, BATCH)):
            values = []
            for last in batch:
                last_hash = chain_hash(last_hash, last)
                values.append({**{name: getattr(last, name) for name in COLUMNS}, "hash": last_hash})
            raw.execute(insert(transition_log), values)
        assert last is not None
        raw.execute(
            update(charts).values(
                seq=last.seq, last_hash=last_hash, visit=last.visit, state=last.from_state, updated_at=last.at
            )
        )
        raw.execute(update(attribute_values).where(attribute_values.c.key == "count").values(value=last.value_after))
        raw.commit()


def _make_rows(began: datetime, rows: int, machines: int) -> Iterator[LogRow]:
    """Yield the rows after the import's that reports of one machine after another make, a microsecond apart."""
    names = ("odd", "even")
    for number in range(rows - 1):
        visit, count = divmod(number, machines)
        here, other = names[visit % 2], names[1 - visit % 2]
        is_last = count + 1 == machines
        yield LogRow(
            chart=NAME,
            version=1,
            run=1,
            visit=visit + 1,
            seq=number + 2,
            at=began + timedelta(microseconds=1 + number),
            kind="transition" if is_last else "update",
            from_state=here,
            to_state=other if is_last else here,
            key="count",
            value_before=count,
            value_after=count + 1,
            machine=f"m{count:07}",
            remote_addr="127.0.0.1",
            reason="count >= 100%" if is_last else None,
        )


def ask(server: Server, at: str | None) -> float:
    """Return the seconds that a status takes: of the instant `at`, or of now."""
    started = time.perf_counter()
    reply = server.ask("GET", f"/charts/{NAME}" + ("" if at is None else f"?at={quote(at)}"), **JSON)
    assert reply.status == 200, reply.body
    return time.perf_counter() - started


def list_instants(url: str, rows: int, number: int, chance: random.Random) -> dict[str, list[str]]:
    """Return instants of each part of the log."""
    found = {}
    for part, (low, high) in PARTS.items():
        seqs = [chance.randint(max(int(rows * low), 1), int(rows * high)) for _ in range(number)]
        found[part] = [_read_at(url, seq) for seq in seqs]
    return found


def _read_at(url: str, seq: int) -> str:
    at = query(url, f"SELECT at FROM transition_log WHERE chart = '{NAME}' AND seq = {seq}")
    return str(at).replace(" ", "T").removesuffix("Z").removesuffix("+00:00") + "Z"


def count_checkpoints(url: str) -> int:
    """Return how many checkpoints there are."""
    return int(str(query(url, "SELECT count(*) FROM checkpoints")))


def measure(url: str, folder: Path, rows: int, machines: int, asked: int) -> Iterator[str]:
    """Fill a log, and yield lines about it."""
    started = time.perf_counter()
    fill(url, rows, machines)
    yield f"filled in {time.perf_counter() - started:.0f} s"
    instants = list_instants(url, rows, asked, random.Random(1))
    with service(url, folder) as server:
        yield f"before any checkpoint, at the end: {ask(server, instants['end'][0]):.2f} s"
        yield f"after that there are {count_checkpoints(url)} checkpoints"
        for part, ats in instants.items():
            first = sorted(ask(server, at) for at in ats)
            again = sorted(ask(server, at) for at in ats)
            yield f"{part}: {_say(first)}; again: {_say(again)}"
        yield f"of the chart as it is now: {ask(server, None):.2f} s"
    for part, ats in instants.items():
        with service(url, folder) as server:
            yield f"{part}, the first question after a start: {ask(server, ats[-1]):.2f} s"


def _say(times: list[float]) -> str:
    return f"median {times[len(times) // 2]:.2f} s, worst {times[-1]:.2f} s"


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the log")
    parser.add_argument("--machines", type=int, default=5000, help="machines that report in each visit")
    parser.add_argument("--asked", type=int, default=20, help="instants in each part of the log")
    parser.add_argument("--database", choices=DATABASES, action="append", help="both by default")
    given = parser.parse_args()
    with databases() as found:
        for which in given.database or DATABASES:
            url = found.new(which)
            print(f"{TITLES[which]}, {given.rows:,} rows, {given.machines:,} machines", flush=True)
            for line in measure(url, found.folder, given.rows, given.machines, given.asked):
                print(f"  {line}", flush=True)
            found.drop(url)


if __name__ == "__main__":
    main()
