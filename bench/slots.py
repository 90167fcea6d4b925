"""Let 200 machines churn through 7 slots for a minute, clients and workers crashing: `python -m bench.slots`.

Starts a server of four workers on a new database, kills one of them now and then, and reads the log afterwards: it
must never show more slots held than there are, and must lead to what the tables have. Prints the figures.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.churn import churn
from tests.support.databases import new_database


def main() -> None:
    """Run it on one database or on both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("databases", nargs="*", default=["sqlite", "postgresql"], help="sqlite, postgresql, or a URL")
    parser.add_argument("--machines", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--kill-every", type=float, default=3, metavar="SECONDS")
    options = parser.parse_args()
    is_bad = False
    for which in options.databases:
        with tempfile.TemporaryDirectory() as folder, new_database(which, Path(folder)) as url:
            result = churn(
                url,
                Path(folder),
                machines=options.machines,
                seconds=options.seconds,
                kill_every=options.kill_every,
            )
        print(f"{which}: {options.machines} machines, {options.seconds:.0f} s")
        for line in [*result.lines(), *(f"PROBLEM: {problem}" for problem in result.problems)]:
            print(f"  {line}")
        is_bad |= bool(result.problems)
    sys.exit(is_bad)


if __name__ == "__main__":
    main()
