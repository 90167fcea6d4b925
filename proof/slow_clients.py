"""Clients that send or read as slowly as they can, and what the others notice of them behind nginx."""

from __future__ import annotations

import http.client
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.config import Config
from app.core.log import Author
from app.service import operate
from app.wiring import create_app, service_of
from proof.fronted import fronted
from proof.proof import Proof, new_folder
from proof.raw_http import CHART, STATE
from proof.stand import sqlite_database
from tests.support.processes import until
from tests.support.servers import running

LIMIT = 0.25
# Between two bytes of a slow client.
PAUSE = 0.5
# Below the 50 a second that nginx lets one address ask.
GET_PAUSE = 0.025
GET_SECONDS = 5
PATH = f"/charts/front/state?state={STATE}"
# Each character is four bytes: 600 rows are more than the buffers between a thread and a client that does not read.
ROWS = 600
REASON = "\U0001f40c" * 1000
# What the kernel keeps for a client that does not read.
KEPT = 4096

HEAD = " HTTP/1.1\r\nHost: localhost\r\n"
FIRST = {
    "headers": f"GET {PATH}{HEAD}X-Slow: ".encode(),
    "body": f"PUT {PATH}{HEAD}Content-Length: 1000000\r\n\r\n".encode(),
    "reader": f"GET /charts/long/history?format=ndjson{HEAD}\r\n".encode(),
}
# Forty together.
CLIENTS = {"headers": 14, "body": 13, "reader": 13}

Connect = Callable[[int | None], socket.socket]


@dataclass(slots=True)
class Crowd:
    """Slow clients: how many have begun, and how often one was cut off and came again."""

    begun: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)
    is_over: threading.Event = field(default_factory=threading.Event)

    def hold(self, connect: Connect, kind: str) -> None:
        """Be one of them until it is over."""
        is_first = True
        while not self.is_over.is_set():
            with suppress(OSError), connect(KEPT) as connection:
                connection.sendall(FIRST[kind])
                (self.begun if is_first else self.again)[kind] += 1
                is_first = False
                self._dawdle(connection, kind)
            self.is_over.wait(PAUSE)

    def _dawdle(self, connection: socket.socket, kind: str) -> None:
        while not self.is_over.wait(PAUSE):
            if kind != "reader":
                connection.sendall(b"a")
            elif not connection.recv(16):
                self.finished[kind] += 1
                return


@contextmanager
def crowded(connect: Connect) -> Iterator[Crowd]:
    """Forty slow clients, every one of them connected, until the block ends."""
    crowd = Crowd()
    kinds = [kind for kind, count in CLIENTS.items() for _ in range(count)]
    threads = [threading.Thread(target=crowd.hold, args=(connect, kind)) for kind in kinds]
    for thread in threads:
        thread.start()
    try:
        until(lambda: crowd.begun == CLIENTS, "every slow client has begun")
        yield crowd
    finally:
        crowd.is_over.set()
        for thread in threads:
            thread.join()


@dataclass(slots=True)
class Gets:
    """Ordinary GETs: how long each took, and which were not answered as they should be."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The figures."""
        parts = statistics.quantiles(self.seconds, n=100) if len(self.seconds) > 1 else [0.0] * 99
        worst = max(self.seconds, default=0)
        figures = {"p50": parts[49], "p99": parts[98], "worst": worst}
        return {"gets": len(self.seconds), "wrong": self.wrong[:5]} | {k: round(v, 4) for k, v in figures.items()}


def ask_for(connect: Connect, seconds: float, patience: float = 30) -> Gets:
    """Ask again and again for so long, on one connection for as long as that is kept."""
    gets = Gets()
    deadline = time.monotonic() + seconds
    connection = _open(connect, patience)
    while time.monotonic() < deadline:
        started = time.monotonic()
        try:
            connection.request("GET", PATH)
            answer = connection.getresponse()
            found = (answer.status, answer.read())
            if found != (200, STATE.encode()):
                gets.wrong.append(str(found))
        except (OSError, http.client.HTTPException) as error:
            gets.wrong.append(repr(error))
            connection.close()
            connection = _open(connect, patience)
        gets.seconds.append(time.monotonic() - started)
        time.sleep(GET_PAUSE)
    connection.close()
    return gets


