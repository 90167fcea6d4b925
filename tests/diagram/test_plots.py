"""Plots: a count over time, its threshold, and where it is going."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import pytest

from app.diagram.plots import (
    HEIGHT,
    PLANNED_COLOURS,
    WIDTH,
    Curve,
    Panel,
    Stretch,
    draw_axis,
    draw_panel,
    draw_shares,
    list_ticks,
    pick_colours,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
STRETCH = Stretch(NOON, NOON + HOUR, NOON + 2 * HOUR)


def panel(**changes: object) -> Panel:
    fields: dict[str, object] = {
        "kind": "reports",
        "points": [(NOON, 0.0), (NOON + HOUR, 50.0)],
        "threshold": 100,
        "label": "done at 100",
        "says": "50 of 100 on count",
    }
    return Panel(**{**fields, **changes})  # type: ignore[arg-type]


def paths(svg: str, name: str) -> list[str]:
    return re.findall(rf'<path class="{name}" d="([^"]+)"', svg)


@pytest.mark.parametrize(
    ("most", "count", "ticks"),
    [
        (1.08, 5, [0, 1]),
        (4, 5, [0, 1, 2, 3, 4]),
        (108, 5, [0, 50, 100]),
        (2138.4, 5, [0, 500, 1000, 1500, 2000]),
        (22.7, 2, [0, 20]),
    ],
)
def test_axis_has_few_round_numbers(most: float, count: int, ticks: list[int]) -> None:
    assert list_ticks(most, count) == ticks


def test_threshold_is_a_line_across_with_its_label() -> None:
    svg = draw_panel(panel(), STRETCH)
    y = f"{(1 - 100 / 108) * HEIGHT:.1f}"
    assert paths(svg, "p-limit") == [f"M0,{y}H{WIDTH}"]
    assert ">done at 100</text>" in svg
    assert "<title>50 of 100 on count</title>" in svg


def test_count_ends_now_and_its_projection_meets_the_threshold_at_the_forecast() -> None:
    svg = draw_panel(panel(aims=[NOON + 2 * HOUR]), STRETCH)
    now, goal = f"300.0,{(1 - 50 / 108) * HEIGHT:.1f}", f"600.0,{(1 - 100 / 108) * HEIGHT:.1f}"
    assert paths(svg, "p-line")[0].endswith(f"L{now}")
    assert paths(svg, "p-aim") == [f"M{now}L{goal}"]


def test_projection_stops_at_the_edge_of_the_plot() -> None:
    (aim,) = paths(draw_panel(panel(aims=[NOON + 3 * HOUR]), STRETCH), "p-aim")
    assert aim.endswith(f"L600.0,{(1 - 75 / 108) * HEIGHT:.1f}")


def test_marks_are_lines_upwards_with_a_word() -> None:
    svg = draw_panel(panel(), STRETCH, [(NOON + HOUR / 2, "now"), (NOON + 1.5 * HOUR, "<overdue>")])
    assert paths(svg, "p-mark") == [f"M150.0,0V{HEIGHT}", f"M450.0,0V{HEIGHT}"]
    assert ">now</text>" in svg
    assert ">&lt;overdue&gt;</text>" in svg


def test_plot_and_axis_are_well_formed_without_a_threshold_or_time() -> None:
    nothing = panel(points=[(NOON, 0.0), (NOON, 0.0)], threshold=None, label="")
    for svg in (draw_axis(nothing), draw_panel(nothing, Stretch(NOON, NOON, NOON), [(NOON, "now")])):
        ET.fromstring(svg)


def test_failure_that_is_most_frequent_is_not_green() -> None:
    curves = [Curve(name, [1.0, 2.0], is_failed=name != "done") for name in ("rolled_back", "done", "overdue")]
    rolled_back, done, overdue = pick_colours(curves)
    assert done in PLANNED_COLOURS
    assert len({rolled_back, done, overdue} - set(PLANNED_COLOURS)) == 2
    assert f'class="curve-{rolled_back}" d="M0,' in draw_shares(curves[:1], 2, "")
