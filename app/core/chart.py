"""The definition of a chart: its states, what a PUT does to them (`Func`), and when they are left (`Guard`).

A func and a guard answer for themselves: what is true of one func or of one kind of guard stands in its class here,
and other modules ask it instead of naming it.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import ClassVar, Literal, Protocol, Self

from app.core.errors import AttributeRangeError
from app.core.expect import Expect, FromRoster, GroupLimit, Listed, Number, Reporters, as_people
from app.core.promises import Promises
from app.core.window import Hours, Schedule, find_end_of_open_time

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
# Chart names are URL path segments, so `.` and `..` are not allowed.
CHART_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.:-]{1,128}")
CHART_NAME_RULE = "1 to 128 characters of A-Z a-z 0-9 _ . - : (nor '.' or '..')"
# The attribute that counts failures; `on_expire: fail` counts on it, and the pages show it.
FAILED_KEY = "failed"
NO_PROMISES = Promises()
# States with numbers in the place of percentages that a chart keeps: one for each size that a set has had.
MAX_SIZED = 256


class Op(StrEnum):
    """How a count guard compares the attribute with its threshold."""

    EQ = "=="
    NE = "!="
    GE = ">="
    LE = "<="
    GT = ">"
    LT = "<"

    @property
    def sign(self) -> str:
        """The op as mathematics writes it: `≥` for `>=`."""
        return _SIGNS[self]


_SIGNS = {Op.EQ: "=", Op.NE: "≠", Op.GE: "≥", Op.LE: "≤", Op.GT: ">", Op.LT: "<"}
_COMPARE: dict[Op, Callable[[int, int], bool]] = {
    Op.EQ: operator.eq,
    Op.NE: operator.ne,
    Op.GE: operator.ge,
    Op.LE: operator.le,
    Op.GT: operator.gt,
    Op.LT: operator.lt,
}


def compare(op: Op, value: int, threshold: int) -> bool:
    """Return whether `value op threshold` is true."""
    return _COMPARE[op](value, threshold)


def round_share(exact: Fraction, op: Op) -> int | None:
    """Return the whole number that compares by `op` with every count as the exact number of machines does.

    For `>=` it is at least 1. None for `==` and `!=` if the exact number is not whole.
    """
    match op:
        case Op.GE:
            return max(1, math.ceil(exact))
        case Op.LT:
            return math.ceil(exact)
        case Op.GT | Op.LE:
            return math.floor(exact)
    return int(exact) if exact.denominator == 1 else None


@dataclass(frozen=True, slots=True)
class Counting:
    """What one report does to an attribute.

    `apply` and `undo` map a value to the next one and back. `reached_op` compares in a guard that has no `op`.
    `distance` is the number of reports that lead from a value to a threshold, 0 or less if it has been reached.
    """

    apply: Callable[[int], int]
    undo: Callable[[int], int]
    reached_op: Op
    distance: Callable[[int, int], int]


class Func(StrEnum):
    """What an accepted PUT does to an attribute. A func without `Counting` accepts none: the clock moves its state."""

    INCREMENT = (
        "increment",
        Counting(lambda value: value + 1, lambda value: value - 1, Op.GE, lambda value, threshold: threshold - value),
    )
    DECREMENT = (
        "decrement",
        Counting(lambda value: value - 1, lambda value: value + 1, Op.LE, lambda value, threshold: value - threshold),
    )
    TIME = ("time", None)

    counting: Counting | None
    is_counting: bool
    reached_op: Op | None

    def __new__(cls, word: str, counting: Counting | None = None) -> Self:
        """Make the member that a chart file calls `word`."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.counting = counting
        member.is_counting = counting is not None
        member.reached_op = None if counting is None else counting.reached_op
        return member

    def apply(self, key: str, value: int) -> int:
        """Return the value of attribute `key` after one more report. Raises AttributeRangeError past 64 bits."""
        return _in_range(key, self._counts().apply(value))

    def undo(self, key: str, value: int) -> int:
        """Return the value of attribute `key` with one report taken back. Raises AttributeRangeError past 64 bits."""
        return _in_range(key, self._counts().undo(value))

    def count_missing(self, value: int, threshold: int) -> int:
        """Return how many reports lead from `value` to `threshold`; 0 or less if it has been reached."""
        return self._counts().distance(value, threshold)

    def _counts(self) -> Counting:
        assert self.counting is not None, f"{self} counts nothing"
        return self.counting


