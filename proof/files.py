"""What may happen to the database's file or server under load: full, read-only, damaged, away, replaced, down, hung.

Meanwhile every answer comes in time and is 200, 406 or 503; once the cause is gone all is well, without a restart; and
nothing acknowledged is lost. Needs root, for a small disk and for files that nobody may write.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from proof.campaign import CHARTS, Progress, Report, judge
from proof.history import Attempt
from proof.load import Load, loaded
from proof.proof import Proof, new_folder, opened
from proof.stand import START_SECONDS, BreakableServer, Database, PostgresqlDatabase, serving, sqlite_database
from tests.support.databases import migrate
from tests.support.processes import until

ANSWER_SECONDS = 5.0
HEAL_SECONDS = 2.0
FAULT_SECONDS = 2.5
# Longer than anybody waits for a database that says nothing.
HANG_SECONDS = 6.0
DISK = "8m"
PAGE = 4096
TIMES = 3

# Breaks something for as long as the block lasts.
Break = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault, how long it is to last, and whether the service must say that it is not ready."""

    broken: Break
    seconds: float = FAULT_SECONDS
    is_not_ready: bool = True


@dataclass(slots=True)
class Happened:
    """A fault that was, in nanoseconds of the monotonic clock, and what /readyz said meanwhile."""

    kind: str
    began: int
    ended: int = 0
    ready: list[int | None] = field(default_factory=list)


@dataclass(slots=True)
class Files:
    """What a run came to: the judgement of the load, and how soon each kind of fault was over for the clients."""

    report: Report
    healed: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The report for a file."""
        return {**self.report.as_json(), "healed": self.healed}

    def as_line(self) -> str:
        """The report in a line."""
        healed = {kind: round(seconds, 2) for kind, seconds in self.healed.items()}
        return f"{self.report.as_line()}; slowest answer {self.report.slowest:.1f} s; well again after {healed}"


Kinds = Mapping[str, Callable[[BreakableServer], Fault]]


def run_files(
    database: Database, folder: Path, kinds: Kinds, times: int, progress: Progress = lambda line: None
) -> Files:
    """Break the database in every way of `kinds`, so many times, under load; judge what the clients saw."""
    started = time.monotonic()
    found = Files(Report(make_url(database.url).get_backend_name(), fired=dict.fromkeys(kinds, 0)))
    with (
        serving(database, folder, CHARTS) as server,
        loaded(server.port, CHARTS, folder, processes=2, threads=6, waiters=0) as load,
    ):
        _settle(load, START_SECONDS)
        happened = [
            _let_happen(server, load, kind, make(server), progress)
            for _ in range(times)
            for kind, make in kinds.items()
        ]
        attempts = load.end()
    judge(database, attempts, found.report)
    for one in happened:
        found.report.fired[one.kind] += 1
        _judge_fault(one, attempts, found)
    _judge_answers(attempts, found.report)
    found.report.seconds = time.monotonic() - started
    return found


def _let_happen(server: BreakableServer, load: Load, kind: str, fault: Fault, progress: Progress) -> Happened:
    with fault.broken():
        one = Happened(kind, time.monotonic_ns())
        while time.monotonic_ns() < one.began + fault.seconds * 1e9:
            one.ready.append(server.ask("GET", "/readyz"))
            time.sleep(0.2)
    one.ended = time.monotonic_ns()
    # What was begun when the fault was is over, too.
    time.sleep(HEAL_SECONDS)
    _settle(load)
    if not fault.is_not_ready:
        one.ready.clear()
    progress(f"{kind}: {load.taken} PUTs acknowledged")
    return one


def _settle(load: Load, seconds: float = 10) -> None:
    """Return once PUTs are acknowledged, or after a while."""
    enough, deadline = load.taken + 20, time.monotonic() + seconds
    while load.taken < enough and time.monotonic() < deadline:
        time.sleep(0.05)


def _judge_fault(one: Happened, attempts: Sequence[Attempt], found: Files) -> None:
    report = found.report
    if not any(item.status == 503 and one.began < item.returned < one.ended for item in attempts):
        report.invalid.append(f"nobody noticed that it was {one.kind}")
    # The first look may have come before anybody could know.
    if set(one.ready[1:]) - {503}:
        report.violations.append(f"/readyz said {one.ready} while it was {one.kind}")
    taken = [item.returned for item in attempts if item.method == "PUT" and item.is_yes and item.called > one.ended]
    healed = (min(taken, default=one.ended + 10**12) - one.ended) / 1e9
    found.healed[one.kind] = max(healed, found.healed.get(one.kind, 0))
    if healed > HEAL_SECONDS:
        report.violations.append(f"no PUT was taken within {healed:.1f} s after it was {one.kind}")


def _judge_answers(attempts: Sequence[Attempt], report: Report) -> None:
    lost = sum(item.status is None for item in attempts)
    if lost:
        report.violations.append(f"{lost} requests were not answered")
    if report.slowest > ANSWER_SECONDS:
        report.violations.append(f"an answer took {report.slowest:.1f} s")


# Faults of an SQLite file


def file_faults(path: Path) -> Kinds:
    """What may happen to the file at `path`."""
    return {
        "moved": lambda server: Fault(lambda: _moved(path)),
        "replaced": lambda server: Fault(lambda: _replaced(path)),
        # A connection goes on with the pages that it remembers.
        "damaged": lambda server: Fault(lambda: _damaged(path, server), is_not_ready=False),
    }


@contextmanager
def _moved(path: Path) -> Iterator[None]:
    """The file and what belongs to it are away."""
    names = [path, *_companions(path)]
    for name in names:
        name.rename(f"{name}.away")
    try:
        yield
    finally:
        # The file last: a process that finds it must find its write-ahead log beside it.
        for name in reversed(names):
            Path(f"{name}.away").rename(name)


def _companions(path: Path) -> list[Path]:
    return [name for suffix in ("-wal", "-shm") if (name := Path(f"{path}{suffix}")).exists()]


@contextmanager
def _replaced(path: Path) -> Iterator[None]:
    """Another database lies in the file's place, beside the write-ahead log of the one that was there."""
    other, kept = path.with_suffix(".other"), path.with_suffix(".kept")
    migrate(f"sqlite:///{other}")
    kept.hardlink_to(path)
    other.rename(path)
    try:
        yield
    finally:
        kept.rename(path)


