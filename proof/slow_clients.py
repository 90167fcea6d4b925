"""Clients that send or read as slowly as they can, and what the others notice of them, with nginx and without it."""

from __future__ import annotations

import http.client
import select
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
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

LIMIT = 0.025
# Between two bytes of a slow client.
PAUSE = 0.5
# Below the 50 a second that nginx lets one address ask.
GET_PAUSE = 0.025
GET_SECONDS = 5
# The longest that gunicorn needs to make the answers of all readers, each of 2.4 MB: that is work, not slowness.
SETTLE_SECONDS = 15
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
# How many there are of each kind: forty, as many as nginx lets one address open, or five hundred.
CLIENTS = {"headers": 14, "body": 13, "reader": 13}
MANY_CLIENTS = {"headers": 167, "body": 167, "reader": 166}

Connect = Callable[[int | None], socket.socket]


@dataclass(slots=True)
class Crowd:
    """Slow clients, played by one thread: how many have begun, and how often one was cut off and came again."""

    connect: Connect
    clients: Mapping[str, int]
    begun: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)
    is_over: threading.Event = field(default_factory=threading.Event)

    def play(self) -> None:
        """Connect every client, then send or read a little of each in turn until it is over."""
        held: list[tuple[str, socket.socket | None]] = []
        for kind, count in self.clients.items():
            held += [(kind, self._begin(kind, self.begun)) for _ in range(count)]
        while not self.is_over.wait(PAUSE):
            held = [(kind, self._go_on(kind, connection)) for kind, connection in held]
        for _, connection in held:
            if connection is not None:
                connection.close()

    def _begin(self, kind: str, counter: Counter[str]) -> socket.socket | None:
        with suppress(OSError):
            connection = self.connect(KEPT)
            connection.sendall(FIRST[kind])
            counter[kind] += 1
            return connection
        return None

    def _go_on(self, kind: str, connection: socket.socket | None) -> socket.socket | None:
        """Send or read a little; connect again if the server has cut the client off."""
        if connection is None:
            return self._begin(kind, self.again)
        try:
            if kind != "reader":
                connection.sendall(b"a")
                return connection
            if select.select([connection], [], [], 0)[0] and not connection.recv(16):
                self.finished[kind] += 1
            else:
                return connection
        except OSError:
            pass
        connection.close()
        return self._begin(kind, self.again)


@contextmanager
def crowded(connect: Connect, clients: Mapping[str, int] = CLIENTS) -> Iterator[Crowd]:
    """Slow clients, every one of them connected, until the block ends."""
    crowd = Crowd(connect, clients)
    thread = threading.Thread(target=crowd.play)
    thread.start()
    try:
        until(lambda: crowd.begun == clients, "every slow client has begun")
        yield crowd
    finally:
        crowd.is_over.set()
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


def ask_for(connect: Connect, seconds: float) -> Gets:
    """Ask again and again for so long, on one connection for as long as that is kept."""
    gets = Gets()
    deadline = time.monotonic() + seconds
    connection = _open(connect)
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
            connection = _open(connect)
        gets.seconds.append(time.monotonic() - started)
        time.sleep(GET_PAUSE)
    connection.close()
    return gets


def _open(connect: Connect) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = connect(None)
    connection.sock.settimeout(30)
    return connection


@dataclass(slots=True)
class Outcome:
    """What the slow clients came to, and what the GETs alone and beside them."""

    alone: dict[str, Any]
    beside: dict[str, Any]
    clients: dict[str, int]
    wanted: dict[str, int]
    again: dict[str, int]
    finished: dict[str, int]

    @property
    def is_proof(self) -> bool:
        """True where the slow clients were slow all along, every GET was answered, and hardly one was slow.

        A p99 below LIMIT is no delay that anybody notices, and on a machine that is busy with other things it says
        nothing of the slow clients.
        """
        is_valid = self.beside["gets"] > 0 and self.clients == self.wanted and not self.finished
        is_quick = self.beside["p99"] < max(LIMIT, 2 * self.alone["p99"])
        return is_valid and is_quick and not self.alone["wrong"] and not self.beside["wrong"]

    def as_json(self) -> dict[str, Any]:
        """The outcome for a file."""
        return {**asdict(self), "is_proof": self.is_proof}

    def as_line(self) -> str:
        """The outcome in a line."""
        verdict = "proven" if self.is_proof else "NOTICED"
        count = sum(self.clients.values())
        return f"{verdict}: GET alone {self.alone}, beside {count} slow clients {self.beside}, cut off {self.again}"


def measure(connect: Connect, seconds: float, clients: Mapping[str, int] = CLIENTS) -> Outcome:
    """Ask alone, then beside the slow clients once the server has had the time to make their long answers."""
    alone = ask_for(connect, seconds)
    with crowded(connect, clients) as crowd:
        time.sleep(SETTLE_SECONDS)
        beside = ask_for(connect, seconds)
    return Outcome(
        alone=alone.as_json(),
        beside=beside.as_json(),
        clients=dict(crowd.begun),
        wanted=dict(clients),
        again=dict(crowd.again),
        finished=dict(crowd.finished),
    )


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
    """gunicorn as shipped, with two workers and nothing in front of it."""
    with sqlite_database(folder) as database, running(database.url, folder, workers="2") as server:
        server.import_chart("front", CHART)
        server.import_chart("long", CHART)
        write_long(database.url)
        yield partial(_connect, server.port)


def _connect(port: int, received: int | None) -> socket.socket:
    connection = socket.socket()
    if received is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", port))
    return connection


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
    """Hold forty slow clients against nginx, and five hundred against gunicorn alone."""
    with new_folder() as folder, through_nginx(folder) as connect:
        # Longer than nginx waits for a header.
        found = measure(connect, 3 * GET_SECONDS)
    proof.add("slow clients, nginx", found.as_json(), found.as_line())
    with new_folder() as folder, facing_the_network(folder) as connect:
        found = measure(connect, 3 * GET_SECONDS, MANY_CLIENTS)
    proof.add("slow clients, without nginx", found.as_json(), found.as_line())
