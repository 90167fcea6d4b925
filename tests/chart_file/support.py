"""What the tests of the chart file share."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.chart_file import parse
from app.core.chart import Chart
from app.core.errors import ChartFileError, Problem

CHARTS = Path(__file__).resolve().parents[2] / "charts"
SAMPLES = sorted(CHARTS.glob("*.yaml"))

SEED = """\
current_state: green_state
states:
  - name: green_state
    func: increment
    current: {key: count, value: 0}
    target:
      name: red_state
      when: {key: count, value: 1}
  - name: red_state
    func: increment
    current: {key: count, value: 0}
    target: {name: blue_state, when: {key: count, value: 1}}
  - name: blue_state
"""


def read(text: str | bytes) -> Chart:
    """Return the chart of a file that does not have to name it."""
    return parse(text, default_name="test").chart


def problems_of(text: str | bytes) -> tuple[Problem, ...]:
    """Return the problems of a file; the test fails if there are none."""
    with pytest.raises(ChartFileError) as caught:
        parse(text, default_name="test")
    return caught.value.problems


def counted(when: str, *, head: str = "", func: str = "increment", more: str = "") -> str:
    """Return a chart of one counted state, whose guard is `when`, and a final one."""
    return f"""\
current_state: a
{head}
states:
- {{name: a, func: {func}, current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]{more},
   target: {{name: b, when: {when}}}}}
- {{name: b}}
"""


def timed(when: str) -> str:
    """Return a chart of one time state, whose guard is `when`, and a final one."""
    return f"current_state: a\nstates:\n- {{name: a, func: time, target: {{name: b, when: {when}}}}}\n- {{name: b}}\n"
