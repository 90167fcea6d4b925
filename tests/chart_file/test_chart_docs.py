"""docs/charts.md agrees with the chart reader: its charts parse, and its problems are the real messages."""

from __future__ import annotations

import re

import pytest

from app.chart_file import parse
from app.core.errors import Problem
from tests.chart_file.support import CHARTS, SEED, problems_of
from tests.chart_file.test_parse_problems import CASES, split_mark

PAGE = (CHARTS.parent / "docs" / "charts.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
PROBLEMS = re.findall(
    r"^\| `(.*?)` \|", PAGE.partition("## Problems")[2].partition("## Warnings")[0], flags=re.MULTILINE
)
# These messages have tests elsewhere, because they need bytes, many states or a missing name.
ELSEWHERE = {
    "not UTF-8: the byte 0xE9",
    "the chart has 10001 states, over 10000",
    "the chart has no name: add 'chart: NAME'",
    "down: '<5' is not a limit such as '>5', '>=6' or '>2%'",
    "never down >2 at halted can be broken: 3 machines can be down",
}


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_docs_show_charts_that_parse_without_warnings(text: str) -> None:
    assert not [warning for warning in parse(text, default_name="x").warnings if text != SEED]


def test_docs_list_problems_as_the_parser_reports_them() -> None:
    real = {problem.message for marked, _ in CASES.values() for problem in find_problems(marked)}
    assert set(PROBLEMS) - real == ELSEWHERE


def find_problems(marked: str) -> tuple[Problem, ...]:
    """Return the problems of a text that contains a mark."""
    return problems_of(split_mark(marked)[0])
