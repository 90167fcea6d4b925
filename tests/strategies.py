"""Hypothesis strategies for valid charts and their parts."""

from __future__ import annotations

import string
from datetime import UTC, timedelta
from fractions import Fraction
from math import ceil, floor

from hypothesis import strategies as st

from app.core.chart import (
    Attribute,
    Chart,
    ClockGuard,
    CountGuard,
    ElapsedGuard,
    Func,
    Guard,
    OnExpire,
    Op,
    SlotRule,
    State,
    Transition,
)

CHART_LETTERS = string.ascii_letters + string.digits + "_.-:"
TRICKY_NAMES = ["off", "12:30", "017", "yes", "null", "-", "2024-01-01", "1e3", "0x1F", "1_000", " a "]
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

chart_names = st.text(CHART_LETTERS, min_size=1, max_size=20).filter(lambda name: name not in {".", ".."})
names = st.sampled_from(TRICKY_NAMES) | st.text(CHART_LETTERS + " ", min_size=1, max_size=12)
attribute_keys = names.filter(lambda name: name not in {"clock", "elapsed"})
printable = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1, max_size=20)
machine_ids = printable.filter(lambda text: text.isprintable() and text == text.strip())
descriptions = st.text(st.characters(exclude_categories=["C"], include_characters="\t\n\r\x85"), max_size=30)
ages = st.builds(lambda number, unit: (number, unit), st.integers(0, 500), st.sampled_from("smhd"))


@st.composite
def charts(draw: st.DrawFn) -> Chart:
    """Draw a chart that `parse` accepts: every state is reached, and every state can reach a final one."""
    path = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    roster = draw(st.none() | st.lists(machine_ids, min_size=1, max_size=5, unique=True))
    expect = len(roster) if roster else draw(st.none() | st.integers(1, 10**6))
    states = {
        name: draw(_states(name, path, following, expect))
        for name, following in zip(path, [*path[1:], None], strict=True)
    }
    # Paths start in the initial state and in the first one; one of them has to be the start of the path.
    is_initial_first = draw(st.booleans())
    order = draw(st.permutations(path)) if is_initial_first else path
    return Chart(
        name=draw(chart_names),
        initial=path[0] if is_initial_first else draw(st.sampled_from(path)),
        states={name: states[name] for name in order},
        description=draw(descriptions),
        expect=expect,
        roster=tuple(roster) if roster else None,
        require_machine=draw(st.booleans()),
    )


@st.composite
def live_values(draw: st.DrawFn, state: State) -> dict[str, int]:
    """Draw values that the func may have given to the state's attributes."""
    direction = -1 if state.func is Func.DECREMENT else 1
    return {attribute.key: attribute.value + direction * draw(st.integers(0, 1000)) for attribute in state.attributes}


@st.composite
def _states(draw: st.DrawFn, name: str, path: list[str], following: str | None, expect: int | None) -> State:
    """Draw a state that leads to `following` and perhaps to others, or a final state if `following` is None."""
    description = draw(descriptions)
    if following is None:
        return State(name=name, attributes=draw(_attributes(min_size=0)), description=description)
    func = draw(st.sampled_from(Func))
    attributes = () if func is Func.TIME else draw(_attributes(min_size=1))
    targets = [following, *draw(st.lists(st.sampled_from(path), max_size=3))]
    transitions = [Transition(target, draw(_guards(func, attributes, expect))) for target in targets]
    return State(
        name=name,
        func=func,
        attributes=attributes,
        transitions=tuple(draw(st.permutations(transitions))),
        slots=None if func is Func.TIME else draw(st.none() | _slot_rules(attributes, expect)),
        description=description,
    )


@st.composite
def _attributes(draw: st.DrawFn, min_size: int) -> tuple[Attribute, ...]:
    keys = draw(st.lists(st.just("failed") | attribute_keys, min_size=min_size, max_size=3, unique=True))
    return tuple(Attribute(key, draw(st.integers(-1000, 1000))) for key in keys)


@st.composite
def _guards(draw: st.DrawFn, func: Func, attributes: tuple[Attribute, ...], expect: int | None) -> Guard:
    if func is Func.TIME or draw(st.booleans()):
        return draw(_clock_guards() | _elapsed_guards())
    attribute = draw(st.sampled_from(attributes))
    op = draw(st.sampled_from(Op))
    share = draw(st.none() | st.decimals(0, 100, places=2))
    if expect is not None and share is not None:
        threshold = _round(expect * Fraction(share) / 100, op)
        if threshold is not None and _count_needed(func, op, attribute.value, threshold) <= expect:
            return CountGuard(attribute.key, op, threshold, f"{share}%")
    # `>` and `<` need one machine more, so the threshold is one below `expect`.
    needed = draw(st.integers(-1000, 10**9 if expect is None else expect - 1))
    threshold = attribute.value + (-needed if func is Func.DECREMENT else needed)
    written = str(threshold) if threshold < 0 else draw(st.sampled_from(["{}", "+{}", "00{}"])).format(threshold)
    return CountGuard(attribute.key, op, threshold, written)


def _round(exact: Fraction, op: Op) -> int | None:
    """Return the threshold of an exact share; None if the chart file would be refused."""
    if op in (Op.EQ, Op.NE):
        return int(exact) if exact.denominator == 1 else None
    return max(1, ceil(exact)) if op is Op.GE else ceil(exact) if op is Op.LT else floor(exact)


def _count_needed(func: Func, op: Op, start: int, threshold: int) -> int:
    distance = start - threshold if func is Func.DECREMENT else threshold - start
    return distance + (op in {Op.GT, Op.LT})


@st.composite
def _clock_guards(draw: st.DrawFn) -> Guard:
    instant = draw(st.datetimes(timezones=st.just(UTC)))
    written = draw(st.sampled_from([instant, instant.replace(tzinfo=None)])).isoformat()
    return ClockGuard(instant, written)


@st.composite
def _elapsed_guards(draw: st.DrawFn) -> Guard:
    number, unit = draw(ages)
    return ElapsedGuard(timedelta(**{UNITS[unit]: number}), f"{number}{unit}")


@st.composite
def _slot_rules(draw: st.DrawFn, attributes: tuple[Attribute, ...], expect: int | None) -> SlotRule:
    numbers = st.integers(1, 1000).map(lambda number: (number, str(number)))
    shares = st.integers(1, 100).map(lambda share: (max(1, ceil((expect or 0) * Fraction(share, 100))), f"{share}%"))
    stages = draw(st.lists(numbers if expect is None else numbers | shares, min_size=1, max_size=3))
    stages_and_texts = {"stages": tuple(limit for limit, _ in stages), "written": tuple(text for _, text in stages)}
    if draw(st.booleans()):
        return SlotRule(**stages_and_texts)
    has_failed = any(attribute.key == "failed" for attribute in attributes)
    choices = [one for one in OnExpire if has_failed or one is not OnExpire.FAIL]
    number, unit = draw(ages.filter(lambda age: age[0] > 0))
    return SlotRule(
        **stages_and_texts,
        lease=timedelta(**{UNITS[unit]: number}),
        lease_written=f"{number}{unit}",
        on_expire=draw(st.sampled_from(choices)),
    )
