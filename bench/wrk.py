"""Runs wrk and reads what it found."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

THREADS = 2
LOAD = Path(__file__).with_name("load.lua")


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: answers a second, and how long half and 99 % of them took at most, in microseconds."""

    rate: float
    p50: float = 0
    p99: float = 0
    requests: int = 0


class InvalidRoundError(Exception):
    """A run whose figure would mean nothing: something was refused or broke."""


def run_wrk(
    port: int,
    method: str,
    path: str,
    *,
    connections: int,
    seconds: int,
    charts: int = 1,
    body: str = "",
    script: Path = LOAD,
) -> Sample:
    """Ask for `seconds` over `connections`. Raises InvalidRoundError where an answer was not 200."""
    command = ["wrk", f"-t{min(THREADS, connections)}", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += [
        "-s",
        str(script),
        f"http://127.0.0.1:{port}/",
        "--",
        method,
        path,
        str(charts),
        *([body] if body else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0:
        raise InvalidRoundError(f"wrk ended with {done.returncode}: {done.stdout} {done.stderr}")
    return read_report(done.stdout, f"{method} {path}")


def read_report(output: str, what: str) -> Sample:
    """The figures in wrk's output. Raises InvalidRoundError."""
    reports = [line.removeprefix("REPORT ") for line in output.splitlines() if line.startswith("REPORT ")]
    if len(reports) != 1:
        raise InvalidRoundError(f"{what}: wrk reported nothing: {output}")
    found = json.loads(reports[0])
    if found["refused"] or found["broken"] or not found["requests"]:
        raise InvalidRoundError(f"{what}: not every answer was a yes: {found}")
    counted = found.get("accepted", found["requests"])
    return Sample(counted / found["seconds"], found["p50"], found["p99"], found["requests"])
