"""Text to chart, with every problem or none."""

from __future__ import annotations

from dataclasses import dataclass

from app.chart_file.chart_reader import Names, read_chart
from app.chart_file.nodes import read_nodes
from app.chart_file.problems import Problems
from app.chart_file.source import blank_preamble, decode
from app.core.chart import Chart
from app.core.errors import ChartFileError, Problem


@dataclass(frozen=True, slots=True)
class ParsedChart:
    """A chart, what is doubtful about it, and the text it was read from."""

    chart: Chart
    warnings: tuple[Problem, ...]
    text: str


def parse(text: str | bytes, *, name: str | None = None, default_name: str | None = None) -> ParsedChart:
    """Return the chart that the file's text defines; ChartFileError with every problem where it defines none.

    `name` wins over the file's own `chart:`, which wins over `default_name`.
    """
    problems, warnings = Problems(), Problems()
    decoded = decode(text, problems)
    root = None if decoded is None else read_nodes(blank_preamble(decoded), problems)
    chart = None if root is None else read_chart(root, Names(name, default_name), problems, warnings)
    if decoded is None or chart is None:
        raise ChartFileError(problems.in_order())
    return ParsedChart(chart, warnings.in_order(), decoded)
