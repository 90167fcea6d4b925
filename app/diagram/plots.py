"""Draws small plots that stretch to the space they get; the page around them says in words what they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import cycle

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


@dataclass(frozen=True, slots=True)
class Stretch:
    """The time that a plot shows, and the instant `now` in it; beyond it nothing has happened yet."""

    start: datetime
    now: datetime
    end: datetime

    def part(self, at: datetime) -> float:
        """Where an instant is, from 0 at the start to 1 at the end."""
        return min(max((at - self.start) / ((self.end - self.start) or MICROSECOND), 0.0), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A count over time: its points, the last one now, and a line across at `threshold`, which `label` explains.

    `aims` are the instants at which the forecast has the count at the threshold: the likely one, and a late one.
    `says` is the whole in words, `ticks` is how many numbers its axis has room for.
    """

    kind: str
    points: Sequence[tuple[datetime, float]]
    threshold: float | None
    label: str
    says: str
    aims: Sequence[datetime] = ()
    ticks: int = 5


def list_ticks(most: float, count: int = 5) -> list[int]:
    """Return the round numbers on an axis from 0 to `most`: 0, and up to `count` more."""
    steps = (factor * 10**power for power in range(20) for factor in (1, 2, 5))
    step = next(step for step in steps if most / step <= count)
    return [step * number for number in range(int(most / step) + 1)]


def draw_axis(panel: Panel) -> str:
    """Return the numbers beside a panel's plot, as high as the plot."""
    most = _find_most(panel)
    numbers = "".join(
        tag("text", f"{tick:,}", x="100%", y=f"{(1 - tick / most) * 100:.1f}%", dy="0.32em", text_anchor="end")
        for tick in list_ticks(most, panel.ticks)
    )
    return tag("svg", numbers, class_=f"p-axis p-{panel.kind}", aria_hidden="true")


