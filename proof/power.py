"""Power loss on SQLite: what the disk was made to keep, replayed from a trace of system calls.

The kernel is asked, by `strace`, for every write and fsync of a process that serves PUTs. At a cut, a file is what it
was at its last fsync; of what was written since, nothing survives, or (a harsher disk) any of its sectors.
"""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.core.errors import StateServiceError
from proof.campaign import Progress, check_file, read_chart
from proof.checker import Row
from proof.power_writer import CHART
from tests.support.databases import migrate
from tests.support.servers import ROOT, environment

SECTOR = 512
PUTS = 800
CALLS = "pwrite64,write,fsync,fdatasync,ftruncate"
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>(.*)|(\w+)\((.*))$", re.DOTALL)
_FILE = re.compile(r"\d+<([^>]*)>")


@dataclass(frozen=True, slots=True)
class Call:
    """A system call on a file: when it began (`is_end` false) or returned."""

    thread: str
    name: str
    path: str
    arguments: str
    is_end: bool


@dataclass(slots=True)
class Disk:
    """Files as they would be found after a power cut."""

    kept: dict[str, bytearray]
    # Written since the file's last fsync: offset and bytes; None for bytes is a cut to that length.
    pending: dict[str, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    syncing: dict[str, int] = field(default_factory=dict)

    def take(self, call: Call) -> None:
        """Carry the disk over one call."""
        pending = self.pending.setdefault(call.path, [])
        if call.name in ("fsync", "fdatasync"):
            self._sync(call, pending)
        elif call.is_end:
            return
        elif call.name == "ftruncate":
            pending.append((int(call.arguments.split(",")[1].split(")")[0]), None))
        else:
            data, offset = _read_write(call.arguments)
            pending.append((offset, data))

    def _sync(self, call: Call, pending: list[tuple[int, bytes | None]]) -> None:
        if not call.is_end:
            # It covers what had been written by then.
            self.syncing[call.thread] = len(pending)
            return
        count = min(self.syncing.pop(call.thread), len(pending))
        content = self.kept.setdefault(call.path, bytearray())
        for offset, data in pending[:count]:
            _apply(content, offset, data)
        del pending[:count]

    def after_cut(self, dice: random.Random | None) -> dict[str, bytes]:
        """The files: without what was not synced, or, where there are dice, with some sectors of it."""
        found = {path: bytearray(content) for path, content in self.kept.items()}
        if dice is not None:
            for path, pending in self.pending.items():
                for offset, data in pending:
                    _apply_some(found.setdefault(path, bytearray()), offset, data, dice)
        return {path: bytes(content) for path, content in found.items()}


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    content.extend(bytes(max(offset - len(content), 0)))
    content[offset : offset + len(data)] = data


def _apply_some(content: bytearray, offset: int, data: bytes | None, dice: random.Random) -> None:
    if data is None:
        return
    for start in range(0, len(data), SECTOR):
        if dice.random() < 0.5:
            _apply(content, offset + start, data[start : start + SECTOR])


def _read_write(arguments: str) -> tuple[bytes, int]:
    quoted, rest = re.fullmatch(r'[^"]*"((?:\\x[0-9a-f]{2})*)"(.*)', arguments, re.DOTALL).groups()  # type: ignore[union-attr]  # strace's own form
    numbers = re.findall(r"\d+", rest.split(")")[0])
    return bytes.fromhex(quoted.replace("\\x", "")), int(numbers[1]) if len(numbers) > 1 else 0


def read_calls(lines: Iterator[str]) -> Iterator[Call]:
    """Read what `strace -f -y -xx` wrote: each call's beginning, then its end."""
    begun: dict[str, Call] = {}
    for line in lines:
        found = _LINE.match(line.rstrip("\n"))
        if found is None:
            continue
        thread, resumed, _, name, arguments = found.groups()
        if resumed is not None:
            if thread in begun:
                yield _ended(begun.pop(thread))
            continue
        file = _FILE.match(arguments)
        if file is None:
            continue
        path = bytes.fromhex(file[1].replace("\\x", "")).decode() if "\\x" in file[1] else file[1]
        call = Call(thread, name, path, arguments, False)
        yield call
        if arguments.endswith("<unfinished ...>"):
            begun[thread] = call
        else:
            yield _ended(call)


def _ended(call: Call) -> Call:
    return Call(call.thread, call.name, call.path, call.arguments, True)


@dataclass(slots=True)
class Outcome:
    """What the cuts came to."""

    cuts: int = 0
    acknowledged: int = 0
    synced: int = 0
    least: int = 0
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)

    @property
    def is_proof(self) -> bool:
        return not (self.lost or self.damaged or self.invalid)

    def as_json(self) -> dict[str, Any]:
        """The outcome for a file."""
        return {**asdict(self), "is_proof": self.is_proof}

    def as_line(self) -> str:
        """The outcome in a line."""
        return (
            f"{self.cuts} cuts, up to {self.acknowledged} PUTs acknowledged before, {len(self.lost)} cuts lost some,"
            f" {len(self.damaged)} left damage {self.invalid}"
        )


