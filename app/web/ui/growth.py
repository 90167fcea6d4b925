"""The plot on a chart's page: the reports and the failures of a visit, against their thresholds and over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from app.core.chart import FAILED_KEY
from app.core.log import MICROSECOND
from app.diagram.plots import Panel, Stretch, draw_axis, draw_panel
from app.service.forecast import Count, Growth
from app.service.words import say_number

# The time ahead takes at most so many times the room of the time that is over.
FARTHEST = 5


@dataclass(frozen=True, slots=True)
class Plot:
    """What the template shows: pairs of an axis and a plot, the counts in words, and the ends of the time shown."""

    panels: Sequence[tuple[Markup, Markup]]
    says: str
    start: datetime
    end: datetime


def draw_plot(growth: Growth) -> Plot:
    """Return the plot of a visit."""
    start, now = growth.visit.entered_at, max(growth.until, growth.visit.entered_at + MICROSECOND)
    ahead = [growth.forecast.p90] if growth.forecast is not None else []
    if growth.deadline is not None:
        ahead.append(growth.deadline[0])
    end = min(max([now, *ahead]), now + (now - start) * FARTHEST)
    stretch = Stretch(start, now, end)
    marks = [(now, "now")] if end > now else []
    if growth.forecast is not None and growth.forecast.p50 <= end:
        marks.append((growth.forecast.p50, "forecast"))
    if growth.deadline is not None and growth.deadline[0] <= end:
        marks.append(growth.deadline)
    panels = []
    for number, count in enumerate(growth.counts):
        panel = _describe(count, growth, is_first=number == 0)
        words = [(at, word if number == 0 else "") for at, word in marks]
        panels.append((Markup(draw_axis(panel)), Markup(draw_panel(panel, stretch, words))))
    return Plot(panels, ", ".join(count.says for count in growth.counts), start, end)


def _describe(count: Count, growth: Growth, *, is_first: bool) -> Panel:
    is_small = count.key == FAILED_KEY and not is_first
    aims = () if growth.forecast is None or not is_first else (growth.forecast.p50, growth.forecast.p90)
    label = "" if count.threshold is None else f"{count.target} at {say_number(count.threshold)}"
    return Panel(
        kind="failures" if is_small else "reports",
        points=count.points,
        threshold=count.threshold,
        label=label,
        says=f"{count.says}{'; ' + label if label else ''}",
        aims=aims,
        ticks=2 if is_small else 5,
    )