def _in_range(key: str, value: int) -> int:
    if not INT64_MIN <= value <= INT64_MAX:
        raise AttributeRangeError(f"attribute {key!r} would leave the 64-bit range")
    return value


class OnExpire(StrEnum):
    """What happens to a slot whose lease has run out."""

    HOLD = "hold"
    FREE = "free"
    FAIL = "fail"


class Situation(Protocol):
    """What a guard reads of a chart's position (`app.core.position.Position`)."""

    @property
    def values(self) -> Mapping[str, int]:
        """The current state's attributes."""

    @property
    def entered_at(self) -> datetime:
        """When the visit began."""

    @property
    def paused_for(self) -> timedelta:
        """How long the pauses of this visit that are over lasted."""

    @property
    def is_paused(self) -> bool:
        """Whether the chart is paused now."""

    @property
    def hours(self) -> Hours:
        """What decides, beside its windows, when the chart is open."""


class Standing(Protocol):
    """What the current state is found by (`app.core.position.Position`)."""

    @property
    def state(self) -> str:
        """The current state's name."""

    @property
    def expected(self) -> int | None:
        """How many machines take part in the visit, if that was looked up."""


@dataclass(frozen=True, slots=True)
class CountGuard:
    """Holds if the attribute `key` compares by `op` with `threshold`; `written` is the file's text (`12`, `95%`).

    With `share` the threshold is that share of a set whose size must be looked up: `sized` gives the guard with its
    threshold, and until then there is no answer to whether it holds.
    """

    is_clock: ClassVar[Literal[False]] = False

    key: str
    op: Op
    threshold: int
    written: str
    share: Fraction | None = None

    @property
    def is_percentage(self) -> bool:
        """Whether the file gives the threshold as a percentage."""
        return self.written.endswith("%")

    @property
    def needed(self) -> int:
        """The first value at which the guard holds, if the values come to its threshold from the other side."""
        return self.threshold + {Op.GT: 1, Op.LT: -1}.get(self.op, 0)

    def sized(self, machines: int) -> CountGuard:
        """Return the guard as it is if `machines` take part."""
        if self.share is None:
            return self
        threshold = round_share(machines * self.share, self.op)
        assert threshold is not None  # such a guard has neither `==` nor `!=`
        return replace(self, threshold=threshold, share=None)

    def due_at(self, position: Situation) -> None:
        """Return None: the clock never makes a count guard hold."""

    def holds(self, position: Situation, now: datetime) -> bool:
        """Return whether the attribute has the wanted value; a pause makes no difference."""
        assert self.share is None, "the guard has no threshold yet"
        return _COMPARE[self.op](position.values[self.key], self.threshold)

    @property
    def text(self) -> str:
        """The guard as people read it: `count ≥ 190 (95%)`."""
        if self.share is not None:
            return f"{self.key} {self.op.sign} {self.written}"
        percentage = f" ({self.written})" if self.is_percentage else ""
        return f"{self.key} {self.op.sign} {self.threshold}{percentage}"

    @property
    def log_text(self) -> str:
        """The guard as the log's reason has it: `count >= 95%`."""
        return f"{self.key} {self.op} {self.written}"


class TimedGuard:
    """What the clock's guards share: they hold from the instant `due_at` on, and never while the chart is paused."""

    __slots__ = ()

    is_clock: ClassVar[Literal[True]] = True
    key: str
    written: str

    def due_at(self, position: Situation) -> datetime | None:
        """Return when the guard comes due if the chart is not paused again; None if that is not foreseeable."""
        raise NotImplementedError

    def holds(self, position: Situation, now: datetime) -> bool:
        """Return whether the guard has come due; False while the chart is paused."""
        due_at = None if position.is_paused else self.due_at(position)
        return due_at is not None and due_at <= now

    @property
    def log_text(self) -> str:
        """The guard as the log's reason has it: `elapsed 30m`."""
        return f"{self.key} {self.written}"


