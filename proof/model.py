"""What a chart of the load is after each row of its log: a small model, which shares nothing with the service's own.

It reads the load's chart files with PyYAML, and judges each row by the values, the guards, the clock, the slots and
the leases that the rows before it give. It knows only what these files use: `increment`, guards that are reached,
`elapsed` in seconds, a number of slots, and leases that fail or free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import yaml

from app.core.log import LogRow
from app.core.position import Kind

NOTHING = timedelta(0)
# Rows that begin a visit, and rows before which the service does not run the clock.
ENTERING = frozenset({Kind.IMPORT, Kind.TRANSITION, Kind.TIMEOUT, Kind.RESET, Kind.GOTO})
CLOCKLESS = frozenset({Kind.IMPORT, Kind.RESET, Kind.RESUME, Kind.TIMEOUT})
# More of these would only say the same.
MOST_PROBLEMS = 20


# The chart file


@dataclass(frozen=True, slots=True)
class Move:
    """A transition: taken when `key` has reached `value`, or when the visit has the `age`."""

    target: str
    key: str
    value: int = 0
    age: timedelta | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A state; `slots` is None if machines need none."""

    name: str
    values: Mapping[str, int]
    moves: tuple[Move, ...]
    slots: int | None = None
    lease: timedelta = NOTHING
    on_expire: str = ""

    @property
    def first_key(self) -> str | None:
        return next(iter(self.values), None)

    @property
    def clock(self) -> Move | None:
        """The transition that the clock takes."""
        return next((move for move in self.moves if move.age is not None), None)


@dataclass(frozen=True, slots=True)
class Definition:
    """A chart file of the load."""

    initial: str
    states: Mapping[str, State]


