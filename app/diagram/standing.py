"""What a picture needs to know of where a chart stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a chart stands; `values` are the current state's.

    `passed` names the states that were left in this run, each with how many machines reported on its first
    attribute in its latest visit, or None where nobody named himself.
    """

    state: str
    values: Mapping[str, int] = field(default_factory=dict)
    is_paused: bool = False
    passed: Mapping[str, int | None] = field(default_factory=dict)
