"""A chart's status: where the chart stands in numbers, and in one sentence what it waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app import store
from app.core.arrival import list_full
from app.core.chart import Chart, CountGuard, State
from app.core.expect import Known, write_group
from app.core.log import format_instant
from app.core.plan import find_next_clock
from app.core.position import Position, Slot
from app.core.window import judge
from app.db import Connection
from app.service.condition import Health, Told, judge_health
from app.service.crowds import Absent
from app.service.forecast import Forecast
from app.service.words import name_some, say_opening, say_span

# A line names at most this many groups that are full.
MAX_GROUPS = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """The first attribute of the current state, and the count that the first guard on it needs."""

    key: str
    value: int
    needed: int
    target: str


@dataclass(frozen=True, slots=True)
class Deadline:
    """The next transition that the clock takes. `at` is None while the chart is paused."""

    at: datetime | None
    target: str


@dataclass(frozen=True, slots=True)
class FullGroup:
    """A group that has its limit of machines down, and these machines."""

    group: str
    limit: int
    machines: list[str]


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """The slots of the current state: how many there are now, and which machines hold one or wait for one.

    `full` are the groups of which no further machine may go down.
    """

    limit: int
    holders: tuple[Slot, ...]
    waiting: tuple[str, ...]
    full: tuple[FullGroup, ...] = ()

    def as_json(self, now: datetime) -> dict[str, Any]:
        """The slots as the HTTP interface gives them. A holder's `age` is in seconds."""
        holders = [{**_fields(slot), "age": int((now - slot.claimed_at).total_seconds())} for slot in self.holders]
        return {
            "slots": self.limit,
            "held": len(self.holders),
            "holders": holders,
            "waiting": list(self.waiting),
            # A chart without groups is described as before there were any.
            **({"full_groups": [_fields(group) for group in self.full]} if self.full else {}),
        }


@dataclass(frozen=True, slots=True)
class WindowStatus:
    """Whether the current state is open; `is_open` is None if that differs by machine.

    `opened_until` is when an operator's act of opening ends, if one is in force.
    """

    is_open: bool | None
    opens_at: datetime | None
    closes_at: datetime | None
    opened_until: datetime | None
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A chart's status at `read_at`. `waits_for` is one sentence for people; `health` is its condition and why.

    `who` is "approvers" if people report on the current state, as in a chart file.
    """

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
    health: Health
    who: str | None = None
    slots: SlotStatus | None = None
    window: WindowStatus | None = None

    def as_json(self) -> dict[str, Any]:
        """The status as the HTTP interface and `--json` give it. Instants are texts, ISO 8601 in UTC."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "health"}
        for name in ("paused_at", "entered_at", "updated_at", "read_at"):
            fields[name] = None if fields[name] is None else format_instant(fields[name])
        fields["values"] = dict(self.values)
        fields["progress"] = None if self.progress is None else _fields(self.progress)
        fields["deadline"] = None if self.deadline is None else _fields(self.deadline)
        fields["slots"] = None if self.slots is None else self.slots.as_json(self.read_at)
        fields["window"] = None if self.window is None else _fields(self.window)
        health = self.health
        fields["condition"] = str(health.condition)
        fields["condition_since"] = format_instant(health.since)
        fields["because"] = health.because
        fields["forecast"] = None if health.forecast is None else health.forecast.as_json()
        return fields

    def as_text(self) -> str:
        """The status in a few lines for people. The last line says what the chart waits for."""
        values = ", ".join(f"{key} {value}" for key, value in self.values.items())
        lines = [
            f"{self.chart}: {self.current_state}" + (" (final)" if self.is_final else ""),
            f"version {self.version}, run {self.run}, visit {self.visit}, since {format_instant(self.entered_at)}",
        ]
        if values:
            lines.append(values)
        if self.slots is not None:
            lines.append(say_slots(self.slots, self.read_at))
        if self.window is not None:
            lines.append(f"window: {self.window.says}")
        health = self.health
        lines.append(f"{health.condition} since {format_instant(health.since)}: {health.because}")
        if health.forecast is not None:
            lines.append(say_forecast(health.forecast, self.read_at))
        lines.append(f"waits for {self.waits_for}" if not self.paused else self.waits_for)
        return "\n".join(lines) + "\n"


