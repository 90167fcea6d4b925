"""The benchmark: this service beside its peers, in one run on one machine: `make bench`, `python -m bench.run`.

Each figure is the median of rounds in turn (ours, the peer, ours, ...), with the least and the most of them. Everything
is as shipped: gunicorn.conf.py, wsgi.py, every setting its default; SQLite with synchronous=FULL, PostgreSQL with fsync
and synchronous_commit on. Writes build/bench.json and prints a Markdown table. Exits 1 where a goal is not met or a
round is not valid.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.databases import Databases, databases
from bench.growth import measure_log, measure_many, measure_states
from bench.load import measure_charts, measure_get, measure_hot, measure_machines
from bench.moments import measure_clocks, measure_import, measure_waiters
from bench.peers import measure_peers
from bench.rosters import measure_claims, measure_rosters
from bench.rounds import Options
from bench.table import Row, read_row, render_table
from bench.wrk import InvalidRoundError
from tests.support.servers import ROOT

REPORT = ROOT / "build" / "bench.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
PROGRAMS = ("wrk", "etcd")

Part = Callable[[Databases, Options], list[Row]]
PARTS: dict[str, Part] = {
    "get": measure_get,
    "hot": measure_hot,
    "charts": measure_charts,
    "machines": measure_machines,
    "states": measure_states,
    "log": measure_log,
    "many": measure_many,
    "waiters": measure_waiters,
    "clocks": measure_clocks,
    "import": measure_import,
    "claims": measure_claims,
    "rosters": measure_rosters,
    "peers": measure_peers,
}


def main() -> None:
    """Measure what was asked for, write it down and print it."""
    options, names, is_for_docs = read_arguments()
    if is_for_docs:
        write_docs(json.loads(REPORT.read_text()))
        return
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} must be installed: as root, `sh tests/e2e/install.sh bench/packages.txt`")
    # A stop ends what was started, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    report = measure(options, names)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=1) + "\n")
    print(describe(report))
    bad = [row["what"] for row in report["rows"] if row["is_met"] is False]
    invalid, where = len(report["invalid"]), REPORT.relative_to(ROOT)
    print(f"\n{len(bad)} goals not met, {invalid} parts not valid; each round is in {where}")
    sys.exit(bool(bad or report["invalid"]))


def read_arguments() -> tuple[Options, list[str], bool]:
    """The options, the parts asked for, and whether the docs are to be written instead."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Options()
    parser.add_argument("--only", action="append", choices=PARTS, metavar="NAME", help=f"one of {', '.join(PARTS)}")
    for name, value in asdict(default).items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=value, metavar="N", help=f"(default: {value})"
        )
    parser.add_argument(
        "--write-docs", action="store_true", help="put the table of the last run into docs/performance.md"
    )
    given = vars(parser.parse_args())
    names, is_for_docs = given.pop("only") or list(PARTS), given.pop("write_docs")
    return Options(**given), names, is_for_docs


def measure(options: Options, names: list[str]) -> dict[str, Any]:
    """Run these parts, one after another."""
    started = time.monotonic()
    rows: list[Row] = []
    invalid: dict[str, str] = {}
    with databases() as found:
        for name in names:
            begun = time.monotonic()
            try:
                rows += PARTS[name](found, options)
            except InvalidRoundError as error:
                invalid[name] = str(error)
            note = f": NOT VALID: {invalid[name]}" if name in invalid else ""
            print(f"{name}: {time.monotonic() - begun:.0f} s{note}", file=sys.stderr, flush=True)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started),
        "machine": describe_machine(),
        "options": asdict(options),
        "rows": [row.as_json() for row in rows],
        "invalid": invalid,
    }


def describe_machine() -> dict[str, Any]:
    """What it ran on, and how busy that was."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpus": os.cpu_count(),
        "memory_gb": round(memory / 1e9),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[2], 2),
    }


def describe(report: dict[str, Any]) -> str:
    """The table, and what one must know to read it."""
    machine, options = report["machine"], report["options"]
    head = (
        f"Measured {report['at'][:10]} in {report['seconds']} s on {machine['cpus']} CPUs and"
        f" {machine['memory_gb']} GB, which the load, the server and the database share; Python {machine['python']};"
        f" {options['rounds']} rounds of {options['seconds']} s each in turn: median (least to most)."
    )
    broken = [f"\nNot valid: {name}: {why}" for name, why in report["invalid"].items()]
    return "\n".join([head, "", render_table([read_row(row) for row in report["rows"]]), *broken])


def write_docs(report: dict[str, Any], page: Path = PAGE) -> None:
    """Put the table between the two marks in docs/performance.md."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{describe(report)}\n\n{END}{after}")


if __name__ == "__main__":
    main()
