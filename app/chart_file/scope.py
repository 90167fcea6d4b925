"""What every part of a chart file needs to know of the rest while it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.chart_file.nodes import ScalarNode
from app.chart_file.problems import Problems, quote
from app.chart_file.scalars import ScalarError, is_percentage, resolve_share, to_share
from app.core.chart import INT64_MAX


@dataclass(frozen=True, slots=True)
class Expect:
    """How many machines take part; `is_unreadable` where the file says something that is none."""

    machines: int | None = None
    roster: tuple[str, ...] | None = None
    is_unreadable: bool = False

    def resolve(self, text: str, to_number: Callable[[str], int]) -> int | None:
        """Return what a number or a percentage of the machines says; None for a percentage of the unreadable."""
        if not is_percentage(text):
            return to_number(text)
        share = to_share(text)
        if self.is_unreadable:
            return None
        if self.machines is None:
            raise ScalarError(f"{quote(text)} is a percentage, and the chart has no 'expect'")
        number = resolve_share(share, self.machines)
        if number > INT64_MAX:
            raise ScalarError(f"{quote(text)} of {self.machines} is out of the 64-bit range")
        return number


@dataclass(frozen=True, slots=True)
class Scope:
    """The chart's `expect`, its states' names (each where it first stands) and the problems so far."""

    problems: Problems
    expect: Expect
    state_names: Mapping[str, ScalarNode]