def _fields(item: Any) -> dict[str, Any]:
    found = {name: getattr(item, name) for name in item.__slots__}
    return {name: format_instant(value) if isinstance(value, datetime) else value for name, value in found.items()}


def describe_status(
    connection: Connection,
    chart: Chart,
    row: store.charts.ChartRow,
    position: Position,
    now: datetime,
    *,
    known: Known,
    waiting: Sequence[str] = (),
    absent: Absent | None = None,
    told: Told | None = None,
) -> Status:
    """Return the status of `chart` at `position`.

    `waiting` are the machines that wait for a slot, `absent` those that take part and have not reported. `known` counts
    the machines of groups. `told` is what the log and the reports say, if it is not what they say now.
    """
    state = chart.state_at(position)
    window, slots = find_window(chart, position, now), find_slots(chart, position, waiting, known)
    refusals = _say_refusals(chart, state, now, window, slots)
    return Status(
        chart=row.name,
        description=chart.description,
        version=row.version,
        run=row.run,
        visit=row.visit,
        seq=row.seq,
        current_state=row.state,
        is_final=state.is_final,
        values={item.key: position.values[item.key] for item in state.attributes},
        progress=find_progress(state, position),
        deadline=find_deadline(state, position),
        paused=row.paused_at is not None,
        paused_at=row.paused_at,
        paused_by=row.paused_by,
        pause_reason=row.pause_reason,
        expect=chart.count_expected(position),
        entered_at=row.entered_at,
        updated_at=row.updated_at,
        waits_for=say_what_it_waits_for(state, row, position, now, absent, refusals=refusals),
        read_at=now,
        health=judge_health(told or Told(connection, row), chart, position, now),
        who=None if state.approvers is None else "approvers",
        slots=slots,
        window=window,
    )


def find_window(chart: Chart, position: Position, now: datetime) -> WindowStatus | None:
    """Whether the current state is open, and when that changes; None if nothing ever closes it."""
    schedule = chart.find_schedule(position.state)
    if schedule is None:
        return None
    opening, opened_until = judge(schedule, position.hours, now), position.hours.opened_until
    if opened_until is not None and opened_until <= now:
        opened_until = None
    if schedule.needs_labels and not opening.is_open:
        labels = ", ".join(sorted({window.label for window in schedule.windows or () if window.label is not None}))
        says = f"opens for each machine in its own time zone (label {labels})"
        return WindowStatus(None, opening.opens_at, None, opened_until, says)
    says = say_opening(opening, now) + (", opened by an operator" if opened_until is not None else "")
    return WindowStatus(opening.is_open, opening.opens_at, opening.closes_at, opened_until, says)


def find_progress(state: State, position: Position) -> Progress | None:
    """How near the state's first attribute is to the first guard on it. None if no guard is on that attribute."""
    for transition in state.transitions:
        guard = transition.guard
        if not guard.is_clock and guard.key == state.default_key:
            return Progress(guard.key, position.values[guard.key], guard.threshold, transition.target)
    return None


def find_deadline(state: State, position: Position) -> Deadline | None:
    """The clock transition of the state that comes due first. None if the state has none."""
    first = find_next_clock(state, position)
    if first is None:
        return None
    at, transition = first
    return Deadline(None if position.is_paused else at, transition.target)


def find_slots(chart: Chart, position: Position, waiting: Sequence[str], known: Known) -> SlotStatus | None:
    """The slots of the state; None if it has no slots.

    Holders whose lease ran out come first, then the others, and the slot claimed first comes first.
    """
    state = chart.state_at(position)
    if state.slots is None:
        return None
    holders = sorted(position.slots.values(), key=lambda slot: (slot.expired_at is None, slot.claimed_at, slot.fence))
    full = [FullGroup(write_group(group), most, names) for group, most, names in list_full(chart, position, known)]
    without = tuple(machine for machine in waiting if machine not in position.slots)
    return SlotStatus(state.slots.limit(position.succeeded), tuple(holders), without, tuple(full))


