"""What is broken on purpose: gunicorn on a fixed port, and the database behind it."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from app.db.engine import normalize_url
from app.db.postgresql import APPLICATION_NAME
from proof import clocks, crashes, defects
from proof.load import texts_of
from tests.support.databases import database_on, migrate, start_postgresql
from tests.support.hanging import find_postmaster, signal_family, stopped
from tests.support.http import send
from tests.support.processes import children_of, until
from tests.support.servers import ROOT, environment

COMMAND = (sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "proof.served:app")
WORKERS = 2
# Orphaned workers hold the port until they notice, and a killed PostgreSQL reads its log again.
START_SECONDS = 60


def kill_at_once(*roots: psutil.Process) -> int:
    """Kill -9 these and their children as a power cut would: none is left to see another one die.

    A PostgreSQL session that waits for a standby gives up when it sees its postmaster die, and what it wrote can be
    read until it ends, too. Returns when the last was sent the signal, on the monotonic clock, in ns.
    """
    # Frozen, a process has no more children.
    family = [process for root in roots for process in signal_family(root, signal.SIGSTOP)]
    for process in family:
        process.kill()
    killed = time.monotonic_ns()
    psutil.wait_procs(family, 10)
    return killed


# The server


def quiet_port() -> int:
    """A free port that no outgoing connection is given either, while the server that had it is dead."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(slots=True)
