"""The closed table of funcs. One more func is one more entry in each table here."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from app.core.errors import AttributeRangeError

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
# It stands in paths, so `.` and `..` are none.
CHART_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.:-]{1,128}")
CHART_NAME_RULE = "1 to 128 characters of A-Z a-z 0-9 _ . - : (nor '.' or '..')"
CLOCK_KEYS = frozenset({"clock", "elapsed"})


class Func(StrEnum):
    """What an accepted PUT does to an attribute."""

    INCREMENT = "increment"
    DECREMENT = "decrement"
    TIME = "time"


class Op(StrEnum):
    """How a count guard compares the attribute with its threshold."""

    EQ = "=="
    NE = "!="
    GE = ">="
    LE = "<="
    GT = ">"
    LT = "<"


class OnExpire(StrEnum):
    """What happens to a slot whose lease has run out."""

    HOLD = "hold"
    FREE = "free"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class CountGuard:
    """Holds when the attribute `key` compares by `op` with `threshold`; `written` is the file's text (`12`, `95%`)."""

    key: str
    op: Op
    threshold: int
    written: str


@dataclass(frozen=True, slots=True)
class ClockGuard:
    """Holds once `instant` (aware, UTC) has come."""

    instant: datetime
    written: str
    key: str = field(default="clock", init=False)


@dataclass(frozen=True, slots=True)
class ElapsedGuard:
    """Holds once the visit is `age` old, time spent paused not counted."""

    age: timedelta
    written: str
    key: str = field(default="elapsed", init=False)


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


@dataclass(frozen=True, slots=True)
class SlotRule:
    """How many machines may hold a slot at a time.

    `stages` are the limits in turn, already resolved to machines, each lasting until as many machines
    have reported as the stages up to it hold in sum; the last one stays. `written` is the file's text
    of each. `lease` None means a claim never expires.
    """

    stages: tuple[int, ...]
    written: tuple[str, ...]
    lease: timedelta | None = None
    lease_written: str | None = None
    on_expire: OnExpire = OnExpire.HOLD

    def limit(self, reported: int) -> int:
        """Return how many slots there are once `reported` machines have reported in this visit."""
        total = 0
        for stage in self.stages:
            total += stage
            if reported < total:
                return stage
        return self.stages[-1]


@dataclass(frozen=True, slots=True)
class State:
    """One state; without a `func` it is final. The first attribute is the one a plain PUT updates."""

    name: str
    func: Func | None = None
    attributes: tuple[Attribute, ...] = ()
    transitions: tuple[Transition, ...] = ()
    slots: SlotRule | None = None
    description: str = ""

    @property
    def is_final(self) -> bool:
        return self.func is None

    @property
    def default_key(self) -> str | None:
        """The attribute that a PUT without `key` updates."""
        return self.attributes[0].key if self.attributes else None

    def has_attribute(self, key: str) -> bool:
        return any(attribute.key == key for attribute in self.attributes)

    def initial_values(self) -> dict[str, int]:
        return {attribute.key: attribute.value for attribute in self.attributes}


@dataclass(frozen=True, slots=True)
class Chart:
    """One version of a named state machine. `roster`, where there is one, lists the machines that take part."""

    name: str
    initial: str
    states: Mapping[str, State]
    description: str = ""
    expect: int | None = None
    roster: tuple[str, ...] | None = None
    require_machine: bool = False
    roster_set: frozenset[str] | None = field(init=False, default=None, repr=False, compare=False)
    _reach: dict[str, frozenset[str]] = field(init=False, default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", MappingProxyType(dict(self.states)))
        object.__setattr__(self, "roster_set", None if self.roster is None else frozenset(self.roster))

    def can_reach(self, origin: str, target: str) -> bool:
        """True if transitions lead from the state `origin` to the state `target`, or both are the same state."""
        found = self._reach.get(origin)
        if found is None:
            found = self._reach[origin] = self._list_reachable(origin)
        return target in found

    def _list_reachable(self, origin: str) -> frozenset[str]:
        found, ahead = {origin}, [origin]
        while ahead:
            targets = {transition.target for transition in self.states[ahead.pop()].transitions} - found
            found |= targets
            ahead += targets
        return frozenset(found)

    def is_on_roster(self, machine: str) -> bool:
        """True where `machine` takes part: always, for a chart without a roster."""
        return self.roster_set is None or machine in self.roster_set


# What an accepted PUT adds to the attribute; a `time` state accepts no PUT.
_STEP = {Func.INCREMENT: 1, Func.DECREMENT: -1}
# How a guard without `op` compares: the value is reached.
REACHED = {Func.INCREMENT: Op.GE, Func.DECREMENT: Op.LE}
_COMPARE: dict[Op, Callable[[int, int], bool]] = {
    Op.EQ: operator.eq,
    Op.NE: operator.ne,
    Op.GE: operator.ge,
    Op.LE: operator.le,
    Op.GT: operator.gt,
    Op.LT: operator.lt,
}


def apply(func: Func, key: str, value: int) -> int:
    """Return the value of attribute `key` after one report. Raises AttributeRangeError past 64 bits."""
    return _in_range(key, value + _STEP[func])


def undo(func: Func, key: str, value: int) -> int:
    """Return the value of attribute `key` with one report taken back. Raises AttributeRangeError past 64 bits."""
    return _in_range(key, value - _STEP[func])


def compare(op: Op, value: int, threshold: int) -> bool:
    """True where `value op threshold`."""
    return _COMPARE[op](value, threshold)


def _in_range(key: str, value: int) -> int:
    if not INT64_MIN <= value <= INT64_MAX:
        raise AttributeRangeError(f"attribute {key!r} would leave the 64-bit range")
    return value
