"""Chart files spoilt in every way: the reader answers each in time, with a chart or with its one kind of error."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from app.chart_file import parse
from app.core.errors import ChartFileError
from proof.campaign import Progress
from tests.support.servers import ROOT

LIMIT = 0.1
# What a process may grow by while it reads: buffers and caches of the first thousands.
FLAT_BYTES = 16 << 20
WARM = 5000
SPICE = (
    *(b"&a ", b"*a", b"!!x ", b"<<: ", b"[", b"{", b"]", b"}", b"---\n", b"\t", b"\x00", b"\xff", b"\r", b'"', b"'"),
    *(b"?", b"- ", b": ", b"#", b"|\n", b">\n", b"9" * 30, b"-", b"%", b"P1D", "\u2028".encode(), b"\xed\xa0\x80"),
)


@dataclass(slots=True)
class Outcome:
    """What the mutants came to."""

    mutants: int = 0
    accepted: int = 0
    slowest: float = 0.0
    grown: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def is_proof(self) -> bool:
        return not self.wrong and self.slowest < LIMIT and self.grown < FLAT_BYTES

    def as_json(self) -> dict[str, Any]:
        """The outcome for a file."""
        return {**asdict(self), "is_proof": self.is_proof}

    def as_line(self) -> str:
        """The outcome in a line."""
        return (
            f"{self.mutants} read, {self.accepted} still charts, {len(self.wrong)} other errors, slowest"
            f" {self.slowest * 1000:.1f} ms of CPU, memory grew by {self.grown >> 10} KiB"
        )


def spoil(source: bytes, dice: random.Random) -> bytes:
    """The source with a few of its parts changed, removed, doubled, moved or spiced."""
    text = bytearray(source)
    for _ in range(dice.randint(1, 4)):
        at, size = dice.randrange(len(text) + 1), dice.choice((1, 1, 2, 8, 40))
        part = bytes(text[at : at + size])
        match dice.randrange(5):
            case 0:
                text[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del text[at : at + size]
            case 2:
                text[at:at] = part * dice.choice((1, 2, 20))
            case 3:
                del text[at : at + size]
                there = dice.randrange(len(text) + 1)
                text[there:there] = part
            case _:
                text[at:at] = dice.choice(SPICE)
    return bytes(text)


def read_mutants(seed: int, count: int) -> Outcome:
    """Read `count` mutants of the sample charts."""
    dice, outcome = random.Random(seed), Outcome()
    sources = [path.read_bytes() for path in sorted((ROOT / "charts").glob("*.yaml"))]
    memory = psutil.Process(os.getpid()).memory_info
    before = 0
    for number in range(count):
        if number == min(WARM, count // 2):
            before = memory().rss
        _read(spoil(dice.choice(sources), dice), outcome)
    outcome.grown = max(memory().rss - before, 0)
    return outcome


def _read(text: bytes, outcome: Outcome) -> None:
    started = time.thread_time()
    try:
        parse(text, default_name="mutant")
        outcome.accepted += 1
    except ChartFileError:
        pass
    except Exception as error:
        outcome.wrong.append(f"{type(error).__name__}: {error}: {text!r}"[:500])
    outcome.slowest = max(outcome.slowest, time.thread_time() - started)
    outcome.mutants += 1


def mutate(count: int, progress: Progress = lambda line: None, processes: int = 2) -> Outcome:
    """Read `count` mutants in several processes."""
    total, parts = Outcome(), 20 * processes
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        shares = [(seed, count // parts) for seed in range(parts)]
        for found in pool.imap_unordered(_read_share, shares):
            total.mutants += found.mutants
            total.accepted += found.accepted
            total.slowest = max(total.slowest, found.slowest)
            total.grown = max(total.grown, found.grown)
            total.wrong += found.wrong
            progress(f"{total.mutants} of {count} mutants read")
    return total


def _read_share(share: tuple[int, int]) -> Outcome:
    return read_mutants(*share)
