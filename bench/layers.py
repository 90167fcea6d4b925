"""Ever larger parts of one GET and one PUT, called in a loop: the driver, the transaction, the use case, the door.

The door is asked by CALLERS at once, as under gunicorn, so that requests share readings and transactions.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import psycopg
from flask import Flask

from app.config import Config
from app.core.log import Author
from app.db import Database, asking, transaction
from app.db.engine import normalize_url, str_url
from app.service.ask import Question, answer_all
from app.service.context import Service
from app.service.machines import Machines
from app.service.operate import ImportRequest, import_chart
from app.service.put import Put, Sent, apply
from app.serving import Door
from app.wiring import create_app, service_of
from bench import empty
from bench.charts import HOT, STATE, chart_text
from bench.statements import LOCK, READ, VALUES, WRITES, for_psycopg

# How many ask at once, as wrk does under gunicorn.
CALLERS = 16
PATH = f"/charts/{HOT}/state"
TEXTS = {
    "sqlite": [VALUES["sqlite"], *WRITES],
    "postgresql": [for_psycopg(text) for text in (VALUES["postgresql"], *WRITES)],
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of one call: of this process's CPU, of the clock on the wall."""

    cpu: float
    wall: float

    def minus(self, other: Cost) -> Cost:
        return Cost(self.cpu - other.cpu, self.wall - other.wall)


def measure(call: Callable[[], Any], count: int) -> Cost:
    """The cost of `call`, the least of five rounds: what else the machine does only adds."""
    for _ in range(20):
        call()
    rounds = []
    for _ in range(5):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            call()
        rounds.append((time.process_time() - cpu, time.perf_counter() - wall))
    return Cost(*(min(values) / count * 1e6 for values in zip(*rounds, strict=True)))


def read_driver(raw: Any) -> None:
    """The one SELECT of a GET."""
    raw.execute(READ).fetchall()


def write_driver(raw: Any, which: str) -> None:
    """The five statements of a PUT, without BEGIN and COMMIT."""
    cursor = raw.execute(LOCK[which])
    found = dict(zip((column[0] for column in cursor.description), cursor.fetchone(), strict=True))
    values, *writes = TEXTS[which]
    *now, key, value = raw.execute(values, {"id": found["id"]}).fetchone()
    found |= {"now": now[0] if now else found["updated_at"], "key": key, "value": value}
    found |= {"next_seq": found["seq"] + 1, "next_value": value + 1}
    for text in writes:
        raw.execute(text, found).close()


def transact_driver(raw: Any, which: str) -> None:
    """One PUT on the driver's connection alone."""
    raw.execute("BEGIN IMMEDIATE" if which == "sqlite" else "BEGIN")
    write_driver(raw, which)
    raw.execute("COMMIT")


def read_core(database: Database) -> None:
    """The SELECT of a GET on a connection as the service takes it."""
    with asking(database) as connection:
        read_driver(connection.driver)


def write_core(database: Database, which: str) -> None:
    """The statements of a PUT in a transaction as the service opens it."""
    with transaction(database) as connection:
        write_driver(connection.driver, which)


def empty_call() -> None:
    """The empty view, as gunicorn's threads call it."""
    statuses: list[str] = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "5000",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "wsgi.errors": None,
    }
    list(empty.app(environ, lambda status, headers, error=None: statuses.append(status)))
    assert statuses == ["200 OK"], statuses


class AtDoor:
    """Requests at the door of a worker, without gunicorn and without sockets."""

    def __init__(self, app: Flask, method: str) -> None:
        self._app = app
        self._scope = {
            "type": "http",
            "method": method,
            "raw_path": PATH.encode(),
            "query_string": f"state={STATE}".encode(),
            "headers": [(b"host", b"127.0.0.1:5000"), (b"user-agent", b"bench")],
            "client": ("127.0.0.1", 5001),
            "scheme": "http",
        }
        self._left = 0
        self._answered = 0

    def measure(self, count: int) -> tuple[Cost, Cost]:
        """The cost of a request, and the part of it that is the event loop's; each the least of five rounds."""
        return asyncio.run(self._measure(count))

    async def _measure(self, count: int) -> tuple[Cost, Cost]:
        machines: Machines = self._app.extensions["stateservice.machines"]
        machines.attach(asyncio.get_running_loop())
        door = Door(self._app)
        await self._ask(door, CALLERS * 10)
        rounds = []
        for _ in range(5):
            wall, cpu, loop = time.perf_counter(), time.process_time(), time.thread_time()
            await self._ask(door, count)
            ends = time.perf_counter() - wall, time.process_time() - cpu, time.thread_time() - loop
            rounds.append([end / count * 1e6 for end in ends])
        wall, cpu, loop = (min(values) for values in zip(*rounds, strict=True))
        return Cost(cpu, wall), Cost(loop, wall)

    async def _ask(self, door: Door, count: int) -> None:
        self._left, self._answered = count, 0
        await asyncio.gather(*(self._call(door) for _ in range(CALLERS)))
        assert self._answered == count, f"{count - self._answered} were not answered 200"

    async def _call(self, door: Door) -> None:
        while self._left:
            self._left -= 1
            await door(dict(self._scope), self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: dict[str, Any]) -> None:
        self._answered += message.get("status") == 200


@contextmanager
def raw_connection(url: str) -> Iterator[Any]:
    """The driver's own connection."""
    parsed = normalize_url(url)
    if parsed.drivername == "sqlite":
        raw: Any = sqlite3.connect(str(parsed.database), isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON"):
            raw.execute(f"PRAGMA {pragma}")
    else:
        raw = psycopg.connect(str_url(parsed.set(drivername="postgresql")), autocommit=True)
    yield raw
    raw.close()


def relax(raw: Any, which: str, *, durable: bool) -> None:
    """Have commits wait for the disk, or not."""
    if which == "sqlite":
        raw.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
    else:
        raw.execute(f"SET synchronous_commit = {'on' if durable else 'off'}")


def layers_in_process(url: str, which: str, count: int) -> dict[str, dict[str, Cost]]:
    """The costs of a GET's and a PUT's parts, each with all that is below it."""
    app = create_app(Config(database_url=url, auth="open"))
    found: Service = service_of(app)
    import_chart(found, ImportRequest(chart_text(), name=HOT), Author())
    get, put = f"GET {which}", f"PUT {which}"
    costs: dict[str, dict[str, Cost]] = {get: {}, put: {}}
    with raw_connection(url) as raw:
        costs[get]["fast"] = costs[get]["driver"] = measure(lambda: read_driver(raw), count)
        relax(raw, which, durable=False)
        costs[put]["fast"] = measure(lambda: transact_driver(raw, which), count)
        relax(raw, which, durable=True)
        costs[put]["driver"] = measure(lambda: transact_driver(raw, which), count)
    costs[get]["core"] = measure(lambda: read_core(found.database), count)
    costs[put]["core"] = measure(lambda: write_core(found.database, which), count)
    questions, reports = [Question(chart=HOT, state=STATE)], [Sent(HOT, Put(STATE), Author())]
    costs[get]["service"] = measure(lambda: answer_all(found, questions), count)
    costs[put]["service"] = measure(lambda: apply(found, reports), count)
    for name, method in ((get, "GET"), (put, "PUT")):
        costs[name]["door"], costs[name]["loop"] = AtDoor(app, method).measure(count)
        costs[name]["empty"] = measure(empty_call, count)
    found.database.engine.dispose()
    return costs
