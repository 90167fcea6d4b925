"""A wide chart is wrapped into rows, and arrows that run together are drawn once."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given

from app.core.chart import Chart
from app.diagram import Snapshot, draw
from app.diagram.layout import Line
from app.diagram.rows import ROW_WIDTH, Rows
from tests.diagram.support import ROLLOUT, chain, parsed
from tests.diagram.test_layout import charts

BOX = 110.0
MIXED = """\
current_state: a
states:
  - {name: a, func: increment, current: {key: count, value: 0}, target: [{name: b, when: {key: count, value: 1}},
     {name: off, when: {key: elapsed, value: 1h}}]}
  - {name: b, func: increment, current: [{key: count, value: 0}, {key: failed, value: 0}],
     target: [{name: c, when: {key: count, value: 1}}, {name: off, when: {key: failed, value: 1}}]}
  - {name: c, func: increment, current: {key: count, value: 0}, target: [{name: d, when: {key: count, value: 1}},
     {name: off, when: {key: elapsed, value: 1h}}]}
  - name: d
  - name: off
"""


def stretches(line: Line) -> list[tuple[float, float, float]]:
    """The level stretches of an arrow as it is drawn: their height, left and right."""
    corners = line.drawn or line.corners
    pairs = pairwise(corners)
    return [(y, min(x, other), max(x, other)) for (x, y), (other, end) in pairs if y == end]


def overlaps(lines: list[Line]) -> list[tuple[Line, Line]]:
    """Pairs of arrows of which one is drawn on top of the other for more than the width of a turn."""
    return [
        (one, other)
        for number, one in enumerate(lines)
        for other in lines[number + 1 :]
        for y, left, right in stretches(one)
        for height, start, end in stretches(other)
        if y == height and min(right, end) - max(left, start) > 8
    ]


def test_small_chart_is_one_row() -> None:
    rows = Rows(parsed(ROLLOUT), BOX)
    assert {rows.middle(name) for name in ("canary", "fleet", "freeze", "done")} == {rows.middle("canary")}
    assert rows.list_stubs() == []


@pytest.mark.parametrize("length", [9, 40, 200])
def test_wide_chart_is_no_wider_than_a_page(length: int) -> None:
    rows = Rows(chain(length), BOX)
    assert rows.width <= ROW_WIDTH
    assert len({rows.middle(f"s{number}") for number in range(length - 1)}) > 1


def test_each_state_has_one_box_and_stubs_name_the_states_of_other_rows() -> None:
    chart = chain(40)
    rows = Rows(chart, BOX)
    assert len({rows.box(name) for name in chart.states}) == 40
    assert {name for name, _ in rows.list_stubs()} == {"s0", "abort"}


def test_arrow_at_the_end_of_a_row_leads_to_the_start_of_the_next_one() -> None:
    rows = Rows(chain(40), BOX)
    ends = {(line.arrow.source, line.arrow.target): line.corners[-1] for line in rows.list_lines()}
    for number in range(38):
        left, _ = rows.box(f"s{number + 1}")
        assert ends[f"s{number}", f"s{number + 1}"] == (left, rows.middle(f"s{number + 1}"))


@given(charts())
def test_any_chart_has_a_box_for_each_state_and_a_line_for_each_arrow(chart: Chart) -> None:
    rows = Rows(chart, 230.0)
    assert len({rows.box(name) for name in chart.states}) == len(chart.states)
    pairs = sorted((line.arrow.source, line.arrow.target) for line in rows.list_lines())
    assert pairs == sorted({(name, item.target) for name, state in chart.states.items() for item in state.transitions})


@pytest.mark.parametrize("chart", [chain(40), parsed(ROLLOUT), parsed(MIXED)], ids=["chain", "rollout", "mixed"])
def test_arrows_are_not_drawn_on_top_of_each_other(chart: Chart) -> None:
    assert overlaps(list(Rows(chart, BOX).list_lines())) == []


def test_stub_of_a_state_that_the_run_has_been_in_is_a_link() -> None:
    snapshot = Snapshot("s30", {"count": 0, "failed": 0, "again": 0}, passed={"s0": 1}, taken=frozenset({("s0", "s1")}))
    svg = draw(chain(40), snapshot, link=lambda name: f"#{name}")
    stubs = re.search(r'<g class="d-stubs".*?</g></a></g>|<g class="d-stubs".*?(?=<g class="d-states")', svg)
    assert stubs is not None
    assert '<a href="#s0">' in stubs[0]
    assert "#abort" not in stubs[0]
    assert svg.count('class="d-taken"') == 1
    ET.fromstring(svg)
