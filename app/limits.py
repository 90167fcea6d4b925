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


def raise_limits(config: Config, connections: int) -> Iterator[str]:
    """Allow as many open files as the workers may need, and yield a warning for each limit that is too low."""
    files = connections + config.pool_size + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        yield f"{hard} open files (ulimit -Hn) are too few, {files} may be needed"
        files = hard
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    threads = config.workers * (config.threads + _OWN_THREADS) + 1
    for limit, where in _list_thread_limits():
        if limit < threads:
            yield f"{limit} threads ({where}) are too few, {threads} may be needed"


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
