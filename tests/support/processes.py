"""Processes that a test starts: a port for them, waiting for them, and their end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import psutil

from tests.support.forks import Forked

T = TypeVar("T")


# Within these seconds even a busy computer has done what takes a moment. Tests let requests wait for longer, so an
# answer that comes earlier is no end of a wait. How soon it comes is measured by `make bench` and `make prove`.
PATIENCE = 20.0


def until(condition: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
    """Return what `condition` returns as soon as that is true; fail, saying `what`, if it is not in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return found


def free_port() -> int:
    """A port on which no process listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    """True if a process listens on `port` of this machine."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def children_of(pid: int) -> list[int]:
    """The ids of a process's children, oldest first; none if the process has ended."""
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in sorted(psutil.Process(pid).children(), key=psutil.Process.create_time)]
    return []


def end_group(process: subprocess.Popen[Any] | Forked, seconds: float) -> None:
    """End a process that leads its own process group: ask it, and after `seconds` kill what is left of the group."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
