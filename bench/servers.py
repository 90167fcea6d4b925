"""Starts what is measured: this service as shipped, and its peers; each ends with its block."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.charts import HOT, chart_text
from bench.databases import DATABASES, Databases
from tests.support.http import send
from tests.support.processes import free_port, until
from tests.support.servers import ROOT, Server, environment, running, wait_for_listeners

WORKERS = 2


@contextmanager
def service(url: str, folder: Path, **settings: str) -> Iterator[Server]:
    """This service as shipped on the database at `url`: gunicorn.conf.py, wsgi.py, every other setting its default."""
    with running(url, folder, **settings) as server:
        wait_for_listeners(server, WORKERS)
        yield server


@contextmanager
def services(found: Databases) -> Iterator[dict[str, Server]]:
    """The service with the hot chart, on a new database of each kind."""
    with ExitStack() as stack:
        servers = {}
        for which in DATABASES:
            url = found.new(which)
            stack.callback(found.drop, url)
            servers[which] = stack.enter_context(service(url, found.folder))
            servers[which].import_chart(HOT, chart_text())
        yield servers


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer at work: where it answers, and its first process."""

    port: int
    pid: int


@contextmanager
def peer(command: Sequence[str], port: int, path: str, folder: Path, **variables: str) -> Iterator[Peer]:
    """Run a peer until the block ends; yields it once it answers 200 at `path`."""
    log = folder / f"peer-{port}.log"
    with log.open("wb") as output:
        started = subprocess.Popen(command, cwd=ROOT, env=environment("", {}) | variables, stdout=output, stderr=output)
    try:
        until(lambda: _answers(started, port, path, log), f"{command} answers, see {log}", 30)
        yield Peer(port, started.pid)
    finally:
        started.terminate()
        with suppress(subprocess.TimeoutExpired):
            started.wait(20)
        started.kill()
        started.wait(10)


def _answers(started: subprocess.Popen[bytes], port: int, path: str, log: Path) -> bool:
    assert started.poll() is None, log.read_text()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError):
        return send(connection, "GET", path).status == 200
    return False


@contextmanager
def flask_peer(application: str, path: str, folder: Path, **variables: str) -> Iterator[Peer]:
    """Another application under gunicorn with threads, with as many workers as this service."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", "bench/peer_conf.py", application]
    with peer(command, port, path, folder, STATE_SERVICE_BIND=f"127.0.0.1:{port}", **variables) as found:
        yield found


@contextmanager
def empty_view(folder: Path) -> Iterator[Peer]:
    """The empty Flask view."""
    with flask_peer("bench.empty:app", "/", folder) as found:
        yield found


@contextmanager
def rewriter(folder: Path) -> Iterator[Peer]:
    """A service of the seed's kind under gunicorn with threads and one worker: its lock is of one process."""
    chart = folder / "rewritten.yaml"
    chart.write_text(chart_text())
    variables = {"BENCH_CHART": str(chart), "STATE_SERVICE_WORKERS": "1"}
    with flask_peer("bench.rewriter:app", "/state?state=s1", folder, **variables) as found:
        yield found


@contextmanager
def etcd(folder: Path) -> Iterator[Peer]:
    """Debian's etcd, one member, as it comes: each write is synced to disk."""
    data = Path(tempfile.mkdtemp(dir=folder))
    port, peers = free_port(), free_port()
    own, others = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peers}"
    command = ["etcd", "--name", "one", "--data-dir", str(data), "--listen-client-urls", own]
    command += ["--advertise-client-urls", own, "--listen-peer-urls", others, "--initial-advertise-peer-urls", others]
    command += ["--initial-cluster", f"one={others}"]
    with peer(command, port, "/health", folder) as found:
        yield found
    shutil.rmtree(data)
