"""Time the parsing and dumping of a big chart: `python bench/parse_chart.py --states 10000`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a plain script sees only its own folder

from app.chart_file import dump, parse


def build_text(states: int) -> str:
    """Return a chart file with that many states in a chain, as compact as YAML allows."""
    current = "current: {key: c,value: 0}"
    when = "when: {key: c,value: 1}"
    counted = [
        f"- {{name: s{n},func: increment,{current},target: {{name: s{n + 1},{when}}}}}" for n in range(1, states)
    ]
    return "\n".join(["chart: big", "current_state: s1", "states:", *counted, f"- {{name: s{states}}}", ""])


def main() -> None:
    """Print how long one parse and one dump take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=10_000, metavar="N", help="how many states (default: 10000)")
    text = build_text(parser.parse_args().states)
    started = time.perf_counter()
    chart = parse(text).chart
    parsed = time.perf_counter()
    dump(chart, state=chart.initial, values={})
    dumped = time.perf_counter()
    print(
        f"{len(chart.states)} states, {len(text)} bytes: parse {parsed - started:.2f} s, dump {dumped - parsed:.2f} s"
    )


if __name__ == "__main__":
    main()
