"""The words in a picture: guards on the arrows, counts in the boxes."""

from __future__ import annotations

from collections.abc import Iterable

from app.core.chart import Chart, ClockGuard, CountGuard, ElapsedGuard, Func, Guard, Op, State
from app.diagram.plan import list_planned
from app.diagram.standing import Standing

_SIGNS = {Op.EQ: "=", Op.NE: "≠", Op.GE: "≥", Op.LE: "≤", Op.GT: ">", Op.LT: "<"}
# The attribute that counts failures: the name the charts, and the slots' `on_expire: fail`, give it.
FAILED = "failed"


def say_guard(guard: Guard) -> str:
    """The condition of a transition, short."""
    match guard:
        case CountGuard():
            percentage = f" ({guard.written})" if guard.written.endswith("%") else ""
            return f"{guard.key} {_SIGNS[guard.op]} {guard.threshold}{percentage}"
        case ElapsedGuard():
            return f"after {guard.written}"
        case ClockGuard():
            return f"at {guard.instant:%Y-%m-%d %H:%M} UTC"


def say_guards(guards: Iterable[Guard]) -> str:
    """The conditions of several transitions between the same two states."""
    return " or ".join(say_guard(guard) for guard in guards)


def find_needed(state: State) -> int | None:
    """The count at which the state is left as planned."""
    thresholds = (item.guard.threshold for item in list_planned(state) if isinstance(item.guard, CountGuard))
    return next(thresholds, None)


def say_count(chart: Chart, name: str, standing: Standing | None) -> str:
    """The second line of a state's box: counted and needed, or what else moves it on."""
    state = chart.states[name]
    if state.is_final:
        return ""
    if state.func is Func.TIME:
        return "by the clock"
    key, needed = str(state.default_key), find_needed(state)
    if standing is not None and name == standing.state:
        failed = standing.values.get(FAILED, 0) if key != FAILED else 0
        count = standing.values.get(key, 0)
        return _of(count, needed) + (f" · {failed} failed" if failed else "")
    if standing is not None and name in standing.passed:
        passed = standing.passed[name]
        return "passed" if passed is None or needed is None else _of(passed, needed)
    return "by the clock" if needed is None else _of(state.attributes[0].value, needed)


def _of(count: int, needed: int | None) -> str:
    return f"{count} reported" if needed is None else f"{count} / {needed}"


def shorten(text: str, limit: int) -> str:
    """`text`, cut to `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
