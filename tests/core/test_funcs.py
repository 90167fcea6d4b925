from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core import chart
from app.core.chart import INT64_MAX, INT64_MIN, Func, Op
from app.core.errors import AttributeRangeError

COUNTING = [Func.INCREMENT, Func.DECREMENT]


@pytest.mark.parametrize(("func", "result"), [(Func.INCREMENT, 8), (Func.DECREMENT, 6)])
def test_func_adds_or_takes_one(func: Func, result: int) -> None:
    assert chart.apply(func, "count", 7) == result


@given(st.sampled_from(COUNTING), st.integers(INT64_MIN + 1, INT64_MAX - 1))
def test_undo_takes_back_what_apply_did(func: Func, value: int) -> None:
    assert chart.undo(func, "count", chart.apply(func, "count", value)) == value


@pytest.mark.parametrize(
    ("act", "func", "value"),
    [
        pytest.param(chart.apply, Func.INCREMENT, INT64_MAX, id="apply increment at the top"),
        pytest.param(chart.apply, Func.DECREMENT, INT64_MIN, id="apply decrement at the bottom"),
        pytest.param(chart.undo, Func.INCREMENT, INT64_MIN, id="undo increment at the bottom"),
        pytest.param(chart.undo, Func.DECREMENT, INT64_MAX, id="undo decrement at the top"),
    ],
)
def test_func_refuses_to_leave_64_bits(act: object, func: Func, value: int) -> None:
    with pytest.raises(AttributeRangeError, match="attribute 'count' would leave the 64-bit range"):
        act(func, "count", value)  # type: ignore[operator]


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


def test_reached_is_at_least_for_increment_and_at_most_for_decrement() -> None:
    assert chart.REACHED == {Func.INCREMENT: Op.GE, Func.DECREMENT: Op.LE}
