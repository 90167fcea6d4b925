"""What the core's tests share: a time, and short functions that build charts and positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from app.core import machine
from app.core.chart import (
    Attribute,
    Chart,
    ClockGuard,
    CountGuard,
    ElapsedGuard,
    Func,
    OnExpire,
    Op,
    SlotRule,
    State,
    Transition,
)
from app.core.position import Position, Slot

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def after(seconds: float) -> datetime:
    """Return the time `seconds` after noon, which is when every test begins."""
    return NOON + timedelta(seconds=seconds)


def when(target: str, key: str, threshold: int, op: Op = Op.GE) -> Transition:
    """Return a transition with a count guard."""
    return Transition(target, CountGuard(key, op, threshold, str(threshold)))


def at(target: str, instant: datetime) -> Transition:
    """Return a transition at an instant."""
    return Transition(target, ClockGuard(instant, instant.isoformat()))


def old(target: str, seconds: float) -> Transition:
    """Return a transition for when the visit is `seconds` old."""
    return Transition(target, ElapsedGuard(timedelta(seconds=seconds), f"{seconds}s"))


def counted(
    name: str,
    *transitions: Transition,
    values: Mapping[str, int] | None = None,
    func: Func = Func.INCREMENT,
    slots: SlotRule | None = None,
) -> State:
    attributes = tuple(Attribute(key, value) for key, value in (values or {"count": 0, "failed": 0}).items())
    return State(name=name, func=func, attributes=attributes, transitions=transitions, slots=slots)


def timed(name: str, *transitions: Transition) -> State:
    """Return a state that only the clock moves."""
    return State(name=name, func=Func.TIME, attributes=(), transitions=transitions)


def final(name: str) -> State:
    """Return a final state."""
    return State(name=name)


def chart(
    *states: State,
    initial: str | None = None,
    expect: int | None = None,
    roster: tuple[str, ...] | None = None,
    require_machine: bool = False,
) -> Chart:
    named = {state.name: state for state in states}
    return Chart(
        name="web",
        initial=initial or states[0].name,
        states=named,
        description="",
        expect=expect,
        roster=roster,
        require_machine=require_machine,
    )


def canary(target: int = 2, **options: object) -> Chart:
    """Return a chart that counts to `target`, or to one failure."""
    state = counted("canary", when("rollback", "failed", 1), when("done", "count", target))
    return chart(state, final("rollback"), final("done"), **options)  # type: ignore[arg-type]


def rule(*stages: int, lease: float | None = None, on_expire: OnExpire = OnExpire.HOLD) -> SlotRule:
    length = None if lease is None else timedelta(seconds=lease)
    written = None if lease is None else f"{lease}s"
    return SlotRule(
        stages=stages,
        written=tuple(map(str, stages)),
        lease=length,
        lease_written=written,
        on_expire=on_expire,
    )


def rolling(*stages: int, lease: float | None = None, on_expire: OnExpire = OnExpire.HOLD, target: int = 9) -> Chart:
    """Return a chart with slots that counts to `target`, or to two failures."""
    slots = rule(*(stages or (1,)), lease=lease, on_expire=on_expire)
    state = counted("reboot", when("halted", "failed", 2), when("done", "count", target), slots=slots)
    return chart(state, final("halted"), final("done"))


def started(definition: Chart) -> Position:
    """Return the position of a chart that was imported at noon."""
    return machine.start(definition, 1, 1, NOON).position


def paused(position: Position, seconds: float = 0) -> Position:
    """Return `position`, paused `seconds` after noon."""
    return replace(position, paused_at=after(seconds))


def holding(position: Position, *machines: str, expires: float | None = None) -> Position:
    """Return `position` with a slot for each of `machines`, claimed at noon."""
    expires_at = None if expires is None else after(expires)
    for name in machines:
        position = position.with_slot(
            Slot(machine=name, fence=position.fence + 1, claimed_at=NOON, renewed_at=NOON, expires_at=expires_at)
        )
    return position
