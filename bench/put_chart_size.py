"""Time a PUT on a chart of 3 states and of 10,000, on both databases: `python bench/put_chart_size.py`.

A PUT must not cost more because its chart is larger: exits 1 where the ratio of the medians is over 1.5. The two
charts are asked in turn, so that whatever else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a plain script sees only its own folder

from app.service.authors import Author
from app.service.context import Service
from app.service.imports import ImportRequest, import_chart
from app.service.update import Put, update
from tests.service.support import opened_service
from tests.support.databases import new_database

GOAL = 1.5
NEVER = 2**62


def build_text(states: int) -> str:
    """Return a chart file with that many states in a chain, the first of which is never done."""
    current = "current: {key: c,value: 0}"
    counted = [
        f"- {{name: s{n},func: increment,{current},target: {{name: s{n + 1},when: {{key: c,value: {goal}}}}}}}"
        for n, goal in zip(range(1, states), [NEVER, *[1] * states], strict=False)
    ]
    return "\n".join(["current_state: s1", "states:", *counted, f"- {{name: s{states}}}", ""])


def measure(service: Service, names: list[str], puts: int) -> list[float]:
    """Return the median milliseconds of a PUT on each chart, the first tenth left out."""
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(puts):
        for name in names:
            started = time.perf_counter()
            update(service, name, Put("s1", machine=f"m{number}"), Author())
            taken[name].append((time.perf_counter() - started) * 1000)
    return [statistics.median(taken[name][puts // 10 :]) for name in names]


def compare(which: str, sizes: list[int], puts: int) -> float:
    """Print the medians on one database; return their ratio."""
    names = [f"chart-of-{size}" for size in sizes]
    with (
        tempfile.TemporaryDirectory(prefix="put-", ignore_cleanup_errors=True) as folder,
        new_database(which, Path(folder)) as url,
        opened_service(url) as service,
    ):
        for name, size in zip(names, sizes, strict=True):
            import_chart(service, ImportRequest(build_text(size), name=name), Author())
        small, large = measure(service, names, puts)
    ratio = large / small
    print(f"{which}: {sizes[0]} states {small:.2f} ms, {sizes[1]} states {large:.2f} ms, ratio {ratio:.2f}")
    return ratio


def main() -> None:
    """Print the medians and their ratio for each database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--puts", type=int, default=400, metavar="N", help="PUTs on each chart (default: 400)")
    parser.add_argument("--states", type=int, nargs=2, default=[3, 10_000], metavar="N", help="(default: 3 10000)")
    parser.add_argument("databases", nargs="*", default=["sqlite", "postgresql"], help="sqlite, postgresql or a URL")
    given = parser.parse_args()
    ratios = [compare(which, given.states, given.puts) for which in given.databases]
    sys.exit(any(ratio > GOAL for ratio in ratios))


if __name__ == "__main__":
    main()
