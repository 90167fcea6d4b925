"""How soon a server says where a chart stood: `python -m bench.past` fills a log with a million rows, and asks.

The rows are made by the same decisions and written by the same statements as the service's own, in large transactions
and without a server. Then a server is asked at instants of the log's beginning, middle and end: before it has read the
log, after it has left its checkpoints, and as the first question after a new start.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from app import store
from app.core import machine
from app.core.chart import Chart
from app.core.log import Author
from app.core.position import Position, Step, Update
from app.db import Database, transaction
from app.db.engine import open_engine
from app.service.context import Service
from app.service.operate import ImportRequest, import_chart
from app.service.past import STRIDE
from app.store.record import Change, DecidedStep, record_all
from app.waiting.hub import Hub
from bench.databases import DATABASES, databases, query
from bench.rounds import TITLES
from bench.servers import service
from tests.support.processes import until
from tests.support.servers import JSON, Server

NAME = "past"
# Reports in one transaction.
BATCH = 1000
# How long the checkpointer may take for the whole log, in seconds.
PATIENCE = 1800
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
    engine = open_engine(url)
    database = Database(engine)
    text = CHART.format(machines=machines, **WORDS)
    import_chart(Service(database=database, hub=Hub(database)), ImportRequest(text, name=NAME), Author())
    left = rows - 1
    while left > 0:
        with transaction(database) as connection:
            row = store.charts.lock_chart(connection, NAME)
            now = store.charts.read_now(connection)
            chart = store.definitions.load_charts(connection, {(row.id, 1): NAME})[row.id, 1]
            position = store.charts.build_position(row, store.charts.read_values(connection, row.id))
            decided = [
                DecidedStep(step, Author(remote_addr="127.0.0.1"))
                for step in _report(chart, position, now, min(left, BATCH))
            ]
            record_all(connection, [Change(row, position, decided)], now)
            left -= len(decided)
    engine.dispose()


def _report(chart: Chart, position: Position, now: datetime, number: int) -> Iterator[Step]:
    for _ in range(number):
        name = f"m{sum(position.values.values()):07}"
        step = machine.step(chart, position, Update(state=position.state, machine=name, was_entered=True), now)
        position = step.position
        yield step


def ask(server: Server, at: str) -> float:
    """Return the seconds that a status of the past takes."""
    started = time.perf_counter()
    reply = server.ask("GET", f"/charts/{NAME}?at={quote(at)}", **JSON)
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
    return str(at).replace(" ", "T").replace("+00:00", "") + "Z"


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
        started = time.perf_counter()
        wanted = (rows - 1) // STRIDE
        until(lambda: count_checkpoints(url) >= wanted, "the checkpoints are there", PATIENCE)
        yield f"{wanted} checkpoints left within {time.perf_counter() - started:.0f} s"
        for part, ats in instants.items():
            first = sorted(ask(server, at) for at in ats)
            again = sorted(ask(server, at) for at in ats)
            yield f"{part}: {_say(first)}; again: {_say(again)}"
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
