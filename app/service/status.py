"""Where a chart stands, in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app import store
from app.core.chart import Chart, CountGuard, State
from app.core.log import format_instant
from app.core.position import Position, Slot

# Machines named in a sentence; the rest are counted.
MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the current state's first attribute is on its way to the first guard on it."""

    key: str
    value: int
    needed: int
    target: str


@dataclass(frozen=True, slots=True)
class Deadline:
    """The next transition that the clock will take; `at` is None while the chart is paused."""

    at: datetime | None
    target: str


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """The slots of the current state: how many there are now, who holds one, and who waits for one."""

    limit: int
    holders: tuple[Slot, ...]
    waiting: tuple[str, ...]

    def as_json(self, now: datetime) -> dict[str, Any]:
        """The slots as the HTTP interface gives them; `age` is in seconds."""
        holders = [{**_fields(slot), "age": int((now - slot.claimed_at).total_seconds())} for slot in self.holders]
        return {"slots": self.limit, "held": len(self.holders), "holders": holders, "waiting": list(self.waiting)}


@dataclass(frozen=True, slots=True)
class Status:
    """A chart's status. `waits_for` is one sentence for people."""

    chart: str
    description: str
    version: int
    run: int
    visit: int
    seq: int
    current_state: str
    is_final: bool
    values: Mapping[str, int]
    progress: Progress | None
    deadline: Deadline | None
    paused: bool
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    expect: int | None
    entered_at: datetime
    updated_at: datetime
    waits_for: str
    read_at: datetime
    slots: SlotStatus | None = None

    def as_json(self) -> dict[str, Any]:
        """The status as the HTTP interface and `--json` give it; instants are ISO 8601 UTC."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        for name in ("paused_at", "entered_at", "updated_at", "read_at"):
            fields[name] = None if fields[name] is None else format_instant(fields[name])
        fields["values"] = dict(self.values)
        fields["progress"] = None if self.progress is None else _fields(self.progress)
        fields["deadline"] = None if self.deadline is None else _fields(self.deadline)
        fields["slots"] = None if self.slots is None else self.slots.as_json(self.read_at)
        return fields

    def as_text(self) -> str:
        """The status as a few lines for people; the last one says what the chart waits for."""
        values = ", ".join(f"{key} {value}" for key, value in self.values.items())
        lines = [
            f"{self.chart}: {self.current_state}" + (" (final)" if self.is_final else ""),
            f"version {self.version}, run {self.run}, visit {self.visit}, since {format_instant(self.entered_at)}",
        ]
        if values:
            lines.append(values)
        if self.slots is not None:
            lines.append(say_slots(self.slots, self.read_at))
        lines.append(f"waits for {self.waits_for}" if not self.paused else self.waits_for)
        return "\n".join(lines) + "\n"


def _fields(item: Any) -> dict[str, Any]:
    found = {name: getattr(item, name) for name in item.__slots__}
    return {name: format_instant(value) if isinstance(value, datetime) else value for name, value in found.items()}


def describe(
    chart: Chart,
    row: store.charts.ChartRow,
    position: Position,
    now: datetime,
    waiting: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> Status:
    """Return the status of `chart` at `position`.

    `waiting` are the machines that wait for a slot, `missing` those of the roster that have not reported.
    """
    state = chart.states[position.state]
    progress = find_progress(state, position)
    deadline = find_deadline(state, position)
    return Status(
        row.name,
        chart.description,
        row.version,
        row.run,
        row.visit,
        row.seq,
        row.state,
        state.is_final,
        dict(position.values),
        progress,
        deadline,
        row.paused_at is not None,
        row.paused_at,
        row.paused_by,
        row.pause_reason,
        chart.expect,
        row.entered_at,
        row.updated_at,
        say_what_it_waits_for(state, row, position, now, missing),
        now,
        find_slots(state, position, waiting),
    )


def find_progress(state: State, position: Position) -> Progress | None:
    """The first guard on the state's first attribute, and how near it is."""
    for transition in state.transitions:
        guard = transition.guard
        if not guard.is_clock and guard.key == state.default_key:
            return Progress(guard.key, position.values[guard.key], guard.threshold, transition.target)
    return None


