"""The files in which all workers of a server count what /metrics sums up.

The metrics library maps them into memory. A write to a mapped page that the disk has no room for kills the process, so
each file gets its room before it is mapped; a process that gets none counts nothing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

# Where the metrics library looks for the folder.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "stateservice-metrics-"
# Bytes of each file, which is more than all series of this service take.
_ROOM = 1024 * 1024
# One file for each kind of instrument, and for each mode of a gauge: see app/service/metrics.py and
# app/web/observe.py.
_KINDS = ("counter", "histogram", "gauge_livemax")
# The file in the folder that the master and its workers keep locked. Another container that shares the folder for
# temporary files does not see their processes, but sees this lock.
_LOCK = "lock"


def prepare_folder() -> str | None:
    """Make the folder of this server, and remove those of servers that were killed; None if there is no room.

    A new folder for every master, also for one that takes over from another (SIGUSR2) and inherits its environment; a
    reload (SIGHUP) goes on in the same folder. Raises OSError if there is no folder for temporary files.
    """
    own = f"{_PREFIX}{os.getpid()}-"
    folder = os.environ.get(FOLDER, "")
    if Path(folder).name.startswith(own) and Path(folder).is_dir():
        return folder
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder = tempfile.mkdtemp(prefix=own)
    if not prepare_files(folder):
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.pop(FOLDER, None)
        return None
    # Never closed: the lock ends with the last process that has it.
    fcntl.flock(os.open(Path(folder) / _LOCK, os.O_CREAT | os.O_RDONLY), fcntl.LOCK_SH)
    os.environ[FOLDER] = folder
    return folder


def prepare_files(folder: str) -> bool:
    """Give this process's files their room; False, and no file, if the disk has too little."""
    paths = [Path(folder) / f"{kind}_{os.getpid()}.db" for kind in _KINDS]
    try:
        for path in paths:
            with path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, _ROOM)
    except OSError:
        for path in paths:
            with suppress(OSError):
                path.unlink()
        return False
    return True


def remove_folder(folder: str, master: int) -> None:
    """Remove the folder as the master ends; workers are forks, and end through the same door."""
    if os.getpid() == master:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        master = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if master.isdigit() and not _is_running(int(master)) and not _is_locked(folder / _LOCK):
            shutil.rmtree(folder, ignore_errors=True)


def _is_locked(path: Path) -> bool:
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
