"""How work grows with its input, counted in calls: a count is the same on every computer, a time is not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def count_calls(act: Callable[[], Any]) -> int:
    """Return how many functions, Python's and C's, this thread calls while `act` runs."""
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return calls


def grows(small: Callable[[], Any], large: Callable[[], Any]) -> float:
    """Return how many times as many calls `large` takes as `small`; `small` runs once before, to fill every cache."""
    small()
    return count_calls(large) / count_calls(small)
