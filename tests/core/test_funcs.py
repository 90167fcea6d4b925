"""What a func does to an attribute, and how an op compares."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core import chart
from app.core.chart import INT64_MAX, INT64_MIN, Func, Op
from app.core.errors import AttributeRangeError

COUNTING = [Func.INCREMENT, Func.DECREMENT]


@pytest.mark.parametrize(("func", "result"), [(Func.INCREMENT, 8), (Func.DECREMENT, 6)])
def test_func_adds_or_takes_one(func: Func, result: int) -> None:
    assert func.apply("count", 7) == result


@given(st.sampled_from(COUNTING), st.integers(INT64_MIN + 1, INT64_MAX - 1))
def test_undo_takes_back_what_apply_did(func: Func, value: int) -> None:
    assert func.undo("count", func.apply("count", value)) == value


@pytest.mark.parametrize(
    ("act", "value"),
    [
        pytest.param(Func.INCREMENT.apply, INT64_MAX, id="apply increment at the top"),
        pytest.param(Func.DECREMENT.apply, INT64_MIN, id="apply decrement at the bottom"),
        pytest.param(Func.INCREMENT.undo, INT64_MIN, id="undo increment at the bottom"),
        pytest.param(Func.DECREMENT.undo, INT64_MAX, id="undo decrement at the top"),
    ],
)
def test_func_refuses_to_leave_64_bits(act: Callable[[str, int], int], value: int) -> None:
    with pytest.raises(AttributeRangeError, match="attribute 'count' would leave the 64-bit range"):
        act("count", value)


@pytest.mark.parametrize(
    ("op", "below", "same", "above"),
    [
        (Op.EQ, False, True, False),
        (Op.NE, True, False, True),
        (Op.GE, False, True, True),
        (Op.LE, True, True, False),
        (Op.GT, False, False, True),
        (Op.LT, True, False, False),
    ],
)
def test_compare_knows_every_op(op: Op, below: bool, same: bool, above: bool) -> None:
    assert [chart.compare(op, value, 5) for value in (4, 5, 6)] == [below, same, above]


def test_compare_has_a_case_for_each_op() -> None:
    assert {op: chart.compare(op, 0, 0) for op in Op}.keys() == set(Op)


@pytest.mark.parametrize(("func", "op"), [(Func.INCREMENT, Op.GE), (Func.DECREMENT, Op.LE), (Func.TIME, None)])
def test_reached_op_is_what_a_guard_without_op_means(func: Func, op: Op | None) -> None:
    assert func.reached_op is op


@pytest.mark.parametrize(("func", "missing"), [(Func.INCREMENT, 2), (Func.DECREMENT, -2)])
def test_count_missing_is_negative_if_the_threshold_is_behind(func: Func, missing: int) -> None:
    assert func.count_missing(3, 5) == missing


def test_time_is_the_only_func_that_does_not_count() -> None:
    assert [func for func in Func if not func.is_counting] == [Func.TIME]