def digest(text: str) -> str:
    """The SHA-256 of a chart file, as the log's rows of its import and upgrade have it."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_definitions(texts: Sequence[str]) -> dict[str, Definition]:
    """Read chart files, each under its SHA-256."""
    return {digest(text): read_definition(text) for text in texts}


def read_definition(text: str) -> Definition:
    """Read a chart file."""
    found = yaml.safe_load(text)
    states = [_read_state(item) for item in found["states"]]
    return Definition(found["current_state"], {state.name: state for state in states})


def _read_state(found: Mapping[str, Any]) -> State:
    return State(
        name=found["name"],
        values={item["key"]: item["value"] for item in _listed(found.get("current", []))},
        moves=tuple(_read_move(item["name"], **item["when"]) for item in _listed(found.get("target", []))),
        slots=found.get("slots"),
        lease=_read_seconds(found.get("lease", "0s")),
        on_expire=found.get("on_expire", ""),
    )


def _listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


def _read_move(target: str, key: str, value: Any) -> Move:
    return Move(target, key, age=_read_seconds(value)) if key == "elapsed" else Move(target, key, value)


def _read_seconds(text: str) -> timedelta:
    return timedelta(seconds=int(text.removesuffix("s")))


# The chart


@dataclass(frozen=True, slots=True)
class View:
    """What a chart is after a row, for those who ask about it.

    `entered` is the row that began the visit. The clock moves the chart at `due_at`, when the visit has the `age`, to
    `due_state`; None if that is not known.
    """

    state: str
    is_paused: bool
    entered: int
    due_at: datetime | None = None
    age: timedelta = NOTHING
    due_state: str | None = None
    slots: int | None = None
    holders: frozenset[str] = frozenset()

    @property
    def answering(self) -> str | None:
        """The state that answers a question with yes; None while the chart is paused."""
        return None if self.is_paused else self.state


@dataclass(slots=True)
class Lease:
    """A held slot."""

    fence: int
    expires_at: datetime


@dataclass(slots=True)
class Model:
    """A chart, row by row. `definitions` has every chart file that was sent, by its SHA-256."""

    definitions: Mapping[str, Definition]
    definition: Definition | None = None
    version: int = 0
    run: int = 0
    visit: int = 0
    state: State = field(default_factory=lambda: State("", {}, ()))
    values: dict[str, int] = field(default_factory=dict)
    reports: dict[str, str] = field(default_factory=dict)
    slots: dict[str, Lease] = field(default_factory=dict)
    fence: int = 0
    entered: int = 0
    entered_at: datetime = datetime.min
    paused_at: datetime | None = None
    paused_for: timedelta = NOTHING
    # The transition that the next row must be, and when.
    owed: tuple[Move, datetime] | None = None

    def take(self, row: LogRow) -> list[str]:
        """Take in a row; return how it contradicts the rows before."""
        found = [*self._check_owed(row), *self._check_place(row)]
        # What stands on the wrong place would contradict everything else, too.
        found = found or [*self._check_clock(row), *self._follow(row)]
        return [f"seq {row.seq}: {text}" for text in found]

    def view(self) -> View:
        """What the chart is now."""
        clock = self.state.clock
        due_at = self._due_at(clock)
        return View(
            state=self.state.name,
            is_paused=self.paused_at is not None,
            entered=self.entered,
            due_at=due_at,
            age=NOTHING if clock is None or clock.age is None else clock.age,
            due_state=None if clock is None else clock.target,
            slots=self.state.slots,
            holders=frozenset(self.slots),
        )

    def _due_at(self, move: Move | None) -> datetime | None:
        if move is None or move.age is None or self.paused_at is not None:
            return None
        return self.entered_at + move.age + self.paused_for

    def _first_that_holds(self, at: datetime) -> Move | None:
        for move in self.state.moves:
            due_at = self._due_at(move)
            if (move.age is None and self.values[move.key] >= move.value) or (due_at is not None and due_at <= at):
                return move
        return None

    # What must be, whatever the row says

    def _check_owed(self, row: LogRow) -> Iterator[str]:
        if self.owed is None:
            return
        (move, at), self.owed = self.owed, None
        is_paid = row.kind in (Kind.TRANSITION, Kind.TIMEOUT) and row.key is None and row.to_state == move.target
        if not is_paid or row.at != at:
            yield f"the chart stays in {self.state.name!r} at {self.values}, although {move.key} reached {move.value}"

    def _check_place(self, row: LogRow) -> Iterator[str]:
        if (row.kind == Kind.IMPORT) != (self.definition is None):
            yield f"{row.kind} where the chart {'is there' if self.definition else 'is not there'}"
            return
        if row.kind == Kind.IMPORT:
            return
        is_late = row.kind == Kind.LATE
        run, visit = (self.run + 1, 1) if row.kind == Kind.RESET else (self.run, self.visit)
        version = self.version + (row.kind == Kind.UPGRADE)
        place, said = [version, run], [row.version, row.run]
        if not is_late:
            place, said = [*place, visit, self.state.name], [*said, row.visit, row.from_state]
        elif row.visit >= visit:
            yield f"a late report about visit {row.visit} in visit {visit}"
        if place != said:
            yield f"{row.kind} in {said}, where the chart is in {place}"
        if row.kind not in ENTERING and row.from_state != row.to_state:
            yield f"{row.kind} moves the chart to {row.to_state!r}"

    def _check_clock(self, row: LogRow) -> Iterator[str]:
        """The clock goes first: a row comes after all that was due by its time."""
        if row.kind in CLOCKLESS or (row.kind == Kind.TRANSITION and row.key is None):
            return
        due_at = self._due_at(self.state.clock)
        if due_at is not None and due_at <= row.at:
            yield f"{row.kind} at {row.at}, although the clock was to move the chart at {due_at}"
        over = [name for name, lease in self.slots.items() if lease.expires_at <= row.at]
        if over and row.kind != Kind.EXPIRE and self.paused_at is None:
            yield f"{row.kind} at {row.at}, although the lease of {over[0]!r} was over"

    # What the row says

    def _follow(self, row: LogRow) -> Iterator[str]:
        match row.kind:
            case Kind.IMPORT:
                yield from self._import(row)
            case Kind.UPDATE | Kind.TRANSITION if row.key is not None:
                yield from self._count(row)
            case Kind.TRANSITION | Kind.TIMEOUT:
                yield from self._move(row)
            case Kind.PAUSE:
                yield from ["a pause of a paused chart"] if self.paused_at is not None else []
                self.paused_at = row.at
            case Kind.RESUME:
                yield from self._resume(row)
            case Kind.RESET:
                self.run, self.visit = row.run, 0
                initial = self.state if self.definition is None else self.definition.states[self.definition.initial]
                yield from self._expect("to_state", row.to_state, initial.name)
            case Kind.UPGRADE:
                yield from self._upgrade(row)
            case Kind.CLAIM:
                yield from self._claim(row)
            case Kind.RELEASE:
                yield from self._release(row)
            case Kind.EXPIRE:
                yield from self._expire(row)
            case Kind.GOTO | Kind.LATE:
                pass
            case _:
                yield f"a row of the kind {row.kind}, which nobody asked for"
        if row.kind in ENTERING:
            self._enter(row)

    def _expect(self, what: str, said: object, given: object) -> Iterator[str]:
        if said != given:
            yield f"{what} is {said!r}, the rows before give {given!r}"

    def _enter(self, row: LogRow) -> None:
        if self.definition is None or row.to_state not in self.definition.states:
            return
        self.state = self.definition.states[row.to_state]
        self.values, self.reports, self.slots = dict(self.state.values), {}, {}
        self.visit, self.entered, self.entered_at, self.paused_for = self.visit + 1, row.seq, row.at, NOTHING

    def _import(self, row: LogRow) -> Iterator[str]:
        self.definition = self.definitions.get(row.note or "")
        if self.definition is None:
            yield f"an import of a chart file that nobody sent: {row.note}"
            return
        self.version, self.run = row.version, row.run
        yield from self._expect("to_state", row.to_state, self.definition.initial)
        yield from self._expect("version, run, visit", (row.version, row.run, row.visit), (1, 1, 1))

    def _count(self, row: LogRow) -> Iterator[str]:
        machine, key = row.machine, row.key or ""
        if key not in self.values:
            yield f"counts on {key!r}, which {self.state.name!r} lacks"
            return
        if self.state.slots is not None and machine not in self.slots:
            yield f"{machine!r} is counted without a slot"
        yield from self._add(row, machine, key)
        self.slots.pop(machine or "", None)
        move = None if self.paused_at is not None else self._first_that_holds(row.at)
        if row.kind == Kind.UPDATE and move is not None:
            yield f"stays in {self.state.name!r} at {self.values}, although {move.key} reached {move.value}"
        if row.kind == Kind.TRANSITION and (move is None or move.target != row.to_state):
            yield self._refuse(row)

    def _add(self, row: LogRow, machine: str | None, key: str) -> Iterator[str]:
        if machine is not None:
            before = self.reports.get(machine)
            if before in self.values:
                self.values[str(before)] -= 1
            self.reports[machine] = key
        given = self.values[key], self.values[key] + 1
        yield from self._expect(key, (row.value_before, row.value_after), given)
        # The rows that follow are judged by what this one says.
        self.values[key] = given[1] if row.value_after is None else row.value_after

    def _refuse(self, row: LogRow) -> str:
        return f"moves from {self.state.name!r} to {row.to_state!r} at {self.values}, which no guard allows"

    def _move(self, row: LogRow) -> Iterator[str]:
        """A move without a report: the clock's, or one that a resume, an upgrade or the end of a lease left due."""
        if row.key is None:
            move = None if self.paused_at is not None else self._first_that_holds(row.at)
            if move is None or move.age is not None or move.target != row.to_state:
                yield self._refuse(row)
            return
        clock = self.state.clock
        due_at = self._due_at(clock)
        if clock is None or due_at is None or clock.target != row.to_state or clock.key != row.key:
            yield self._refuse(row)
        elif row.at < due_at:
            yield (
                f"the clock moved the chart after {row.at - self.entered_at}, {clock.age} was the rule, and"
                f" {self.paused_for} of pauses"
            )

    def _resume(self, row: LogRow) -> Iterator[str]:
        if self.paused_at is None:
            yield "a resume of a chart that is not paused"
            return
        pause = max(row.at - max(self.paused_at, self.entered_at), NOTHING)
        self.paused_at, self.paused_for = None, self.paused_for + pause
        for lease in self.slots.values():
            lease.expires_at += pause
        self._owe(row)

    def _owe(self, row: LogRow) -> None:
        move = None if self.paused_at is not None else self._first_that_holds(row.at)
        self.owed = None if move is None or move.age is not None else (move, row.at)

    def _upgrade(self, row: LogRow) -> Iterator[str]:
        definition = self.definitions.get(row.note or "")
        if definition is None or self.state.name not in definition.states:
            yield f"an upgrade to a chart file that nobody sent: {row.note}"
            return
        before, self.state = self.state, definition.states[self.state.name]
        self.definition, self.version = definition, row.version
        self.values = {key: self.values.get(key, value) for key, value in self.state.values.items()}
        for lease in self.slots.values():
            lease.expires_at += self.state.lease - before.lease
        self._owe(row)

    def _claim(self, row: LogRow) -> Iterator[str]:
        machine, limit = row.machine or "", self.state.slots
        held = self.slots.get(machine)
        if limit is None or self.paused_at is not None:
            yield f"{machine!r} claims a slot of {self.state.name!r}, which gives none now"
            return
        if held is None and self.reports.get(machine) == self.state.first_key:
            yield f"{machine!r} claims a slot, and has done its part"
        if held is None and len(self.slots) >= limit:
            yield f"{machine!r} claims slot {len(self.slots) + 1} of {limit}"
        fences = (None, self.fence + 1) if held is None else (held.fence, held.fence)
        yield from self._expect("the fence", (row.value_before, row.value_after), fences)
        self.slots[machine] = Lease(row.value_after or 0, row.at + self.state.lease)
        self.fence = max(self.fence, row.value_after or 0)

    def _release(self, row: LogRow) -> Iterator[str]:
        held = self.slots.pop(row.machine or "", None)
        if held is None:
            yield f"{row.machine!r} gives a slot back, and holds none"
            return
        yield from self._expect("the fence", row.value_before, held.fence)

    def _expire(self, row: LogRow) -> Iterator[str]:
        held = self.slots.pop(row.machine or "", None)
        if held is None or self.paused_at is not None:
            yield f"a lease of {row.machine!r} ends that does not run"
            return
        if row.at < held.expires_at:
            yield f"the lease of {row.machine!r} ends at {row.at}, it was to end at {held.expires_at}"
        yield from self._expect("on_expire", row.reason, self.state.on_expire)
        if row.reason != "fail":
            yield from self._expect("the fence", row.value_before, held.fence)
        elif self.reports.get(row.machine or "") == "failed":
            failed = self.values["failed"]
            yield from self._expect("failed", (row.value_before, row.value_after), (failed, failed))
        else:
            yield from self._add(row, row.machine, "failed")
            self._owe(row)


def replay(rows: Sequence[LogRow], definitions: Mapping[str, Definition]) -> tuple[list[str], list[View]]:
    """Return how the rows contradict each other, and what the chart is after each."""
    model = Model(definitions)
    problems: list[str] = []
    views = []
    for row in rows:
        problems += model.take(row)
        views.append(model.view())
        if len(problems) >= MOST_PROBLEMS:
            break
    if model.owed is not None and not problems:
        problems.append(f"the log ends, although {model.owed[0].key} reached {model.owed[0].value}")
    return problems, views