@dataclass(frozen=True, slots=True)
class ClockGuard(TimedGuard):
    """Holds from `instant` (aware, UTC) on; `written` is the file's text."""

    instant: datetime
    written: str
    key: str = field(default="clock", init=False)

    def due_at(self, position: Situation) -> datetime:
        """Return the instant."""
        return self.instant

    @property
    def text(self) -> str:
        """The guard as people read it: `at 2030-01-31 21:00 UTC`."""
        return f"at {self.instant:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, slots=True)
class ElapsedGuard(TimedGuard):
    """Holds once the visit is `age` old; time spent paused does not count. `written` is the file's text.

    With a `schedule` only the time counts in which the chart is open by it (`of: open`).
    """

    age: timedelta
    written: str
    key: str = field(default="elapsed", init=False)
    schedule: Schedule | None = None

    def due_at(self, position: Situation) -> datetime | None:
        """Return when the visit reaches that age; pauses that are over move it back."""
        if self.schedule is not None:
            return find_end_of_open_time(self.schedule, position.hours, position.entered_at, self.age)
        return position.entered_at + self.age + position.paused_for

    @property
    def text(self) -> str:
        """The guard as people read it: `after 30m`."""
        return f"after {self.written}" + (" open" if self.schedule is not None else "")

    @property
    def log_text(self) -> str:
        """The guard as the log's reason has it: `elapsed 8h of open`."""
        return f"{self.key} {self.written}" + (" of open" if self.schedule is not None else "")


Guard = CountGuard | ClockGuard | ElapsedGuard


@dataclass(frozen=True, slots=True)
class Attribute:
    """A key and the value it has whenever its state is entered."""

    key: str
    value: int


@dataclass(frozen=True, slots=True)
class Transition:
    """A move to the state `target`, taken when `guard` holds."""

    target: str
    guard: Guard

    def sized(self, machines: int) -> Transition:
        """Return the transition as it is if `machines` take part."""
        if self.guard.is_clock or self.guard.share is None:
            return self
        return replace(self, guard=self.guard.sized(machines))


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRule:
    """How many machines may hold a slot at a time.

    `stages` are the limits, as numbers of machines. Each limit applies until as many machines are counted on the
    state's first attribute as this stage and the stages before it allow in sum; the last limit applies from then on.
    `written` is the file's text of each limit. If `lease` is None, a claim never expires. `shares` has, for each stage
    that is a percentage of a set whose size must be looked up, that share, and for the others None. `per` limits the
    machines of each group that may be down.
    """

    stages: tuple[int, ...]
    written: tuple[str, ...]
    lease: timedelta | None = None
    lease_written: str | None = None
    on_expire: OnExpire = OnExpire.HOLD
    shares: tuple[Fraction | None, ...] = ()
    per: tuple[GroupLimit, ...] = ()

    def sized(self, machines: int) -> SlotRule:
        """Return the rule as it is if `machines` take part: shares are rounded up, and at least 1."""
        stages = [
            stage if share is None else max(1, math.ceil(machines * share))
            for stage, share in zip(self.stages, self.shares, strict=True)
        ]
        return replace(self, stages=tuple(stages), shares=())

    def limit(self, succeeded: int) -> int:
        """Return how many slots there are once `succeeded` machines are counted on the first attribute."""
        total = 0
        for stage in self.stages:
            total += stage
            if succeeded < total:
                return stage
        return self.stages[-1]


