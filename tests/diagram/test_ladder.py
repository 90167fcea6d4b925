"""On a phone the states of a chart are below each other, in one column."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given

from app.core.chart import Chart
from app.core.plan import find_main_path
from app.diagram import Snapshot, draw
from app.diagram.draw import WIDTH, Ladder
from app.diagram.layout import BOX_HEIGHT
from tests.diagram.support import ROLLOUT, chain, parsed
from tests.diagram.test_layout import charts


def texts(svg: str) -> list[str]:
    """The words of the short arrows: where each leads, and when."""
    part = re.search(r'<g class="d-stubs".*?(?=<g class="d-states")', svg)
    assert part is not None
    return ["".join(text.itertext()) for text in ET.fromstring(part[0]).iter("text")]


def test_main_path_comes_first_from_top_to_bottom() -> None:
    chart = parsed(ROLLOUT)
    ladder = Ladder(chart)
    order = sorted(chart.states, key=lambda name: ladder.box(name)[1])
    assert order[:4] == find_main_path(chart) == ["canary", "fleet", "freeze", "done"]


@given(charts())
def test_any_chart_has_boxes_apart_and_a_line_for_each_arrow(chart: Chart) -> None:
    ladder = Ladder(chart)
    tops = sorted(ladder.box(name)[1] for name in chart.states)
    assert all(after - top > BOX_HEIGHT for top, after in pairwise(tops))
    pairs = sorted((line.arrow.source, line.arrow.target) for line in ladder.list_lines())
    assert pairs == sorted({(name, item.target) for name, state in chart.states.items() for item in state.transitions})
    assert all(0 < x < WIDTH and 0 < y < ladder.height for line in ladder.list_lines() for x, y in line.corners)


@given(charts())
def test_texts_are_between_the_boxes(chart: Chart) -> None:
    ladder = Ladder(chart)
    boxes = [ladder.box(name)[1] for name in chart.states]
    rows = [one.at[1] for one in ladder.list_exits()]
    assert not [(top, y) for y in rows for top in boxes if top - 8 < y < top + BOX_HEIGHT + 8]
    assert len(set(rows)) == len(rows)


def test_short_arrow_says_where_it_leads_and_when() -> None:
    said = texts(draw(parsed(ROLLOUT), is_narrow=True))
    assert "rolled_back: failed ≥ 1rolled_back failed ≥ 1" in said
    assert len([text for text in said if text.startswith("canary: again")]) == 1


@pytest.mark.parametrize("length", [9, 60])
def test_picture_is_as_wide_as_a_phone_however_long_the_chart_is(length: int) -> None:
    svg = ET.fromstring(draw(chain(length), is_narrow=True))
    assert svg.get("width") == f"{WIDTH:.0f}"


def test_state_that_the_run_has_been_in_is_a_link_and_the_path_is_thick() -> None:
    snapshot = Snapshot("s30", {"count": 0, "failed": 0, "again": 0}, passed={"s0": 1}, taken=frozenset({("s0", "s1")}))
    svg = draw(chain(40), snapshot, link=lambda name: f"#{name}", is_narrow=True)
    # The box of s0, and each arrow to it.
    assert svg.count('<a href="#s0">') == 1 + 38
    assert "#abort" not in svg
    assert svg.count('class="d-taken"') == 1
    ET.fromstring(svg)


def test_arrow_of_the_clock_is_dashed() -> None:
    text = "current_state: a\nstates:\n  - {name: a, func: time, target: {name: b, when: {key: elapsed, value: 1h}}}\n"
    assert "stroke-dasharray" in draw(parsed(text + "  - name: b\n"), is_narrow=True)
