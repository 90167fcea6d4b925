"""Draws small plots that stretch to the space they get; the page around them says in words what they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from app.core.log import MICROSECOND
from app.diagram.svg import clean, tag

BAR_WIDTH, BAR_STEP, SPARK_HEIGHT = 3, 4, 24
WIDTH, HEIGHT = 600.0, 120.0


def draw_sparkline(bars: Sequence[float]) -> str:
    """Return a bar for each hour; the tallest is as high as the picture, and an hour with nothing is a thin line."""
    highest = max(bars, default=0) or 1.0
    width = BAR_STEP * len(bars) - (BAR_STEP - BAR_WIDTH)
    some, none = "", ""
    for number, value in enumerate(bars):
        left = number * BAR_STEP
        if value > 0.05:
            some += (
                f"M{left},{SPARK_HEIGHT}v-{max(round(value / highest * SPARK_HEIGHT), 2)}h{BAR_WIDTH}V{SPARK_HEIGHT}z"
            )
        else:
            none += f"M{left},{SPARK_HEIGHT}v-1h{BAR_WIDTH}v1z"
    drawn = tag("path", class_="p-none", d=none, fill="currentColor") if none else ""
    drawn += tag("path", class_="p-bar", d=some, fill="currentColor") if some else ""
    title = tag("title", clean(f"{sum(bars):.0f} entries in the log in the last {len(bars)} hours"))
    size = {"width": width, "height": SPARK_HEIGHT, "viewBox": f"0 0 {width} {SPARK_HEIGHT}"}
    return tag("svg", title + drawn, role="img", class_="spark", **size)


def draw_growth(points: Sequence[tuple[float, datetime]], bounds: Sequence[datetime]) -> str:
    """Return a line that shows how a count grew over time; it is empty without points.

    `bounds` divide the time into stretches, of which every second one is shaded.
    """
    if not points or len(bounds) < 2:
        return ""
    start, end = bounds[0], bounds[-1]
    most = max(points[-1][0], 1.0)
    bands = "".join(
        tag(
            "rect",
            class_="p-band",
            x=_x(left, start, end),
            y=0,
            width=_x(right, start, end) - _x(left, start, end),
            height=HEIGHT,
            fill="currentColor",
            fill_opacity=0.06,
        )
        for number, (left, right) in enumerate(pairwise(bounds))
        if number % 2
    )
    corners = [(_x(at, start, end), HEIGHT - count / most * (HEIGHT - 6)) for count, at in points]
    corners.append((WIDTH, corners[-1][1]))
    line = "L".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    area = tag("path", class_="p-area", d=f"M{corners[0][0]:.1f},{HEIGHT}L{line}L{WIDTH},{HEIGHT}Z", fill_opacity=0.16)
    stroke = {"fill": "none", "stroke_width": 2, "vector_effect": "non-scaling-stroke"}
    curve = tag("path", class_="p-line", d=f"M{line}", stroke="currentColor", **stroke)
    size = {"viewBox": f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", "preserveAspectRatio": "none"}
    return tag("svg", bands + area + curve, class_="growth", aria_hidden="true", **size)


def draw_stay(entered: datetime, span: timedelta, start: datetime, end: datetime) -> str:
    """Return a bar for the `span` spent in a state from `entered` on, on a line from `start` to `end`."""
    left = min(_x(entered, start, end), WIDTH - 4)
    width = max(min(_x(entered + span, start, end), WIDTH) - left, 4.0)
    line = tag("rect", class_="p-rail", x=0, y=5, width=WIDTH, height=2, fill="currentColor", fill_opacity=0.12)
    bar = tag("rect", class_="p-stay", x=left, y=0, width=width, height=12, fill="currentColor")
    size = {"viewBox": f"0 0 {WIDTH:.0f} 12", "preserveAspectRatio": "none"}
    return tag("svg", line + bar, class_="stay", aria_hidden="true", **size)


def _x(at: datetime, start: datetime, end: datetime) -> float:
    whole = (end - start) or MICROSECOND
    return min(max((at - start) / whole, 0.0), 1.0) * WIDTH


SPREAD_WIDTH, SPREAD_HEIGHT, MARGIN = 720.0, 280.0, 44.0
SPREAD_COLOURS = ("#2f6f4f", "#b3372f", "#a36a00", "#3a5fa8", "#7a4a9e", "#5a6169")


def draw_spread(curves: Sequence[tuple[str, Sequence[float]]], runs: int, say: Callable[[float], str]) -> str:
    """Return a picture of which share of the `runs` had come to each ending by which time.

    A curve is an ending's name and the seconds after which its runs ended; `say` writes such a length for people.
    """
    longest = max((max(ends) for _, ends in curves if ends), default=1.0) or 1.0
    width, height = SPREAD_WIDTH - 2 * MARGIN, SPREAD_HEIGHT - 2 * MARGIN
    drawn = ""
    for share in (0.0, 0.5, 1.0):
        y = MARGIN + height * (1 - share)
        drawn += tag("path", d=f"M{MARGIN},{y}h{width}", stroke="#9aa0a6", stroke_opacity=0.4, fill="none")
        drawn += tag("text", clean(f"{share:.0%}"), x=MARGIN - 6, y=y + 4, text_anchor="end")
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawn += tag(
            "text", clean(say(longest * part)), x=MARGIN + width * part, y=SPREAD_HEIGHT - 22, text_anchor="middle"
        )
    for number, (name, ends) in enumerate(curves):
        colour = SPREAD_COLOURS[number % len(SPREAD_COLOURS)]
        x, y = MARGIN, MARGIN + height
        path = f"M{x:.1f},{y:.1f}"
        for count, end in enumerate(sorted(ends), 1):
            x, y = MARGIN + width * end / longest, MARGIN + height * (1 - count / runs)
            path += f"H{x:.1f}V{y:.1f}"
        path += f"H{MARGIN + width:.1f}"
        drawn += tag("path", d=path, stroke=colour, stroke_width=2, fill="none")
        legend = f"{name}: {len(ends)} of {runs}"
        drawn += tag("text", clean(legend), x=MARGIN + 8, y=14 + 14 * number, fill=colour, font_weight="bold")
    title = tag("title", clean("Which share of the runs had ended how, by the time since the start"))
    return tag(
        "svg",
        title + drawn,
        xmlns="http://www.w3.org/2000/svg",
        role="img",
        viewBox=f"0 0 {SPREAD_WIDTH:.0f} {SPREAD_HEIGHT:.0f}",
        font_family="system-ui, sans-serif",
        font_size=12,
        fill="currentColor",
    )