def say_slots(slots: SlotStatus, now: datetime) -> str:
    """One line: how many slots are held, by which machines, for how long, and which machines wait for one."""
    held = name_some([_say_holder(slot, now) for slot in slots.holders])
    waiting = name_some(slots.waiting)
    full = "; ".join(f"{one.group} is full: {name_some(one.machines)}" for one in slots.full[:MAX_GROUPS])
    return (
        f"slots: {len(slots.holders)} of {slots.limit} held"
        + (f": {held}" if held else "")
        + (f"; {len(slots.waiting)} waiting: {waiting}" if waiting else "")
        + (f"; {full}" if full else "")
    )


def say_forecast(forecast: Forecast, now: datetime) -> str:
    """One line: the pace, and how long it is until the state is left as planned."""
    return (
        f"forecast: in {say_span(forecast.p50 - now)}, nine times of ten in {say_span(forecast.p90 - now)}"
        f" ({forecast.per_hour:,} an hour: {forecast.basis})"
    )


def _say_holder(slot: Slot, now: datetime) -> str:
    if slot.expired_at is not None:
        return f"{slot.machine} (LEASE RAN OUT {say_span(now - slot.expired_at)} ago, fence {slot.fence})"
    return f"{slot.machine} ({say_span(now - slot.claimed_at)}, fence {slot.fence})"


def say_what_it_waits_for(
    state: State,
    row: store.charts.ChartRow,
    position: Position,
    now: datetime,
    absent: Absent | None = None,
    *,
    refusals: Sequence[str] = (),
) -> str:
    """One sentence: what each guard still needs, which machines are missing, and the next deadline.

    `refusals` say what machines need that may not begin now. For a paused chart: who paused it, how long ago, and why.
    """
    if row.paused_at is not None:
        who = row.paused_by or "someone"
        return f"paused by {who} {say_span(now - row.paused_at)} ago: {row.pause_reason}"
    if state.is_final:
        return f"nothing: {state.name} is final"
    parts = [*_say_expired(position, now), *refusals]
    parts += [
        _say_guard(state, position, item.guard, item.target) for item in state.transitions if not item.guard.is_clock
    ]
    if absent is not None and absent.total:
        parts.append(f"not heard from: {name_some(absent.machines, total=absent.total)}")
    deadline = find_deadline(state, position)
    if deadline is not None and deadline.at is not None:
        left = deadline.at - now
        when = f"in {say_span(left)}" if left > timedelta(0) else "now"
        parts.append(f"{deadline.target} {when}, by the clock")
    return "; ".join(parts)


def _say_refusals(
    chart: Chart, state: State, now: datetime, window: WindowStatus | None, slots: SlotStatus | None
) -> list[str]:
    """What keeps machines from beginning that would be next: the window, people who decide, groups that are full."""
    parts = []
    schedule, rule = chart.find_schedule(state.name), state.slots
    if window is not None and not window.is_open:
        parts.append(f"its window, which {window.says}")
    elif window is not None and window.closes_at is not None and schedule is not None and schedule.fit:
        lease = None if rule is None else rule.lease
        if lease is not None and now + lease > window.closes_at:
            parts.append(f"its next window: a lease of {say_span(lease)} would outlast this one, which {window.says}")
    if state.approvers is not None:
        but = ", but not the person who imported this version" if state.approvers.not_importer else ""
        parts.append(f"people to approve{but}")
    full = () if slots is None else slots.full
    parts += [f"room in {one.group} (down: {name_some(one.machines)})" for one in full[:MAX_GROUPS]]
    return parts


def _say_expired(position: Position, now: datetime) -> list[str]:
    """The holders whose lease ran out. Their slots stay held until they claim again or report, or are evicted."""
    over = sorted((slot.expired_at, slot.machine) for slot in position.slots.values() if slot.expired_at is not None)
    named = name_some([f"{machine} (LEASE RAN OUT {say_span(now - at)} ago, slot still held)" for at, machine in over])
    return [named] if named else []


def _say_guard(state: State, position: Position, guard: CountGuard, target: str) -> str:
    value = position.values[guard.key]
    missing = state.func.count_missing(value, guard.threshold) if state.func is not None else 0
    more = f", {missing} more" if missing > 0 else ""
    return f"{target} when {guard.key} {guard.op} {guard.threshold} (now {value}{more})"