class BreakableServer:
    """gunicorn with the service's own configuration; started again on the same port after its death."""

    database_url: str
    folder: Path
    defect: str = ""
    port: int = field(default_factory=quiet_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def points(self) -> Path:
        """The folder where a file makes the crash point of its name deadly."""
        return self.folder / "points"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def start(self) -> None:
        """Start it and return once it answers."""
        self._launch()
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            assert time.monotonic() < deadline, f"the server does not start, see {self.log}"
            if self.process is not None and self.process.poll() is not None:
                # As systemd would: those whom its predecessor left may have held the port.
                self._launch()
            time.sleep(0.05)

    def _launch(self) -> None:
        self.points.mkdir(exist_ok=True)
        settings = {"bind": f"127.0.0.1:{self.port}", "workers": str(WORKERS), "access_log": "false"}
        variables = environment(self.database_url, settings)
        own = {crashes.VARIABLE: str(self.points), defects.VARIABLE: self.defect}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                COMMAND, cwd=ROOT, env=variables | own, stdout=output, stderr=output, start_new_session=True
            )

    def is_ready(self) -> bool:
        """True where it answers and has all its workers."""
        return len(self.workers()) >= WORKERS and self.ask("GET", "/readyz") == 200

    def until_ready(self) -> None:
        """Return once it is ready again."""
        until(self.is_ready, f"the server is ready, see {self.log}", START_SECONDS)

    def ask(self, method: str, path: str, body: str | None = None) -> int | None:
        """Send one request; None where there was no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with suppress(OSError, http.client.HTTPException):
            return send(connection, method, path, body).status
        return None

    def import_charts(self, names: tuple[str, ...]) -> None:
        """Import the load's charts of these `names`."""
        for name in names:
            assert self.ask("PUT", f"/charts/{name}", texts_of(name)[0]) in (200, 201), name

    def workers(self) -> list[int]:
        """The process ids of the workers, oldest first."""
        assert self.process is not None
        return children_of(self.process.pid)

    def kill_one_worker(self) -> int:
        """Kill -9 a worker; return how many died."""
        return _send(random.choice(self.workers()), signal.SIGKILL)

    def kill_everything(self) -> int:
        """Kill -9 gunicorn and its workers at once, and start it again."""
        self._kill_family()
        self.start()
        return 1

    def _kill_family(self) -> None:
        """Kill -9 whatever serves from this folder, also workers that lost their gunicorn."""
        # Not by process group: its number may be another's by now.
        mark = str(self.points)
        family = [process for process in psutil.process_iter() if _variable(process, crashes.VARIABLE) == mark]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.wait(30)
        psutil.wait_procs(family, 10)

    def kill_master(self) -> int:
        """Kill -9 gunicorn alone, and start it again beside the workers that it left."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)
        self.start()
        return 1

    def stop_and_continue(self) -> int:
        """Stop a worker in its tracks, whatever it holds, for a while."""
        worker = random.choice(self.workers())
        stopped = _send(worker, signal.SIGSTOP)
        time.sleep(random.choice((0.3, 0.8, 1.5, 3.0)))
        return stopped and _send(worker, signal.SIGCONT)

    def crash(self, point: str) -> int:
        """Have the next process that comes by `point` die there; return how many did."""
        before = set(self.workers())
        file = self.points / point
        file.touch()
        until(lambda: not file.exists(), f"a process dies at {point}", 15)
        until(lambda: before - set(self.workers()), "the dead worker is noticed", 15)
        return len(before - set(self.workers()))

    def move_clock(self) -> int:
        """Set the clock by which it judges forward, or back; a database with a server has a clock of its own."""
        clocks.move_file(self.points, random.choice(clocks.JUMPS))
        return 1

    def end(self) -> None:
        """Stop it in order: whatever it was asked is then done, or never will be."""
        if self.process is not None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(40)
        self._kill_family()


def _variable(process: psutil.Process, name: str) -> str | None:
    with suppress(psutil.Error, OSError):
        value: str | None = process.environ().get(name)
        return value
    return None


def _send(pid: int, number: signal.Signals) -> int:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return 1
    return 0


# The databases


class Database(Protocol):
    """A database that may be broken."""

    url: str

    def faults(self) -> dict[str, Any]: ...

    def make_movable(self) -> None: ...


@dataclass(slots=True)
class SqliteDatabase:
    """A file."""

    url: str

    def faults(self) -> dict[str, Any]:
        """What can be done to it beside killing who uses it: nothing."""
        return {}

    def make_movable(self) -> None:
        """Let its clock be moved: it has none of its own."""


@dataclass(slots=True)
class PostgresqlDatabase:
    """A database on a server of its own, with its durability."""

    url: str
    server: Any

    def faults(self) -> dict[str, Any]:
        """What can be done to it."""
        own = {"pg_kill": self.kill, "pg_restart": self.restart, "pg_terminate": self.terminate}
        return own | {"move_clock": self.move_clock}

    def make_movable(self) -> None:
        """Let its clock be moved, for connections that are opened from now on."""
        clocks.make_movable(self.url)

    def move_clock(self) -> int:
        """Set the server's clock forward, or back."""
        clocks.move_database(self.url, random.choice(clocks.JUMPS))
        return 1

    def kill(self) -> int:
        """Kill -9 the whole server, and start it again: it recovers from its log."""
        kill_at_once(find_postmaster(self.server.pgdata))
        time.sleep(random.choice((0.0, 0.5)))
        self._start()
        return 1

    def restart(self) -> int:
        """Stop the server without waiting for anybody, and start it again."""
        self._control("stop", "-m", random.choice(("fast", "immediate")))
        time.sleep(random.choice((0.0, 0.5)))
        self._start()
        return 1

    def terminate(self) -> int:
        """End every session of the service."""
        engine = create_engine(normalize_url(self.server.get_uri()), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        query = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            f" WHERE application_name = '{APPLICATION_NAME}'"
        )
        with engine.connect() as connection:
            return int(connection.exec_driver_sql(query).scalar_one() > 0)

    @contextmanager
    def down(self) -> Iterator[None]:
        """The server is stopped while the block lasts."""
        self._control("stop", "-m", "fast")
        try:
            yield
        finally:
            self._start()

    def hung(self) -> AbstractContextManager[None]:
        """Every process of the server is stopped in its tracks while the block lasts."""
        return stopped(self.server)

    def _start(self) -> None:
        # The shared memory of a killed server is in use until the last of its processes has gone.
        until(self._try_to_start, "PostgreSQL starts", START_SECONDS)

    def _try_to_start(self) -> bool:
        try:
            self._control("start", "-l", str(self.server.log), "-o", f'-h "" -k {self.server.pgdata}')
        except subprocess.CalledProcessError:
            return False
        return True

    def _control(self, act: str, *options: str) -> None:
        command = [str(self.server.bin_path / "pg_ctl"), "-w", "-D", str(self.server.pgdata), *options, act]
        # A server that starts keeps what it was given for its output.
        null = subprocess.DEVNULL
        subprocess.run(command, user=self.server.system_user, stdout=null, stderr=null, timeout=60, check=True)


@contextmanager
def sqlite_database(folder: Path) -> Iterator[SqliteDatabase]:
    """A migrated file in `folder`."""
    url = f"sqlite:///{folder / 'state_service.db'}"
    migrate(url)
    yield SqliteDatabase(url)


@contextmanager
def postgresql_server(folder: Path) -> Iterator[Any]:
    """A server of our own, its data in `folder`, which must be one that its system user may enter."""
    server = start_postgresql(folder)
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgresql_database(server: Any) -> Iterator[PostgresqlDatabase]:
    """A migrated database on `server`."""
    admin = create_engine(normalize_url(server.get_uri()), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    for url in database_on(admin):
        migrate(url)
        yield PostgresqlDatabase(url, server)


@contextmanager
def serving(database: Database, folder: Path, charts: tuple[str, ...], defect: str = "") -> Iterator[BreakableServer]:
    """The service on `database` with these charts, for as long as the block lasts."""
    server = BreakableServer(database.url, folder, defect)
    try:
        server.start()
        server.import_charts(charts)
        yield server
    finally:
        server.end()