@dataclass(frozen=True, slots=True)
class Approvers:
    """The rule of a state on which people report (`who: approvers`).

    With `not_importer`, the person who imported the version in force may not.
    """

    not_importer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One state; without a `func` it is final. The first attribute is the one a plain PUT updates.

    `schedule` is what the file says of this state alone; `Chart.find_schedule` is what is in force. `approvers` is set
    if people report on the state, and not machines.
    `expect` is the set of machines that take part here; None leaves it to the chart. A machine that was counted on the
    first attribute of the states `including` in this run is counted here on entry.
    `default_key` names that attribute; it is None if the state has no attributes. Machines report on a state that
    `is_counting`: not on a final one, and not on one that only the clock moves.
    `reported` has, for attributes, the machines whose reports their starting values include; they may not count again
    in a run that an import starts here. An export writes it.
    """

    name: str
    func: Func | None = None
    attributes: tuple[Attribute, ...] = ()
    transitions: tuple[Transition, ...] = ()
    slots: SlotRule | None = None
    description: str = ""
    reported: tuple[tuple[str, tuple[str, ...]], ...] = ()
    schedule: Schedule | None = None
    approvers: Approvers | None = None
    expect: Expect | None = None
    including: tuple[str, ...] = ()
    is_final: bool = field(init=False, repr=False, compare=False)
    is_counting: bool = field(init=False, repr=False, compare=False)
    default_key: str | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_final", self.func is None)
        object.__setattr__(self, "is_counting", self.func is not None and self.func.is_counting)
        object.__setattr__(self, "default_key", self.attributes[0].key if self.attributes else None)

    @property
    def reports(self) -> dict[str, str]:
        """The attribute of each machine in `reported`."""
        return {machine: key for key, machines in self.reported for machine in machines}

    @property
    def is_for_machines(self) -> bool:
        """Whether machines report on the state: it counts, and not what people say."""
        return self.is_counting and self.approvers is None

    def sized(self, machines: int) -> State:
        """Return the state as it is if `machines` take part: its percentages are numbers."""
        slots = self.slots if self.slots is None or not self.slots.shares else self.slots.sized(machines)
        return replace(self, transitions=tuple(move.sized(machines) for move in self.transitions), slots=slots)

    def has_attribute(self, key: str) -> bool:
        """Return whether the state has an attribute of that name."""
        return any(attribute.key == key for attribute in self.attributes)

    def initial_values(self) -> dict[str, int]:
        """Return the attributes as they are whenever the state is entered."""
        return {attribute.key: attribute.value for attribute in self.attributes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One version of a named state machine.

    `expect` is how many machines take part, `roster` their ids; each is None if the chart file does not say so.
    `follows` is in their place if the file names a roster; `common` is whichever of these the file has. A state may
    have a set of its own: `expect_of` has what counts in a state. `require_machine` is what the file says;
    `needs_machine` is what follows from the file. `rosters` are the names of all rosters that the
    chart and its states go by. `remembered` are the states whose reports later states ask for. A chart that `looks_up`
    nothing about machines has neither.
    `schedule` is the one of
    every state that says no other. `importer` is who imported this version, and `sha256` the hash of its file; None if
    that is not known. `calendars` are the names of all calendars that the file names.
    `promises` are what may never, and must always, happen.
    """

    name: str
    initial: str
    states: Mapping[str, State]
    description: str = ""
    expect: int | None = None
    roster: tuple[str, ...] | None = None
    require_machine: bool = False
    schedule: Schedule | None = None
    importer: str | None = field(default=None, compare=False)
    sha256: str | None = field(default=None, compare=False)
    calendars: frozenset[str] = field(init=False, default=frozenset(), repr=False, compare=False)
    _schedules: dict[str, Schedule] = field(init=False, default_factory=dict, repr=False, compare=False)
    promises: Promises = NO_PROMISES
    follows: FromRoster | None = None
    rosters: tuple[str, ...] = field(init=False, default=(), repr=False, compare=False)
    remembered: frozenset[str] = field(init=False, default=frozenset(), repr=False, compare=False)
    looks_up: bool = field(init=False, repr=False, compare=False)
    common: Expect | None = field(init=False, repr=False, compare=False)
    _sets: Mapping[str, Expect | None] = field(init=False, repr=False, compare=False)
    _sized: dict[tuple[str, int], State] = field(init=False, default_factory=dict, repr=False, compare=False)
    _reach: dict[str, frozenset[str]] = field(init=False, default_factory=dict, repr=False, compare=False)
    _counts_ahead: dict[str, bool] = field(init=False, default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", MappingProxyType(dict(self.states)))
        common = self._make_common_set()
        object.__setattr__(self, "common", common)
        people = as_people(common)
        sets = {
            name: state.expect or (common if state.approvers is None else people) for name, state in self.states.items()
        }
        object.__setattr__(self, "_sets", sets)
        rosters = {item.roster for item in (common, *sets.values()) if isinstance(item, FromRoster)}
        object.__setattr__(self, "rosters", tuple(sorted(rosters)))
        remembered = {name for state in self.states.values() for name in state.including}
        remembered.update(name for item in sets.values() if isinstance(item, Reporters) for name in item.states)
        object.__setattr__(self, "remembered", frozenset(remembered))
        object.__setattr__(self, "looks_up", bool(rosters or remembered))
        self._resolve_schedules()

    def _resolve_schedules(self) -> None:
        for name, state in self.states.items():
            schedule = self.schedule if state.schedule is None else state.schedule.within(self.schedule)
            if schedule is not None and schedule.can_close:
                self._schedules[name] = schedule
        named = (schedule.calendars or () for schedule in self._schedules.values())
        object.__setattr__(self, "calendars", frozenset(name for names in named for name in names))

    @property
    def can_close(self) -> bool:
        """Whether there is a state that is not always open."""
        return bool(self._schedules)

    def find_schedule(self, state: str) -> Schedule | None:
        """Return when `state` is open; None if it always is."""
        return self._schedules.get(state)

    def _make_common_set(self) -> Expect | None:
        if self.follows is not None:
            return self.follows
        if self.roster is not None:
            return Listed(self.roster)
        return None if self.expect is None else Number(self.expect)

    def expect_of(self, state: str) -> Expect | None:
        """Return the set of machines that take part in a state; None if the chart file does not say it."""
        return self._sets[state]

    def count_expected(self, position: Standing) -> int | None:
        """Return how many machines take part in the current state; None if the chart file does not say it."""
        expect = self._sets[position.state]
        return expect.size if expect is not None and expect.is_fixed else position.expected

    @property
    def has_own_sets(self) -> bool:
        """Whether a state has a set of its own, so that another state may be for other machines."""
        return any(state.expect is not None for state in self.states.values())

    def find_label_roster(self, state: str) -> str | None:
        """Return the roster that has the labels of a state's machines: that of its set, else the chart's."""
        own = self._sets[state]
        if isinstance(own, FromRoster):
            return own.roster
        return None if self.follows is None else self.follows.roster

    def state_at(self, position: Standing) -> State:
        """Return the current state; if its percentages are of a set that is looked up, with numbers in their place."""
        machines = position.expected
        if machines is None:
            return self.states[position.state]
        key = (position.state, machines)
        found = self._sized.get(key)
        if found is None:
            if len(self._sized) >= MAX_SIZED:
                self._sized.clear()
            found = self._sized[key] = self.states[position.state].sized(machines)
        return found

    def can_reach(self, origin: str, target: str) -> bool:
        """True if transitions lead from the state `origin` to the state `target`, or both are the same state."""
        found = self._reach.get(origin)
        if found is None:
            found = self._reach[origin] = self._list_reachable(origin)
        return target in found

    def leads_to_machines(self, origin: str) -> bool:
        """True if a transition out of `origin` leads, at once or later, to a state on which machines report."""
        found = self._counts_ahead.get(origin)
        if found is None:
            targets = {transition.target for transition in self.states[origin].transitions}
            ahead = (name for target in targets for name in self._list_reachable(target))
            found = self._counts_ahead[origin] = any(self.states[name].is_for_machines for name in ahead)
        return found

    def _list_reachable(self, origin: str) -> frozenset[str]:
        found, ahead = {origin}, [origin]
        while ahead:
            targets = {transition.target for transition in self.states[ahead.pop()].transitions} - found
            found |= targets
            ahead += targets
        return frozenset(found)

    def is_on_roster(self, machine: str) -> bool:
        """Return whether the chart's own list has `machine`; True for every machine if it has no list."""
        return not isinstance(self.common, Listed) or self.common.has(machine)

    @property
    def needs_machine(self) -> bool:
        """Whether a PUT without a machine's id is an error in every state: the file says so, or lists the machines."""
        return self.require_machine or (self.common is not None and self.common.names_machines)

    def needs_machine_in(self, state: str) -> bool:
        """Return whether a PUT on `state` without a machine's id is an error."""
        if self.require_machine:
            return True
        expect = self._sets.get(state, self.common)
        return expect is not None and expect.names_machines