def _open(connect: Connect, patience: float) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = connect(None)
    connection.sock.settimeout(patience)
    return connection


@dataclass(slots=True)
class Outcome:
    """What the slow clients came to."""

    alone: dict[str, Any]
    beside: dict[str, Any]
    clients: dict[str, int]
    again: dict[str, int]
    finished: dict[str, int]

    @property
    def is_noticed(self) -> bool:
        """True where some GET beside the slow clients was not answered, or one in a hundred was slow."""
        # On a machine that is busy with other things GETs are slow alone, too.
        return bool(self.beside["wrong"]) or self.beside["p99"] >= max(LIMIT, 3 * self.alone["p99"])

    @property
    def is_proof(self) -> bool:
        """True where nobody noticed them, and they were slow all along."""
        is_valid = not self.alone["wrong"] and self.beside["gets"] > 0
        return is_valid and not self.is_noticed and self.clients == CLIENTS and not self.finished

    def as_json(self) -> dict[str, Any]:
        """The outcome for a file."""
        return {**asdict(self), "is_proof": self.is_proof}

    def as_line(self) -> str:
        """The outcome in a line."""
        return f"GET alone {self.alone}, beside {sum(self.clients.values())} slow clients {self.beside}"


def measure(connect: Connect, seconds: float, patience: float = 30) -> Outcome:
    """Ask alone, then beside forty slow clients."""
    alone = ask_for(connect, seconds, patience)
    with crowded(connect) as crowd:
        beside = ask_for(connect, seconds, patience)
    return Outcome(alone.as_json(), beside.as_json(), dict(crowd.begun), dict(crowd.again), dict(crowd.finished))


@contextmanager
def through_nginx(folder: Path) -> Iterator[Connect]:
    """nginx with deploy/nginx.conf, and gunicorn behind it."""
    with fronted(folder) as found:
        found.import_chart("front", CHART)
        found.import_chart("long", CHART)
        write_long(found.service.database_url)
        yield found.connect


@contextmanager
def facing_the_network(folder: Path) -> Iterator[Connect]:
    """gunicorn with nothing in front of it, and fewer threads than there are slow clients."""
    few = {"workers": "1", "threads": "8", "max_waiters": "0"}
    with sqlite_database(folder) as database, running(database.url, folder, **few) as server:
        server.import_chart("front", CHART)
        server.import_chart("long", CHART)
        write_long(database.url)
        yield lambda received: socket.create_connection(("127.0.0.1", server.port), 30)


def write_long(database_url: str) -> None:
    """Fill the log of the chart `long`."""
    service = service_of(create_app(Config(database_url=database_url)))
    try:
        for _ in range(ROWS // 2):
            operate.pause(service, "long", REASON, Author())
            operate.resume(service, "long", REASON, Author())
    finally:
        service.database.engine.dispose()


def prove_slow_clients(proof: Proof) -> None:
    """Hold forty slow clients against nginx; and see that they are noticed where nothing holds them off."""
    with new_folder() as folder, through_nginx(folder) as connect:
        # Longer than nginx waits for a header.
        found = measure(connect, 3 * GET_SECONDS)
    proof.add("slow clients, nginx", found.as_json(), found.as_line())
    with new_folder() as folder, facing_the_network(folder) as connect:
        exposed = measure(connect, GET_SECONDS, patience=2)
    line = f"{'noticed' if exposed.is_noticed else 'NOT NOTICED'}: {exposed.as_line()}"
    proof.add("slow clients, 8 threads without nginx", {**exposed.as_json(), "is_proof": exposed.is_noticed}, line)