def cut_power(
    folder: Path, cuts: int, progress: Progress = lambda line: None, puts: int = PUTS, synchronous: str = "FULL"
) -> Outcome:
    """Trace a process that serves PUTs, cut its power at `cuts` moments, and look at what is left each time."""
    outcome = Outcome()
    if shutil.which("strace") is None:
        outcome.invalid.append("strace is not installed")
        return outcome
    files, trace, answers = _trace(folder, puts, synchronous)
    calls = list(read_calls(iter(trace.read_text().splitlines())))
    first = next((number for number, call in enumerate(calls) if call.path == str(answers)), len(calls))
    outcome.synced = sum(call.is_end and call.name.startswith("f") and "sync" in call.name for call in calls)
    dice = random.Random(8)
    moments = sorted(dice.sample(range(first, len(calls)), cuts)) if len(calls) - first > cuts else []
    if not moments:
        outcome.invalid.append(f"only {len(calls) - first} calls were traced")
    disk, told, done = Disk(files), [], 0
    for number, moment in enumerate(moments, 1):
        for call in calls[done:moment]:
            if call.path == str(answers):
                told += [] if call.is_end else [_read_write(call.arguments)[0].decode().split()]
            else:
                disk.take(call)
        done = moment
        _look(disk.after_cut(dice if number % 2 else None), folder / "after", told, f"cut {number}", outcome)
        progress(f"power cut {number} of {cuts}; {len(told)} PUTs acknowledged before")
    return outcome


def _trace(folder: Path, puts: int, synchronous: str) -> tuple[dict[str, bytearray], Path, Path]:
    """Run the writer; return its files as they were before, the trace, and the file of its answers."""
    database, trace, answers = folder / "cut.db", folder / "trace", folder / "answers"
    migrate(f"sqlite:///{database}")
    files = {str(path): bytearray(path.read_bytes()) for path in folder.glob("cut.db*")}
    traced = ["strace", "-f", "-y", "-xx", "-s", "1000000", "-e", f"trace={CALLS}", "-P", str(database)]
    traced += ["-P", f"{database}-wal", "-P", str(answers), "-o", str(trace)]
    writer = ["-m", "proof.power_writer", f"sqlite:///{database}", str(answers), str(puts), synchronous]
    subprocess.run(
        [*traced, sys.executable, *writer], cwd=ROOT, env=environment("", {}), capture_output=True, check=True
    )
    return files, trace, answers


def _read(url: str) -> tuple[list[Row], list[str]]:
    try:
        rows, damage = read_chart(url, CHART)
        return rows, damage + check_file(url)
    except (StateServiceError, SQLAlchemyError, sqlite3.Error) as error:
        return [], [str(error)]


def _look(files: dict[str, bytes], folder: Path, told: list[list[str]], name: str, outcome: Outcome) -> None:
    """Open what is left of the files, as a restarted service would, and hold it against what had been answered."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, content in files.items():
        (folder / Path(path).name).write_bytes(content)
    url = f"sqlite:///{folder / 'cut.db'}"
    rows, damage = _read(url)
    logged = {(str(row.logged.seq), row.logged.machine) for row in rows}
    lost = [answer for answer in told if tuple(answer) not in logged]
    outcome.cuts += 1
    outcome.acknowledged = max(outcome.acknowledged, len(told))
    if lost:
        outcome.lost.append(f"{name}: {len(lost)} of {len(told)} acknowledged PUTs are gone, first seq {lost[0][0]}")
    if damage:
        outcome.damaged.append(f"{name}: {damage[:3]}")
