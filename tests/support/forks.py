"""Servers without the cost of a start: forks of one process that has imported the service and gunicorn.

A start of gunicorn imports some 1,500 modules, in the master and again in part in each worker. Each pytest worker
has one parent process, which imports them once, before it has any thread, engine or event loop. It forks for each
server that a test asks for; the fork goes on as `python -m gunicorn` would. Tests whose subject is the start itself, or
an option of Python, start a new interpreter.

What differs from a new interpreter: the seed of `hash()` is the parent's, and modules do not read the environment at
import. The metrics library is the one that would: it decides at import whether counts are in files of
PROMETHEUS_MULTIPROC_DIR, and looks for the folder again in each new process.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).resolve().parent.parent.parent
COUNTS = "PROMETHEUS_MULTIPROC_DIR"
# Not `wsgi`, which reads the settings when it is imported.
IMPORTED = (
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.gasgi",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "app.serving",
    "app.wiring",
)
MAX_REQUEST = 1024 * 1024
ENDED = "the parent of all servers has ended"


# In the tests


class Forked:
    """A server that was forked: what the tests ask of a `subprocess.Popen`."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        # Its parent writes the exit status here.
        self._line = line

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return the exit status. Raises TimeoutExpired."""
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                status = self._line.recv(32)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0) from None
            self._line.close()
            assert status, ENDED
            self.returncode = int(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tell it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


_control: socket.socket | None = None


def fork_gunicorn(words: Sequence[str], variables: Mapping[str, str], output: IO[str]) -> Forked:
    """Start `python -m gunicorn` with these words and this environment, in a session of its own."""
    global _control
    if _control is None:
        _control = _start_parent()
        atexit.register(_control.close)
    ours, theirs = socket.socketpair()
    with theirs:
        request = json.dumps({"words": list(words), "variables": dict(variables)}).encode()
        socket.send_fds(_control, [request], [theirs.fileno(), output.fileno()])
    # The first request waits for the imports.
    ours.settimeout(120)
    pid = int.from_bytes(ours.recv(8), "big")
    # A signal to process 0 would go to this process and its group.
    assert pid, ENDED
    return Forked(pid, ours)


def _start_parent() -> socket.socket:
    """Start the parent; it ends, with all its forks, when no process of the tests has the other end of its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        # It outlives this function, and nobody waits for it: it ends with the tests.
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
        )
        process.returncode = 0
    return ours


# In the parent


def fork_for_each(control: socket.socket) -> tuple[list[str], dict[str, str], int]:
    """Fork for each request. Return in the forks alone, with the request: words, environment and output."""
    running: dict[int, tuple[int, socket.socket]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd != control.fileno():
                    selector.unregister(key.fd)
                    _tell_end(*running.pop(key.fd))
                    os.close(key.fd)
                    continue
                request, fds, _, _ = socket.recv_fds(control, MAX_REQUEST, 2)
                if not request:
                    _end_all(running)
                line = socket.socket(fileno=fds[0])
                pid = os.fork()
                if pid == 0:
                    line.close()
                    for descriptor, (_, other) in running.items():
                        os.close(descriptor)
                        other.close()
                    control.close()
                    asked = json.loads(request)
                    return asked["words"], asked["variables"], fds[1]
                os.close(fds[1])
                line.sendall(pid.to_bytes(8, "big"))
                descriptor = os.pidfd_open(pid)
                running[descriptor] = pid, line
                selector.register(descriptor, selectors.EVENT_READ)


def _tell_end(pid: int, line: socket.socket) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with line, suppress(OSError):
        line.sendall(str(status).encode())


def _end_all(running: Mapping[int, tuple[int, socket.socket]]) -> NoReturn:
    for pid, _ in running.values():
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    sys.exit()


def become_gunicorn(words: Sequence[str], variables: Mapping[str, str], output: int) -> None:
    """Go on as `python -m gunicorn` would."""
    os.setsid()
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    tempfile.tempdir = None
    sys.argv = ["gunicorn", *words]
    runpy.run_module("gunicorn", run_name="__main__", alter_sys=True)


def main() -> None:
    """Import everything, then fork."""
    control = socket.socket(fileno=int(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        os.environ[COUNTS] = folder
        for name in IMPORTED:
            importlib.import_module(name)
    del os.environ[COUNTS]
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot fork"
    # A look for garbage in a fork would copy what all forks share.
    gc.collect()
    gc.freeze()
    become_gunicorn(*fork_for_each(control))


if __name__ == "__main__":
    main()
