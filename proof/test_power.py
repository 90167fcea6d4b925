"""The simulated disk keeps what was synced; `make prove` cuts the power of a real process with it."""

from __future__ import annotations

import random

import pytest

from proof.mutants import read_mutants
from proof.power import Disk, read_calls

FILE = "3<\\x2f\\x61>"


def hexed(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


def write(data: bytes, offset: int) -> str:
    return f'7  pwrite64({FILE}, "{hexed(data)}", {len(data)}, {offset}) = {len(data)}'


SYNC = f"7  fsync({FILE}) = 0"
BEGUN = f"7  fdatasync({FILE} <unfinished ...>"
ENDED = "7  <... fdatasync resumed>) = 0"

TRACES = {
    "nothing is written": ([], b"old"),
    "a write is not synced": ([write(b"new", 0)], b"old"),
    "a write is synced": ([write(b"new", 0), SYNC], b"new"),
    "a write follows the sync": ([write(b"new", 0), SYNC, write(b"x", 0)], b"new"),
    "a write beyond the end is synced": ([write(b"x", 5), SYNC], b"old\0\0x"),
    "a cut is synced": ([f"7  ftruncate({FILE}, 1) = 0", SYNC], b"o"),
    "a sync has not ended": ([write(b"new", 0), BEGUN], b"old"),
    "a sync has ended": ([write(b"new", 0), BEGUN, ENDED], b"new"),
    "another writes during the sync": ([write(b"new", 0), BEGUN, write(b"x", 0).replace("7", "8", 1), ENDED], b"new"),
    "a signal interrupts": (["7  --- SIGCHLD {} ---", write(b"new", 0), SYNC, "7  +++ exited with 0 +++"], b"new"),
}


@pytest.mark.parametrize(("lines", "left"), TRACES.values(), ids=TRACES)
def test_disk_keeps_what_was_synced_when(lines: list[str], left: bytes) -> None:
    assert replayed(lines).after_cut(None) == {"/a": left}


def replayed(lines: list[str]) -> Disk:
    disk = Disk({"/a": bytearray(b"old")})
    for call in read_calls(iter(lines)):
        disk.take(call)
    return disk


def test_harsher_disk_keeps_any_sector_of_what_was_not_synced() -> None:
    disk = replayed([write(b"x" * 512 + b"y" * 512, 0)])
    assert len({disk.after_cut(random.Random(seed))["/a"] for seed in range(50)}) == 4


def test_chart_file_reader_knows_one_kind_of_error() -> None:
    assert read_mutants(seed=8, count=300).wrong == []
