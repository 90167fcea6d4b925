"""A PostgreSQL that hangs: its processes are stopped in their tracks, or the network swallows what is sent."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil


@contextmanager
def stopped(server: Any) -> Iterator[None]:
    """Stop every process of a server with SIGSTOP while the block lasts."""
    stop_all(server)
    try:
        yield
    finally:
        continue_all(server)


def stop_all(server: Any) -> None:
    """Stop a server: its first process first, so that no new one is started meanwhile."""
    _signal(server, signal.SIGSTOP)


def continue_all(server: Any) -> None:
    """Let a stopped server go on."""
    _signal(server, signal.SIGCONT)


def _signal(server: Any, number: signal.Signals) -> None:
    signal_family(find_postmaster(Path(server.pgdata)), number)


def find_postmaster(data: Path) -> psutil.Process:
    """The first process of the PostgreSQL server whose files lie in `data`. Raises psutil.NoSuchProcess."""
    return psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))


def signal_family(first: psutil.Process, number: signal.Signals) -> list[psutil.Process]:
    """Send a process and then all that came of it a signal; return those that were still there."""
    reached = []
    with suppress(psutil.NoSuchProcess):
        first.send_signal(number)
        reached.append(first)
        for child in first.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(number)
                reached.append(child)
    return reached


class Network:
    """A way by TCP to a server on a Unix socket; it may swallow what is sent on it, and forgets whom it swallowed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._door = socket.create_server(("127.0.0.1", 0), backlog=200)
        self._sockets: list[socket.socket] = []
        self._open = threading.Event()
        self._open.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        port: int = self._door.getsockname()[1]
        return port

    @contextmanager
    def swallowing(self) -> Iterator[None]:
        """Let nothing through while the block lasts, and never again on the connections there are."""
        self._open.clear()
        yield
        self._open.set()

    def close(self) -> None:
        """Hang up on everybody."""
        for one in [self._door, *self._sockets]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
                self._sockets += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        is_forgotten = not self._open.is_set()
        with suppress(OSError):
            while data := source.recv(65536):
                is_forgotten = is_forgotten or not self._open.is_set()
                if not is_forgotten:
                    target.sendall(data)
            if not is_forgotten:
                target.shutdown(socket.SHUT_WR)


@contextmanager
def network_to(server: Any) -> Iterator[Network]:
    """A way by TCP to `server`, for as long as the block lasts."""
    with closing(Network(f"{server.pgdata}/.s.PGSQL.5432")) as network:
        yield network