@contextmanager
def _damaged(path: Path, server: BreakableServer) -> Iterator[None]:
    """Every page but the first is overwritten, in place."""
    # It waits for nobody: a worker that was stopped while it read would be waited for in vain.
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as reader:
        whole = until(lambda: _damage(path, server, reader), "nobody reads the write-ahead log")
        try:
            yield
        finally:
            _overwrite(path, whole[PAGE:])
        reader.execute("ROLLBACK").close()


def _damage(path: Path, server: BreakableServer, reader: sqlite3.Connection) -> bytes | None:
    """Overwrite every page but the first; returns what was there, or None where that cannot be done just now."""
    with _stopped(server):
        # An empty write-ahead log and a reader of the file: nobody writes to it, so that it can be mended.
        if reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            return None
        reader.execute("BEGIN").close()
        reader.execute("SELECT count(*) FROM charts").fetchall()
        whole = path.read_bytes()
        _overwrite(path, b"\xa5" * (len(whole) - PAGE))
        return whole


def _overwrite(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(PAGE)
        file.write(content)


@contextmanager
def _stopped(server: BreakableServer) -> Iterator[None]:
    """Stop the workers at a moment when none of them writes."""
    path = str(make_url(server.database_url).database)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=ANSWER_SECONDS)) as writer:
        writer.execute("BEGIN IMMEDIATE").close()
        workers = server.workers()
        _signal(workers, signal.SIGSTOP)
        writer.execute("ROLLBACK").close()
    try:
        yield
    finally:
        _signal(workers, signal.SIGCONT)


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


# For root


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder with a file system of its own, of the size DISK."""
    place = folder / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def disk_faults(place: Path) -> Kinds:
    """Another program fills the disk."""
    # Reading needs no room.
    return {"full": lambda server: Fault(lambda: _full(place), is_not_ready=False)}


@contextmanager
def _full(place: Path) -> Iterator[None]:
    filler = place / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    try:
        yield
    finally:
        filler.unlink()


def read_only_faults(path: Path) -> Kinds:
    """Nobody, root neither, may write the file, its write-ahead log and its folder."""
    return {"read-only": lambda server: Fault(lambda: _read_only(path), is_not_ready=False)}


@contextmanager
def _read_only(path: Path) -> Iterator[None]:
    # Not the -shm: it is memory, and the kernel kills who writes to memory that lies in such a file.
    names = [str(path), f"{path}-wal", str(path.parent)]
    subprocess.run(["chattr", "+i", *names], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *names], check=True)


# Faults of PostgreSQL


def server_faults(database: PostgresqlDatabase) -> Kinds:
    """What may happen to the server."""
    return {
        "down": lambda server: Fault(database.down),
        "hung": lambda server: Fault(database.hung, HANG_SECONDS),
    }


# The proof


def prove_files(proof: Proof) -> None:
    """Let everything happen to the database's file, its disk and its server, under load."""
    with new_folder() as folder, sqlite_on_its_own(folder) as (database, path):
        kinds = {**file_faults(path), **read_only_faults(path)}
        _prove(proof, "the file on sqlite", database, folder, kinds)
    with new_folder() as folder, small_disk(folder) as place, sqlite_database(place) as database:
        _prove(proof, "the disk on sqlite", database, folder, disk_faults(place))
    with new_folder() as folder, opened("postgresql", folder) as database:
        assert isinstance(database, PostgresqlDatabase)
        _prove(proof, "the server on postgresql", database, folder, server_faults(database))


def _prove(proof: Proof, name: str, database: Database, folder: Path, kinds: Kinds) -> None:
    found = run_files(database, folder, kinds, TIMES, proof.say)
    proof.add(name, {**found.as_json(), "is_proof": found.report.is_proof}, found.as_line())


@contextmanager
def sqlite_on_its_own(folder: Path) -> Iterator[tuple[Database, Path]]:
    """An SQLite database in a folder where nothing else lies, and its path."""
    place = folder / "database"
    place.mkdir()
    with sqlite_database(place) as database:
        yield database, Path(str(make_url(database.url).database))
