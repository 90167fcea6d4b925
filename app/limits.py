"""What the system grants a server: open files and threads. Short ones are told at the start."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from app.config import Config

# Threads of a worker beside its pool for Flask: writing, reading, the hub, the sweeper, the access log.
_OWN_THREADS = 16
# Where a container's limit on processes and threads stands.
_PIDS_MAX = Path("/sys/fs/cgroup/pids.max")


def allow_connections(config: Config, wanted: int) -> int:
    """Let each worker open as many files as it may need; return how many of `wanted` connections it can hold then."""
    files = wanted + _own_files(config)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(files - _own_files(config), 1)


def list_shortages(config: Config, wanted: int, allowed: int) -> Iterator[str]:
    """Yield a warning for each limit of the system that is too low for `wanted` connections."""
    if allowed < wanted:
        needed = wanted + _own_files(config)
        yield f"too few open files (ulimit -Hn): {needed} may be needed; a worker holds {allowed} connections at most"
    threads = config.workers * (config.threads + _OWN_THREADS) + 1
    for limit, where in _list_thread_limits():
        if limit < threads:
            yield f"{limit} threads ({where}) are too few, {threads} may be needed"


def _own_files(config: Config) -> int:
    """Files of a worker that are not connections of clients: the database, the log, the libraries."""
    return config.pool_size + 100


def _list_thread_limits() -> Iterator[tuple[int, str]]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY:
        yield soft, "ulimit -u"
    try:
        text = _PIDS_MAX.read_text().strip()
    except OSError:
        return
    if text.isdigit():
        yield int(text), "the container's pids limit"
