"""Whether a guard holds, and when the clock next has something to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from app.core import chart as chart_module
from app.core.chart import Chart, ClockGuard, CountGuard, ElapsedGuard, Guard, State


class Kind(StrEnum):
    """What a row of the log records."""

    IMPORT = "import"
    UPGRADE = "upgrade"
    UPDATE = "update"
    TRANSITION = "transition"
    TIMEOUT = "timeout"
    PAUSE = "pause"
    RESUME = "resume"
    RESET = "reset"
    GOTO = "goto"
    ARCHIVE = "archive"
    CLAIM = "claim"
    RELEASE = "release"
    EXPIRE = "expire"
    EVICT = "evict"
    # Stands in the place of the rows that a prune took.
    PRUNE = "prune"


# What the clock did, not whoever happened to touch the chart.
CLOCK_KINDS = frozenset({Kind.TIMEOUT, Kind.EXPIRE})
# What changes no answer to "may I?".
COUNTING_KINDS = frozenset({Kind.UPDATE, Kind.CLAIM, Kind.RELEASE, Kind.EVICT})


class Verdict(StrEnum):
    """The answer to a machine: yes or no."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


class Reason(StrEnum):
    """Why the answer is what it is."""

    CURRENT = "current"
    REACHED = "reached"
    UPDATED = "updated"
    TRANSITIONED = "transitioned"
    REPLAY = "replay"
    NOT_CURRENT = "not_current"
    NOT_REACHED = "not_reached"
    UNKNOWN_STATE = "unknown_state"
    FINAL = "final"
    TIME_DRIVEN = "time_driven"
    PAUSED = "paused"
    LATE = "late"
    NOT_ON_ROSTER = "not_on_roster"
    NO_SLOT = "no_slot"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Slot:
    """A machine's leave to work now. `fence` rises with every claim of the chart."""

    machine: str
    fence: int
    claimed_at: datetime
    renewed_at: datetime
    expires_at: datetime | None = None
    expired_at: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        """True where the lease has run out and nobody has noticed yet."""
        return self.expires_at is not None and self.expired_at is None and self.expires_at <= now

    def extended(self, pause: timedelta) -> Slot:
        """The slot with a running lease made longer by `pause`."""
        if self.expires_at is None or self.expired_at is not None:
            return self
        return replace(self, expires_at=self.expires_at + pause)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a chart stands. `values` are the current state's; `paused_for` is this visit's pauses that are over.

    `reported` counts the machines that reported in this visit, and `holder_reports` says which slot holders did
    and on which attribute; both are read only where the state has slots.
    """

    version: int
    run: int
    visit: int
    state: str
    values: Mapping[str, int]
    entered_at: datetime
    paused_at: datetime | None = None
    paused_for: timedelta = timedelta(0)
    fence: int = 0
    slots: Mapping[str, Slot] = field(default_factory=dict)
    reported: int = 0
    holder_reports: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def is_paused(self) -> bool:
        return self.paused_at is not None

    def pause_in_visit(self, now: datetime) -> timedelta:
        """How long this visit has been paused so far, the running pause included."""
        if self.paused_at is None:
            return self.paused_for
        # The database's clock may have been set back: a pause is never less than no time.
        return self.paused_for + max(now - max(self.paused_at, self.entered_at), timedelta(0))

    def entered(self, state: State, now: datetime) -> Position:
        """The position at the start of a visit of `state`: values as defined, no reports, no slots."""
        return replace(
            self,
            visit=self.visit + 1,
            state=state.name,
            values=state.initial_values(),
            entered_at=now,
            paused_for=timedelta(0),
            slots={},
            reported=0,
            holder_reports={},
        )

    def upgraded(self, version: int, state: State) -> Position:
        """The position under another version, living on in `state`: the visit and the values it still has are kept."""
        values = {item.key: self.values.get(item.key, item.value) for item in state.attributes}
        slots = self.slots if state.slots is not None else {}
        return replace(self, version=version, state=state.name, values=values, slots=slots)

    def resumed(self, now: datetime) -> Position:
        """The position with its clock running again: the pause is added to the visit's and to every running lease."""
        paused_for = self.pause_in_visit(now)
        pause = paused_for - self.paused_for
        slots = {name: slot.extended(pause) for name, slot in self.slots.items()}
        return replace(self, paused_at=None, paused_for=paused_for, slots=slots)

    def with_slot(self, slot: Slot) -> Position:
        """The position with `slot` held."""
        return replace(self, slots={**self.slots, slot.machine: slot}, fence=max(self.fence, slot.fence))

    def without_slot(self, machine: str) -> Position:
        """The position with the slot of `machine`, if it held one, free."""
        if machine not in self.slots:
            return self
        return replace(self, slots={name: slot for name, slot in self.slots.items() if name != machine})


