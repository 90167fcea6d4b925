"""Runs pgbench: the same statements on the same row, from 16 clients in C; what PostgreSQL itself can do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from app.db.engine import normalize_url, str_url
from bench.statements import pgbench_script
from bench.wrk import InvalidRoundError, Sample

CLIENTS = 16
THREADS = 2


def run_pgbench(programs: Path, url: str, folder: Path, *, seconds: int) -> Sample:
    """PUTs on the hot chart for `seconds`. Raises InvalidRoundError."""
    script = folder / "put.sql"
    script.write_text(pgbench_script())
    command = [str(programs / "pgbench"), "--no-vacuum", "--protocol", "prepared", "--file", str(script)]
    command += ["--client", str(CLIENTS), "--jobs", str(THREADS), "--time", str(seconds)]
    command.append(str_url(normalize_url(url).set(drivername="postgresql")))
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0:
        raise InvalidRoundError(f"pgbench ended with {done.returncode}: {done.stderr[-2000:]}")
    return read_pgbench(done.stdout)


def read_pgbench(output: str) -> Sample:
    """The transactions a second in pgbench's output. Raises InvalidRoundError where one failed."""
    rate = re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", output, re.MULTILINE)
    if rate is None or (failed is not None and failed.group(1) != "0"):
        raise InvalidRoundError(f"pgbench: {output}")
    return Sample(float(rate.group(1)))