def draw_panel(panel: Panel, stretch: Stretch, marks: Sequence[tuple[datetime, str]] = ()) -> str:
    """Return the plot of one count. Each of `marks` is a line upwards at an instant, with a word beside it."""
    most = _find_most(panel)

    def at(point: tuple[datetime, float]) -> str:
        return f"{stretch.part(point[0]) * WIDTH:.1f},{(1 - point[1] / most) * HEIGHT:.1f}"

    stroke = {"fill": "none", "stroke": "currentColor", "vector_effect": "non-scaling-stroke"}
    grid = "".join(f"M0,{(1 - tick / most) * HEIGHT:.1f}H{WIDTH}" for tick in list_ticks(most, panel.ticks)[1:])
    lines = tag("path", class_="p-grid", d=grid, **stroke) if grid else ""
    line = "L".join(at(point) for point in panel.points)
    ends = stretch.part(panel.points[0][0]) * WIDTH, stretch.part(panel.points[-1][0]) * WIDTH
    lines += tag(
        "path", class_="p-area", d=f"M{ends[0]:.1f},{HEIGHT}L{line}L{ends[1]:.1f},{HEIGHT}Z", fill_opacity=0.16
    )
    texts = ""
    if panel.threshold is not None:
        height = 1 - panel.threshold / most
        lines += tag("path", class_="p-limit", d=f"M0,{height * HEIGHT:.1f}H{WIDTH}", stroke_dasharray="6 4", **stroke)
        texts += tag("text", clean(panel.label), class_="p-limit", x=6, y=f"{height * 100:.1f}%", dy="1.1em")
        for aim in panel.aims:
            d = f"M{at(panel.points[-1])}L{_aim(panel, stretch, aim, most)}"
            lines += tag("path", class_="p-aim", d=d, stroke_dasharray="3 4", **stroke)
    lines += tag("path", class_="p-line", d=f"M{line}", stroke_width=2, **stroke)
    for number, (instant, word) in enumerate(marks):
        part = stretch.part(instant)
        lines += tag("path", class_="p-mark", d=f"M{part * WIDTH:.1f},0V{HEIGHT}", **stroke)
        side = {"dx": -5, "text_anchor": "end"} if part > 0.5 else {"dx": 5}
        texts += tag(
            "text",
            clean(word),
            class_="p-word",
            x=f"{part * 100:.1f}%",
            y="100%",
            dy=f"-{0.5 + 1.25 * number}em",
            **side,
        )
    title = tag("title", clean(panel.says))
    size = {"viewBox": f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", "preserveAspectRatio": "none"}
    plot = tag("svg", lines, width="100%", height="100%", **size)
    return tag("svg", title + plot + texts, class_=f"growth p-{panel.kind}", role="img")


def _find_most(panel: Panel) -> float:
    """Return the number at the top of a panel: a little above its highest point and its threshold."""
    return max(*(value for _, value in panel.points), panel.threshold or 0.0, 1.0) * 1.08


def _aim(panel: Panel, stretch: Stretch, aim: datetime, most: float) -> str:
    """Return where the line from the last point to the threshold at `aim` ends; it ends early at the plot's edge."""
    (since, value), goal = panel.points[-1], panel.threshold or 0.0
    share = min((stretch.end - since) / ((aim - since) or MICROSECOND), 1.0)
    end = stretch.part(min(aim, stretch.end)) * WIDTH
    return f"{end:.1f},{(1 - (value + (goal - value) * share) / most) * HEIGHT:.1f}"


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


def draw_share_axis() -> str:
    """Return the shares beside the plot of `draw_shares`."""
    shares = (("100%", "0%"), ("50%", "50%"), ("0%", "100%"))
    texts = "".join(tag("text", text, x="100%", y=y, dy="0.32em", text_anchor="end") for text, y in shares)
    return tag("svg", texts, class_="p-axis p-reports", aria_hidden="true")


@dataclass(frozen=True, slots=True)
class Curve:
    """An ending, the seconds after which its runs ended, and whether it is a failure."""

    name: str
    ends: Sequence[float]
    is_failed: bool


def pick_colours(curves: Sequence[Curve]) -> list[int]:
    """Return the number of each curve's colour. That of a failure is never green, and that of a plan never red."""
    planned, failed = cycle(PLANNED_COLOURS), cycle(FAILED_COLOURS)
    return [next(failed if curve.is_failed else planned) for curve in curves]


def _find_longest(curves: Sequence[Curve]) -> float:
    """Return how many seconds the pictures of these curves are wide; never 0."""
    return max((max(curve.ends) for curve in curves if curve.ends), default=1.0) or 1.0


def draw_shares(curves: Sequence[Curve], runs: int, says: str) -> str:
    """Return a plot of which share of the `runs` had come to each ending by which time.

    It stretches to its space, and the style sheet has the colours: `curve-0` is the class of the first colour.
    """
    longest = _find_longest(curves)
    stroke = {"fill": "none", "stroke": "currentColor", "vector_effect": "non-scaling-stroke"}
    lines = tag("path", class_="p-grid", d=f"M0,{HEIGHT / 2}H{WIDTH}M0,0H{WIDTH}", **stroke)
    for curve, colour in zip(curves, pick_colours(curves), strict=True):
        path = f"M0,{HEIGHT}"
        for count, end in enumerate(sorted(curve.ends), 1):
            path += f"H{end / longest * WIDTH:.1f}V{HEIGHT * (1 - count / runs):.1f}"
        lines += tag("path", class_=f"curve-{colour}", d=f"{path}H{WIDTH}", stroke_width=2, **stroke)
    size = {"viewBox": f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", "preserveAspectRatio": "none"}
    plot = tag("svg", lines, width="100%", height="100%", **size)
    return tag("svg", tag("title", clean(says)) + plot, class_="growth p-reports", role="img")


SPREAD_WIDTH, SPREAD_HEIGHT, MARGIN = 720.0, 280.0, 44.0
SPREAD_COLOURS = ("#2f6f4f", "#b3372f", "#a36a00", "#3a5fa8", "#7a4a9e", "#5a6169")
# Green and blue; red, amber, violet and grey.
PLANNED_COLOURS, FAILED_COLOURS = (0, 3), (1, 2, 4, 5)


def draw_spread(curves: Sequence[Curve], runs: int, say: Callable[[float], str]) -> str:
    """Return a picture of which share of the `runs` had come to each ending by which time.

    `say` writes a number of seconds for people.
    """
    longest = _find_longest(curves)
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
    for number, (curve, picked) in enumerate(zip(curves, pick_colours(curves), strict=True)):
        colour = SPREAD_COLOURS[picked]
        x, y = MARGIN, MARGIN + height
        path = f"M{x:.1f},{y:.1f}"
        for count, end in enumerate(sorted(curve.ends), 1):
            x, y = MARGIN + width * end / longest, MARGIN + height * (1 - count / runs)
            path += f"H{x:.1f}V{y:.1f}"
        path += f"H{MARGIN + width:.1f}"
        drawn += tag("path", d=path, stroke=colour, stroke_width=2, fill="none")
        legend = f"{curve.name}: {len(curve.ends)} of {runs}"
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