@dataclass(frozen=True, slots=True)
class Report:
    """The latest report of a machine in a visit; `key` is None once an upgrade has dropped the attribute."""

    visit: int
    machine: str
    key: str | None


@dataclass(frozen=True, slots=True)
class LoggedUpdate:
    """The accepted PUT that an Idempotency-Key stands for, as the log has it."""

    state: str
    machine: str | None
    key: str | None
    default_key: str | None


@dataclass(frozen=True, slots=True)
class Update:
    """A PUT, with what the log and the reports already know of it.

    `report` is the machine's report in the latest visit of `state` in this run, `was_entered` whether there is
    such a visit, `repeats` the accepted PUT that had the same Idempotency-Key.
    """

    state: str
    machine: str | None = None
    key: str | None = None
    report: Report | None = None
    was_entered: bool = False
    repeats: LoggedUpdate | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Pause:
    reason: str


@dataclass(frozen=True, slots=True)
class Resume:
    reason: str


@dataclass(frozen=True, slots=True)
class Reset:
    reason: str


@dataclass(frozen=True, slots=True)
class Goto:
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Archive:
    reason: str


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A new version takes over; `homes` names the new state of a state that is gone."""

    chart: Chart
    version: int
    homes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """A machine wants a slot of `state`."""

    state: str
    machine: str


@dataclass(frozen=True, slots=True)
class Release:
    """A machine gives its slot of `state` back without having reported."""

    state: str
    machine: str


@dataclass(frozen=True, slots=True)
class Evict:
    """An operator takes a machine's slot away."""

    machine: str
    reason: str


Happening = Update | Tick | Pause | Resume | Reset | Goto | Archive | Upgrade | Claim | Release | Evict


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the log in the making. `run` and `visit` are those it happened in, before any move."""

    kind: Kind
    version: int
    run: int
    visit: int
    from_state: str
    to_state: str
    key: str | None = None
    value_before: int | None = None
    value_after: int | None = None
    machine: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Visit:
    """A stay in a state that began."""

    run: int
    visit: int
    state: str


@dataclass(frozen=True, slots=True)
class Step:
    """One decision: the answer, where the chart stands after it, and what there is to write.

    `key` and `value` are the attribute the answer is about; `due_at` is when the clock next has something to do.
    """

    verdict: Verdict
    reason: Reason
    position: Position
    key: str | None = None
    value: int | None = None
    entries: tuple[Entry, ...] = ()
    visits: tuple[Visit, ...] = ()
    reports: tuple[Report, ...] = ()
    due_at: datetime | None = None

    @property
    def moves(self) -> bool:
        """True where somebody who waits for the chart may have to be told."""
        return any(entry.kind not in COUNTING_KINDS for entry in self.entries)

    @property
    def changes_nothing(self) -> bool:
        return not self.entries


def holds(guard: Guard, position: Position, now: datetime) -> bool:
    """True where `guard` holds at `position`; a paused clock never does."""
    match guard:
        case CountGuard():
            return chart_module.compare(guard.op, position.values[guard.key], guard.threshold)
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