def find_deadline(state: State, position: Position) -> Deadline | None:
    """The clock transition of the current state that comes due first."""
    clocks = [Deadline(item.guard.due_at(position), item.target) for item in state.transitions if item.guard.is_clock]
    first = min(clocks, key=lambda clock: clock.at or position.entered_at, default=None)
    if first is None or not position.is_paused:
        return first
    return Deadline(None, first.target)


def find_slots(state: State, position: Position, waiting: Sequence[str]) -> SlotStatus | None:
    """The slots of the current state, those past their lease first, then the longest held; None where it has none."""
    if state.slots is None:
        return None
    holders = sorted(position.slots.values(), key=lambda slot: (slot.expired_at is None, slot.claimed_at, slot.fence))
    without = tuple(machine for machine in waiting if machine not in position.slots)
    return SlotStatus(state.slots.limit(position.reported), tuple(holders), without)


def say_slots(slots: SlotStatus, now: datetime) -> str:
    """One line: how many slots are held, by whom, for how long, and who waits; a lease that ran out is loud."""
    held = _name_some([_say_holder(slot, now) for slot in slots.holders])
    waiting = _name_some(slots.waiting)
    return (
        f"slots: {len(slots.holders)} of {slots.limit} held"
        + (f": {held}" if held else "")
        + (f"; {len(slots.waiting)} waiting: {waiting}" if waiting else "")
    )


def _name_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _say_holder(slot: Slot, now: datetime) -> str:
    if slot.expired_at is not None:
        return f"{slot.machine} (LEASE RAN OUT {_span(now - slot.expired_at)} ago, fence {slot.fence})"
    return f"{slot.machine} ({_span(now - slot.claimed_at)}, fence {slot.fence})"


def say_what_it_waits_for(
    state: State, row: store.charts.ChartRow, position: Position, now: datetime, missing: Sequence[str] = ()
) -> str:
    """One sentence: how many more for which target, who is missing, and the deadline; or who paused it, and why."""
    if row.paused_at is not None:
        who = row.paused_by or "someone"
        return f"paused by {who} {_span(now - row.paused_at)} ago: {row.pause_reason}"
    if state.is_final:
        return f"nothing: {state.name} is final"
    parts = _say_expired(position, now)
    parts += [
        _say_guard(state, position, item.guard, item.target) for item in state.transitions if not item.guard.is_clock
    ]
    if missing:
        parts.append(f"not heard of: {_name_some(missing)}")
    deadline = find_deadline(state, position)
    if deadline is not None and deadline.at is not None:
        left = deadline.at - now
        when = f"in {_span(left)}" if left > timedelta(0) else "now"
        parts.append(f"{deadline.target} {when}, by the clock")
    return "; ".join(parts)


def _say_expired(position: Position, now: datetime) -> list[str]:
    """Nobody else gets a slot that is held past its lease: whoever reads one line only must see that."""
    over = sorted((slot.expired_at, slot.machine) for slot in position.slots.values() if slot.expired_at is not None)
    named = _name_some([f"{machine} (LEASE RAN OUT {_span(now - at)} ago, slot still held)" for at, machine in over])
    return [named] if named else []


def _say_guard(state: State, position: Position, guard: CountGuard, target: str) -> str:
    value = position.values[guard.key]
    missing = state.func.count_missing(value, guard.threshold) if state.func is not None else 0
    more = f", {missing} more" if missing > 0 else ""
    return f"{target} when {guard.key} {guard.op} {guard.threshold} (now {value}{more})"


def _span(span: timedelta) -> str:
    seconds = max(int(span.total_seconds()), 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
