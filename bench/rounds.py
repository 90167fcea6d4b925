"""Rounds in turn: ours, the peer, ours, the peer; so that whatever else the machine does meets both alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.charts import HOT, STATE
from bench.wrk import LOAD, Sample, run_wrk

CONNECTIONS = (16, 64)
HOT_PATH = f"/charts/{HOT}/state?state={STATE}"
TITLES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

Ask = Callable[[int], Sample]
Samples = dict[str, list[Sample]]


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how much: rounds, the seconds of each, and the sizes that things grow to."""

    rounds: int = 5
    seconds: int = 2
    log_rows: int = 10_000_000
    charts: int = 100_000
    clocks: int = 2000
    states: int = 10_000
    # One process opens a socket for each of them; many systems grant it 20,000 files.
    waiters: int = 19_000
    roster_lines: int = 1_000_000


def take_turns(contenders: Mapping[str, Ask], options: Options) -> Samples:
    """Each contender's samples. Each is asked for a second first, which does not count."""
    samples: Samples = {name: [] for name in contenders}
    for ask in contenders.values():
        ask(1)
    for _ in range(options.rounds):
        for name, ask in contenders.items():
            samples[name].append(ask(options.seconds))
    return samples


def wrk(
    port: int, method: str, path: str, connections: int = 16, *, charts: int = 1, body: str = "", script: Path = LOAD
) -> Ask:
    """Asks that server, with wrk."""

    def ask(seconds: int) -> Sample:
        options = {"connections": connections, "seconds": seconds, "charts": charts}
        return run_wrk(port, method, path, **options, body=body, script=script)

    return ask


def rates(samples: list[Sample]) -> list[float]:
    """The answers a second of each round."""
    return [sample.rate for sample in samples]
