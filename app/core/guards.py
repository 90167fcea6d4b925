"""Whether a guard holds, and when the clock next has something to do."""

from __future__ import annotations

from datetime import datetime

from app.core import funcs
from app.core.chart import Chart, ClockGuard, CountGuard, ElapsedGuard, Guard
from app.core.position import Position


def holds(guard: Guard, position: Position, now: datetime) -> bool:
    """True where `guard` holds at `position`; a paused clock never does."""
    match guard:
        case CountGuard():
            return funcs.compare(guard.op, position.values[guard.key], guard.threshold)
        case ClockGuard() | ElapsedGuard():
            return not position.is_paused and due_at(guard, position) <= now


def due_at(guard: ClockGuard | ElapsedGuard, position: Position) -> datetime:
    """Return the instant at which `guard` comes due, should the chart not be paused again."""
    if isinstance(guard, ClockGuard):
        return guard.instant
    return position.entered_at + guard.age + position.paused_for


def next_due(chart: Chart, position: Position) -> datetime | None:
    """Return when the clock next has something to do; None while paused or where it has nothing."""
    if position.is_paused:
        return None
    transitions = chart.states[position.state].transitions
    guards = [due_at(item.guard, position) for item in transitions if not isinstance(item.guard, CountGuard)]
    leases = [slot.expires_at for slot in position.slots.values() if slot.expires_at and not slot.expired_at]
    return min([*guards, *leases], default=None)
