"""Pictures are well-formed, mark the current state, and are not too large."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given

from app.core.chart import Chart
from app.diagram import DARK, LIGHT, Form, Snapshot, draw
from app.diagram.plots import draw_sparkline, draw_stay
from tests.diagram.support import ROLLOUT, chain, parsed
from tests.diagram.test_layout import charts
from tests.support.growth import grows

SVG = "{http://www.w3.org/2000/svg}"
CHART = parsed(ROLLOUT)
SNAPSHOT = Snapshot("fleet", {"count": 213, "failed": 3, "again": 0}, passed={"canary": 5})


def groups(svg: str) -> dict[str, ET.Element]:
    """Return the group of each state by the state's name."""
    found = {}
    for group in ET.fromstring(svg).iterfind(f"{SVG}g[@class='d-states']/{SVG}g"):
        found[next(text.text or "" for text in group.iter(f"{SVG}text"))] = group
    return found


def test_svg_marks_the_current_state_and_those_passed() -> None:
    found = groups(draw(CHART, SNAPSHOT))
    assert "d-current" in found["fleet"].attrib["class"]
    assert "d-passed" in found["canary"].attrib["class"]
    assert "d-ahead" in found["done"].attrib["class"]


def test_svg_has_counts_in_the_boxes_and_guards_on_the_arrows() -> None:
    texts = [item.text for item in ET.fromstring(draw(CHART, SNAPSHOT)).iter(f"{SVG}text")]
    assert {"213 / 396 · 3 failed", "5 / 5", "by the clock"} <= set(texts)
    assert {"count ≥ 5", "failed > 4 (1%)", "after 1h", "at 2031-01-02 05:00 UTC"} <= set(texts)


def test_box_of_a_state_whose_share_is_looked_up_has_the_share_or_the_number() -> None:
    chart = parsed(ROLLOUT.replace("expect: 400", "expect: {roster: web}"))
    texts = [item.text for item in ET.fromstring(draw(chart)).iter(f"{SVG}text")]
    assert "0 / 99%" in texts
    assert texts.count("by the clock") == 1
    snapshot = Snapshot("fleet", {"count": 100, "failed": 0, "again": 0}, expected=400)
    svg = draw(chart, snapshot)
    assert "100 / 396" in [item.text for item in ET.fromstring(svg).iter(f"{SVG}text")]
    assert 'class="d-done"' in svg


def test_svg_draws_endings_with_two_rims_and_failed_ones_with_cut_corners() -> None:
    found = groups(draw(CHART, SNAPSHOT))
    assert len(found["done"].findall(f"{SVG}rect")) == 2
    assert found["rolled_back"].findall(f"{SVG}rect") == []
    assert len(found["rolled_back"].findall(f"{SVG}path")) == 3  # two rims and a cross


def test_svg_shows_a_pause_by_dashes_and_bars() -> None:
    group = groups(draw(CHART, replace(SNAPSHOT, is_paused=True)))["fleet"]
    assert group.find(f"{SVG}rect[@stroke-dasharray]") is not None
    assert group.find(f"{SVG}path[@class='d-mark d-mark-paused']") is not None


def test_svg_needs_no_other_file() -> None:
    svg = draw(CHART, SNAPSHOT)
    for word in ("<style", "style=", "<script", "href", "url(", "@import", "<image", "foreignObject"):
        assert word not in svg


def test_svg_has_a_description_in_words() -> None:
    root = ET.fromstring(draw(CHART, SNAPSHOT))
    assert root.findtext(f"{SVG}title") == "Chart rollout, now in fleet"
    assert "overdue is a failed ending" in (root.findtext(f"{SVG}desc") or "")


def test_svg_escapes_descriptions() -> None:
    assert "five &lt;first&gt; &amp; &quot;only&quot;" in draw(CHART, SNAPSHOT)


def test_dark_theme_differs_from_the_light_one() -> None:
    assert DARK.paper in draw(CHART, SNAPSHOT, theme=DARK)
    assert LIGHT.paper not in draw(CHART, SNAPSHOT, theme=DARK)


@given(charts())
def test_any_chart_makes_well_formed_svg(chart: Chart) -> None:
    ET.fromstring(draw(chart, None))


def test_description_with_control_characters_makes_well_formed_svg() -> None:
    states = {**CHART.states, "done": replace(CHART.states["done"], description="a\x00\x1b\ud800<b>")}
    ET.fromstring(draw(Chart(name="x", initial=CHART.initial, states=states), SNAPSHOT))


def test_dot_marks_the_current_state_and_the_endings() -> None:
    dot = draw(CHART, SNAPSHOT, Form.DOT)
    assert '"state fleet" [label="fleet\\n213 / 396 · 3 failed", style="rounded,filled"' in dot
    assert '"state rolled_back" [label="rolled_back", peripheries=2, shape=octagon];' in dot
    assert '"state canary" -> "state overdue" [label="after 1h", style=dashed];' in dot


def test_mermaid_marks_the_current_state_and_the_endings() -> None:
    mermaid = draw(CHART, SNAPSHOT, Form.MERMAID)
    assert mermaid.startswith("stateDiagram-v2\n")
    assert '  state "fleet [213 / 396 · 3 failed]" as s2' in mermaid
    assert "  class s2 current" in mermaid
    assert "  s4 --> [*]" in mermaid


def test_mermaid_escapes_its_special_characters() -> None:
    text = "current_state: 'a:b'\nstates: [{name: 'a:b', func: increment, current: {key: 'k:1', value: 0},"
    chart = parsed(text + " target: {name: end, when: {key: 'k:1', value: 1}}}, {name: end}]\n")
    mermaid = draw(chart, None, Form.MERMAID)
    assert 'state "a#58;b [k#58;1' not in mermaid
    assert '"a#58;b [0 / 1]"' in mermaid
    assert ": k#58;1 ≥ 1" in mermaid


def test_work_grows_with_the_states() -> None:
    snapshot = Snapshot("s50", {"count": 0, "failed": 0, "again": 0})
    small, large = chain(100), chain(200)
    assert grows(lambda: draw(small, snapshot), lambda: draw(large, snapshot)) < 2.2
    assert len(groups(draw(chain(1000), snapshot))) == 1000


@pytest.mark.parametrize("form", list(Form))
def test_picture_of_ten_thousand_states_is_no_larger_than_4_mb(form: Form) -> None:
    text = draw(chain(10_000), Snapshot("s5000", {"count": 0, "failed": 0, "again": 0}), form)
    assert len(text) < 4_000_000


def test_large_chart_shows_the_states_around_the_current_one() -> None:
    svg = draw(chain(10_000), Snapshot("s5000", {"count": 0, "failed": 0, "again": 0}))
    found = groups(svg)
    assert {"s4999", "s5000", "s5001", "abort"} <= found.keys()
    assert len(found) <= 61
    assert "d-failed" in found["abort"].attrib["class"]
    assert "10000 states; shown are those around s5000" in svg


def test_plots_are_well_formed() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    hours = [now + timedelta(hours=number) for number in range(4)]
    for svg in (
        draw_sparkline([0, 1, 2.5, 0]),
        draw_sparkline([0, 0]),
        draw_stay(hours[1], timedelta(hours=1), hours[0], hours[3]),
        draw_stay(now, timedelta(0), now, now),
    ):
        ET.fromstring(svg)
