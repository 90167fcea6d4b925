"""What was found: rows of figures, the rule by which a goal is met, and the table in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

HEAD = "| what | ours | beside | theirs | ratio | goal | met |"
RULE = "|---|--:|---|--:|--:|--:|---|"


@dataclass(frozen=True, slots=True)
class Row:
    """One line: our figures, a peer's where there is one, and what the ratio, or ours alone, should be.

    `goal` is the least that the ratio may be; with `at_most`, the most that ours may be.
    """

    what: str
    unit: str
    ours: Sequence[float]
    beside: str = ""
    theirs: Sequence[float] = ()
    goal: float | None = None
    at_most: bool = False

    @property
    def ratio(self) -> float | None:
        """Our median by theirs; None where there is nobody beside."""
        if not self.theirs:
            return None
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def is_met(self) -> bool | None:
        """None where there is no goal."""
        if self.goal is None:
            return None
        if self.at_most:
            return statistics.median(self.ours) <= self.goal
        return self.ratio is not None and self.ratio >= self.goal

    def as_json(self) -> dict[str, Any]:
        """The row for build/bench.json, every round's figure in it."""
        return {**asdict(self), "ratio": self.ratio, "is_met": self.is_met}

    def as_markdown(self) -> str:
        """The row as a line of the table."""
        cells = [
            self.what,
            _spread(self.ours, self.unit),
            self.beside,
            _spread(self.theirs, self.unit) if self.theirs else "",
            "" if self.ratio is None else f"{self.ratio:.2f}",
            ""
            if self.goal is None
            else f"{'≤' if self.at_most else '≥'} {self.goal:g}{' ' + self.unit if self.at_most else ''}",
            {None: "", True: "yes", False: "**no**"}[self.is_met],
        ]
        return "| " + " | ".join(cells) + " |"


def read_row(found: dict[str, Any]) -> Row:
    """A row of build/bench.json."""
    return Row(**{name: found[name] for name in Row.__slots__})


def _spread(figures: Sequence[float], unit: str) -> str:
    """Median, least and most."""
    parts = (statistics.median(figures), min(figures), max(figures))
    middle, low, high = (_number(part) for part in parts)
    return f"{middle} ({low} to {high}) {unit}".rstrip()


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.2f}"


def render_table(rows: Sequence[Row]) -> str:
    """The Markdown table."""
    return "\n".join([HEAD, RULE, *(row.as_markdown() for row in rows)])
