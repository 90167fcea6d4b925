"""5,000 machines report three times at once each, and 1,000 keys are sent 16 times at once: `python -m bench.machines`.

Starts a server of its own on a new database, asserts that each machine and each key counted once, that everybody got
a yes, and that the log verifies; prints the rates.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from tests.support.databases import new_database
from tests.support.rush import PROCESSES, SENDS, rush_of_keys, rush_of_machines
from tests.support.servers import running, wait_for_listeners

KEY_THREADS = 2


def main() -> None:
    """Run both rushes on each database and print their rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=5000, metavar="N", help="how many report (default: 5000)")
    parser.add_argument("--keys", type=int, default=1000, metavar="N", help="how many keys are sent (default: 1000)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="worker processes (default: 2)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the order they come in (default: 1)")
    parser.add_argument(
        "--database", action="append", metavar="WHICH", help="sqlite, postgresql or a URL (default: both)"
    )
    options = parser.parse_args()
    print(f"{PROCESSES} client processes, {options.workers} workers, {os.cpu_count()} CPUs, which all of them share")
    for which in options.database or ["sqlite", "postgresql"]:
        with (
            tempfile.TemporaryDirectory() as folder,
            new_database(which, Path(folder)) as url,
            running(url, Path(folder), workers=str(options.workers)) as server,
        ):
            wait_for_listeners(server, options.workers)
            took = rush_of_machines(server, "machines", options.machines, options.seed)
            report(which, f"{options.machines} machines x {SENDS} sends", options.machines * SENDS, took)
            sends = PROCESSES * KEY_THREADS
            took = rush_of_keys(server, "keys", options.keys, KEY_THREADS, options.seed)
            report(which, f"{options.keys} keys x {sends} sends", options.keys * sends, took)
            started = time.monotonic()
            server.verify()
            print(f"{which}: verify passes, in {time.monotonic() - started:.1f} s")


def report(which: str, what: str, sends: int, took: float) -> None:
    """Print a rush's rate; the time includes the start of the clients."""
    print(f"{which}: {what}: all 200, each counted once, {took:.1f} s, {sends / took:.0f} PUTs a second", flush=True)


if __name__ == "__main__":
    main()
