"""The closed table of funcs. One more func is one more entry in each table here."""

from __future__ import annotations

import operator
from collections.abc import Callable

from app.core.chart import INT64_MAX, INT64_MIN, Func, Op
from app.core.errors import AttributeRangeError

# What an accepted PUT adds to the attribute; a `time` state accepts no PUT.
_STEP = {Func.INCREMENT: 1, Func.DECREMENT: -1}

# How a guard without `op` compares: the value is reached.
REACHED = {Func.INCREMENT: Op.GE, Func.DECREMENT: Op.LE}

_COMPARE: dict[Op, Callable[[int, int], bool]] = {
    Op.EQ: operator.eq,
    Op.NE: operator.ne,
    Op.GE: operator.ge,
    Op.LE: operator.le,
    Op.GT: operator.gt,
    Op.LT: operator.lt,
}


def apply(func: Func, key: str, value: int) -> int:
    """Return the value of attribute `key` after one report. Raises AttributeRangeError past 64 bits."""
    return _in_range(key, value + _STEP[func])


def undo(func: Func, key: str, value: int) -> int:
    """Return the value of attribute `key` with one report taken back. Raises AttributeRangeError past 64 bits."""
    return _in_range(key, value - _STEP[func])


def compare(op: Op, value: int, threshold: int) -> bool:
    """True where `value op threshold`."""
    return _COMPARE[op](value, threshold)


def _in_range(key: str, value: int) -> int:
    if not INT64_MIN <= value <= INT64_MAX:
        raise AttributeRangeError(f"attribute {key!r} would leave the 64-bit range")
    return value
