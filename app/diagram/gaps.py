"""The gaps between columns: who turns there, who comes in there, and how wide that makes them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from app.diagram.layout import Arrow, Layout, Way

TURN_STEP = 10.0
HEAD = 9.0
MIN_WIDTH = 46.0
# Pixels a character of a label takes, on the wide side of what system fonts have.
LABEL_EM = 6.3


@dataclass(slots=True)
class Gap:
    """The gap to the right of a column: arrows by number that turn in it, and targets that a track leads up to."""

    turns: list[int] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)
    label: float = 0.0

    @property
    def before_label(self) -> float:
        return TURN_STEP * (len(self.turns) + 1) + 5 if self.turns else 8.0

    @property
    def after_label(self) -> float:
        return HEAD + 8 + TURN_STEP * len(self.entries)

    @property
    def width(self) -> float:
        return max(MIN_WIDTH, self.before_label + self.label + self.after_label)


def measure_gaps(layout: Layout, labels: list[str]) -> dict[int, Gap]:
    """The gaps of a layout by the column to their left; -1 is the one before the first column."""
    gaps: dict[int, Gap] = defaultdict(Gap)
    for number, arrow in enumerate(layout.arrows):
        gap = gaps[layout.places[arrow.source].column]
        if arrow.way is not Way.STRAIGHT:
            gap.turns.append(number)
        if arrow.way is Way.ROUND:
            entered = gaps[layout.places[arrow.target].column - 1]
            if arrow.target not in entered.entries:
                entered.entries.append(arrow.target)
        else:
            gap.label = max(gap.label, len(labels[number]) * LABEL_EM)
    for gap in gaps.values():
        # The one that goes farthest turns first, so that it is not crossed by the others' starts.
        gap.turns.sort(key=lambda number: -_distance(layout, layout.arrows[number]))
    return gaps


def _distance(layout: Layout, arrow: Arrow) -> int:
    if arrow.way is Way.ROUND:
        return 1_000_000 + arrow.track
    return abs(layout.places[arrow.target].lane - layout.places[arrow.source].lane)
