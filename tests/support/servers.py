"""The real server: gunicorn with its own configuration file, as a process of its own on a free port."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

import psutil
import pytest
from sqlalchemy import Connection

from app.db.engine import open_engine
from app.db.postgresql import APPLICATION_NAME
from app.service.verifying import list_logged_charts, verify
from app.waiting.hub import LISTENER_NAME
from app.waiting.places import MAX_WORKERS, SHARED_SIZE
from tests.service.support import opened_service
from tests.support.databases import Copies, copied
from tests.support.forks import Forked, fork_gunicorn
from tests.support.http import ANSWER_SECONDS, Reply, send
from tests.support.processes import children_of, end_group, until

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = ROOT / "gunicorn.conf.py"
GUNICORN = (sys.executable, "-m", "gunicorn", "-c", str(CONFIG), "wsgi:app")
START_SECONDS = 30
JSON = {"Accept": "application/json"}
TEXT = {"Accept": "text/plain"}


def chart_path(chart: str, rest: str = "state", **parameters: str) -> str:
    """The path of a request on a chart."""
    query = f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""
    return f"/charts/{chart}/{rest}{query}"


@dataclass(slots=True)
class Server:
    """A running server, and questions to it."""

    process: subprocess.Popen[str] | Forked
    port: int
    log: Path
    database_url: str
    callers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(256))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Reply:
        """Send one request and return its answer. Underscores in a header's name are hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        return send(connection, method, path, body, **headers)

    def send_raw(self, request: bytes) -> bytes:
        """Send these bytes and return whatever comes back until the server closes the connection."""
        received = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(request)
            while data := connection.recv(65536):
                received += data
        return received

    def get(self, chart: str, state: str, rest: str = "state", **parameters: str) -> Reply:
        """May I?"""
        return self.ask("GET", chart_path(chart, rest, state=state, **parameters))

    def put(self, chart: str, state: str, **parameters: str) -> Reply:
        """I did."""
        return self.ask("PUT", chart_path(chart, state=state, **parameters))

    def act(self, chart: str, verb: str, **fields: str) -> Reply:
        """An operator's act; fails where it is refused."""
        body = json.dumps({"reason": "test", **fields})
        reply = self.ask("POST", f"/charts/{chart}/{verb}", body, Content_Type="application/json")
        assert reply.status == 200, reply.body
        return reply

    def import_chart(self, name: str, text: str) -> None:
        """Import a chart; fails where it is refused."""
        reply = self.ask("PUT", f"/charts/{name}", text, Content_Type="application/yaml")
        assert reply.status in (200, 201), reply.body

    def status(self, chart: str) -> dict[str, Any]:
        """A chart's status."""
        found: dict[str, Any] = self.ask("GET", f"/charts/{chart}", **JSON).json()
        return found

    def history(self, chart: str, **parameters: str) -> list[dict[str, Any]]:
        """The rows of a chart's log, at most 1,000."""
        reply = self.ask("GET", chart_path(chart, "history", limit="1000", **parameters), **JSON)
        rows: list[dict[str, Any]] = reply.json()
        return rows

    def hold(
        self, chart: str, state: str, rest: str = "state", count: int = 1, **parameters: str
    ) -> list[Future[Reply]]:
        """Begin `count` questions that wait (55 s unless told), and return once the server holds them all."""
        before = self.waiters()
        asked = {"wait": "55", **parameters}
        held = [self.callers.submit(self.get, chart, state, rest, **asked) for _ in range(count)]
        self.until_waiting(before + count)
        return held

    def until_waiting(self, count: int) -> None:
        """Return once the server holds `count` requests."""
        until(lambda: self.waiters() == count, f"{count} requests are held")

    def clock(self) -> float:
        """The time that a reply's `at` is told in."""
        return time.monotonic()

    def workers(self) -> list[int]:
        """The process ids of the workers, oldest first."""
        return children_of(self.process.pid)

    def waiters(self) -> int:
        """How many requests the server holds, read from the memory that its workers count in."""
        # What follows the workers' counts is counted for tokens.
        counts = b"".join(file.read_bytes()[: MAX_WORKERS * 8] for file in self._find_places().values())
        return sum(int.from_bytes(counts[at : at + 8], sys.byteorder, signed=True) for at in range(0, len(counts), 8))

    def _find_places(self) -> dict[int, Path]:
        # By inode: a mapped file is open twice, and after a reload there may be two of them.
        places = {}
        for file in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found = file.stat()
                if found.st_nlink == 0 and found.st_size == SHARED_SIZE:
                    places[found.st_ino] = file
        return places

    @property
    def workers_left(self) -> list[int]:
        """What is left of its process group, once its first process has ended."""
        return [found.pid for found in psutil.process_iter() if _group_of(found.pid) == self.process.pid]

    def connections(self) -> int:
        """How many connections its workers have accepted and not closed."""
        return sum(map(self.connections_of, self.workers()))

    def connections_of(self, worker: int) -> int:
        """How many connections one worker has accepted and not closed."""
        found = psutil.Process(worker).net_connections("tcp")
        return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == self.port for one in found)

    def busiest_worker(self) -> int:
        """The process id of the worker that has the most connections."""
        return max(self.workers(), key=self.connections_of)

    def beside(self) -> AbstractContextManager[Connection]:
        """A connection of the test's own to its database."""
        return beside(self.database_url)

    @contextmanager
    def locked(self, chart: str) -> Iterator[Connection]:
        """Hold a chart's row lock, as a transaction in hand would; on SQLite that is the whole database's."""
        with self.beside() as connection:
            is_sqlite = connection.dialect.name == "sqlite"
            connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else "BEGIN")
            if not is_sqlite:
                connection.exec_driver_sql(f"SELECT 1 FROM charts WHERE name = '{chart}' FOR UPDATE")
            yield connection
            connection.exec_driver_sql("ROLLBACK")

    def verify(self) -> None:
        """Fail unless every chart's log agrees with its tables."""
        with opened_service(self.database_url) as service:
            found = {name: verify(service, name).differences for name in list_logged_charts(service)}
        assert {name: differences for name, differences in found.items() if differences} == {}

    def send(self, number: signal.Signals) -> float:
        """Send the server's first process a signal; returns when that was."""
        self.process.send_signal(number)
        return time.monotonic()

    def stop(self, seconds: float = 20) -> None:
        """Stop it, and fail where it does not end in time."""
        self.send(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it has not ended within {seconds} s:\n{self.log.read_text()}") from None

    def kill(self) -> None:
        """End everything at once, as a power cut would."""
        for pid in [self.process.pid, *self.workers()]:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(30)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def environment(database_url: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a server: nothing of this service's comes from outside."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STATE_SERVICE_")}
    own = {f"STATE_SERVICE_{name.upper()}": value for name, value in settings.items()}
    return inherited | {"STATE_SERVICE_AUTH": "open", "STATE_SERVICE_DATABASE_URL": database_url} | own


def patched(folder: Path, patch: str) -> list[str]:
    """The command that serves as ever, once the Python of `patch` has run after gunicorn.conf.py."""
    config = folder / "patched.conf.py"
    config.write_text(f"__file__ = {str(CONFIG)!r}\nexec(open(__file__).read())\n{patch}\n")
    return [str(config) if word == str(CONFIG) else word for word in GUNICORN]


@contextmanager
def running(
    database_url: str, folder: Path, command: Sequence[str] | None = None, port: int | None = None, **settings: str
) -> Iterator[Server]:
    """Run a server with these settings until the block ends; its log stays in `folder`.

    Without a command it is gunicorn, forked from a process that has imported it: see tests/support/forks.py.
    """
    log = folder / f"server-{time.monotonic_ns()}.log"
    variables = environment(database_url, {"bind": "127.0.0.1:0", **settings})
    with log.open("w") as output:
        process = start(command, variables, output)
    server = Server(process, port or 0, log, database_url)
    try:
        server.port = until(lambda: _find_port(server), f"it listens, see {log}", START_SECONDS)
        workers = int(settings.get("workers", 2))
        until(lambda: len(server.workers()) >= workers, "its workers run", START_SECONDS)
        until(lambda: server.ask("GET", "/readyz").status == 200, "it is ready", START_SECONDS)
        yield server
    finally:
        end_group(process, 10)
        server.callers.shutdown(cancel_futures=True)


def start(
    command: Sequence[str] | None, variables: Mapping[str, str], output: IO[str]
) -> subprocess.Popen[str] | Forked:
    """Start a server in a session of its own."""
    if command is None:
        return fork_gunicorn(GUNICORN[3:], variables, output)
    return subprocess.Popen(
        command, cwd=ROOT, env=variables, stdout=output, stderr=output, text=True, start_new_session=True
    )


def _find_port(server: Server) -> int | None:
    assert server.process.poll() is None, server.log.read_text()
    found = re.search(r"Listening at: http://[^ ]*:(\d+)", server.log.read_text())
    return None if found is None else int(found.group(1))


# The database behind a server


@contextmanager
def shared_database(request: pytest.FixtureRequest, which: str) -> Iterator[str]:
    """A migrated database of the kind `which`, for as long as the block lasts."""
    if which == "sqlite":
        with copied(request.getfixturevalue("sqlite_template")) as url:
            yield url
        return
    copies: Copies = request.getfixturevalue("postgresql_copies")
    yield from copies.make()


@contextmanager
def beside(database_url: str) -> Iterator[Connection]:
    """A connection of the test's own, that commits each statement at once."""
    engine = open_engine(database_url)
    options: dict[str, Any] = {"begin": ""} if engine.dialect.name == "sqlite" else {"isolation_level": "AUTOCOMMIT"}
    try:
        with engine.connect().execution_options(**options) as connection:
            yield connection
    finally:
        engine.dispose()


def sessions(database_url: str, where: str = "true") -> list[tuple[str, str | None]]:
    """Application name and state of the service's sessions on a PostgreSQL database."""
    query = (
        "SELECT application_name, state FROM pg_stat_activity WHERE datname = current_database()"
        f" AND pid <> pg_backend_pid() AND application_name IN ('{APPLICATION_NAME}', '{LISTENER_NAME}') AND {where}"
    )
    with beside(database_url) as connection:
        return [(row[0], row[1]) for row in connection.exec_driver_sql(query)]


def wait_for_listeners(server: Server, count: int) -> None:
    """Return once `count` workers listen to PostgreSQL, or at once on SQLite."""
    if server.database_url.startswith("sqlite"):
        return
    is_there = f"application_name = '{LISTENER_NAME}'"
    until(lambda: len(sessions(server.database_url, is_there)) >= count, "every worker listens")


def run_curl(*arguments: str, stdin: str | None = None, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run the real curl."""
    curl = shutil.which("curl")
    assert curl is not None, "curl is needed"
    return subprocess.run([curl, *arguments], input=stdin, capture_output=True, text=True, timeout=seconds, check=False)
