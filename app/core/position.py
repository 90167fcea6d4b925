"""Where a chart stands, what can happen to it, and what a decision about it says.

`Position` is where it stands. The classes from `Update` to `Evict` are what can happen, together `Happening`. `Step`
is the answer, with the rows that there are to write. All of them are values: nothing here changes in place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from app.core.chart import FAILED_KEY, Chart, OnExpire, SlotRule, State
from app.core.expect import ALL_UP, Down, Group
from app.core.window import NO_HOURS, Hours, Schedule


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
    # A machine that was counted in a state reports another attribute after the chart has left it. It moves nothing.
    LATE = "late"
    # A report that no longer counts, because its machine is not on the roster of the version that took over.
    WITHDRAW = "withdraw"
    # An operator opened the chart until the instant that is the row's note, whatever its windows say.
    OPEN = "open"
    # Another version of the calendar `key` is in force: `value_before` and `value_after` are the versions.
    CALENDAR = "calendar"
    # The chart goes by another version of a roster from here on.
    ROSTER = "roster"
    # The checkpoint row that replaces the rows deleted by a prune.
    PRUNE = "prune"


# Done by the clock, not by the caller whose request made it run; such rows have no actor.
CLOCK_KINDS = frozenset({Kind.TIMEOUT, Kind.EXPIRE})
# Rows of these kinds change no answer to "may I?".
COUNTING_KINDS = frozenset({Kind.UPDATE, Kind.CLAIM, Kind.RELEASE, Kind.EVICT, Kind.LATE, Kind.WITHDRAW})


# Ends the reason of an upgrade row that gave the slots already held the leases of the new version. A row from before
# upgrades did so does not say it, and a replay leaves the leases as they were.
LEASES_FOLLOW = "; held slots get its leases"
# In the reason of an upgrade row: the new homes of the states that are gone, as JSON. A state's name has no braces.
_HOMES = re.compile(r"; map (\{[^}]*\})")


def say_upgrade(old: int, new: int, homes: Mapping[str, str], follows: str = "") -> str:
    """Return the reason of the row of an upgrade; a replay reads `homes` and `follows` (LEASES_FOLLOW) back from it."""
    written = json.dumps(dict(homes), sort_keys=True)
    return f"version {old} to {new}{f'; map {written}' if homes else ''}{follows}"


def read_logged_homes(reason: str | None) -> dict[str, str]:
    """Return the new homes that the reason of an upgrade row names. Raises ValueError."""
    found = _HOMES.search(reason or "")
    homes: dict[str, str] = {} if found is None else json.loads(found[1])
    return homes


# The reason of an update that takes back a failure which the end of the machine's lease reported. It needs no slot.
TAKEN_BACK = "moved from failed: the machine is back after the end of its lease"


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
    RECORDED = "recorded"
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
    DONE = "done"
    OTHER_RUN = "other_run"
    WINDOW = "window"
    WINDOW_SHORT = "window_short"
    OWN_CHANGE = "own_change"
    APPROVERS = "approvers"
    GROUP_FULL = "group_full"


# Reasons of a yes that has a log row of its own.
COUNTED = frozenset({Reason.UPDATED, Reason.TRANSITIONED, Reason.RECORDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A machine's permission to work now.

    `fence` rises with every claim on the chart. The lease ends at `expires_at`; None means never. `expired_at` is
    when the clock noticed the end of a lease whose slot is held on.
    """

    machine: str
    fence: int
    claimed_at: datetime
    renewed_at: datetime
    expires_at: datetime | None = None
    expired_at: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        """Return whether the lease has run out and the clock has not dealt with it yet."""
        return self.expires_at is not None and self.expired_at is None and self.expires_at <= now

    def under(self, old: SlotRule, new: SlotRule, now: datetime) -> Slot:
        """Return the slot with its lease as the rule `new` says, which takes the place of `old` at `now`."""
        if new.lease is None:
            return replace(self, expires_at=None, expired_at=None)
        if self.expires_at is None or old.lease is None:
            return replace(self, expires_at=now + new.lease, expired_at=None)
        expires_at = self.expires_at - old.lease + new.lease
        # A lease that is over, and whose slot is still to be held, must not end a second time.
        stays_over = expires_at <= now and new.on_expire is OnExpire.HOLD
        return replace(self, expires_at=expires_at, expired_at=self.expired_at if stays_over else None)

    def extended(self, pause: timedelta) -> Slot:
        """Return the slot with its lease, if one is running, made longer by `pause`."""
        if self.expires_at is None or self.expired_at is not None:
            return self
        return replace(self, expires_at=self.expires_at + pause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a chart stands.

    `values` are the current state's attributes. `paused_for` is how long this visit's pauses that are over lasted.
    `fence` is the highest one given to a slot of this chart. `succeeded` is how many machines' reports in this visit
    stand on the state's first attribute, and `holder_reports` says on which attribute each slot holder that reported
    did; these two are filled in only if the state has slots. `renamed` has each name that a state of this run had
    before an upgrade, with the name it has now: machines that know the old one may still ask about their reports.
    `hours` says, beside the windows, when the chart is open.
    `rosters` has the version in force of each roster that the chart follows. `expected` is how many machines take part
    in the visit; None if the chart file alone says it. `failed` are the machines that stand at `failed` in this visit,
    and `down` those and the slot holders with their groups; these two are filled in only if the state limits groups.
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
    succeeded: int = 0
    holder_reports: Mapping[str, str | None] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    hours: Hours = NO_HOURS
    rosters: Mapping[str, int] = field(default_factory=dict)
    expected: int | None = None
    failed: frozenset[str] = frozenset()
    down: Down = ALL_UP

    @property
    def is_paused(self) -> bool:
        """Whether the chart is paused now."""
        return self.paused_at is not None

    def pause_in_visit(self, now: datetime) -> timedelta:
        """Return how long this visit has been paused so far, including a pause that is running."""
        if self.paused_at is None:
            return self.paused_for
        # The database's clock may have been set back, but a pause never lasts less than zero.
        return self.paused_for + max(now - max(self.paused_at, self.entered_at), timedelta(0))

    def entered(self, state: State, now: datetime) -> Position:
        """Return the position at the start of a visit of `state`: values as defined, no reports, no slots."""
        return replace(
            self,
            visit=self.visit + 1,
            state=state.name,
            values=state.initial_values(),
            entered_at=now,
            paused_for=timedelta(0),
            slots={},
            succeeded=0,
            holder_reports={},
            hours=self.hours.entered(now),
            expected=None,
            failed=frozenset(),
            down=ALL_UP,
        )

    def upgraded(self, version: int, chart: Chart, name: str, homes: Mapping[str, str]) -> Position:
        """Return the position under another version, whose definition is `chart`, now in its state `name`.

        The visit goes on, and attributes that the new state still has keep their values. `homes` maps states that are
        gone to their new homes.
        """
        state = chart.states[name]
        known = {**{old: homes.get(now, now) for old, now in self.renamed.items()}, **homes}
        renamed = {old: now for old, now in known.items() if old not in chart.states and now in chart.states}
        values = {item.key: self.values.get(item.key, item.value) for item in state.attributes}
        slots = self.slots if state.slots is not None else {}
        return replace(self, version=version, state=name, values=values, slots=slots, renamed=renamed)

    def following(self, rosters: Collection[str]) -> Position:
        """Return the position with the versions of `rosters` alone."""
        if not self.rosters:
            return self
        return replace(self, rosters={name: version for name, version in self.rosters.items() if name in rosters})

    def with_leases(self, old: SlotRule | None, new: SlotRule | None, now: datetime) -> Position:
        """Return the position with the slots that are held under the rule `new` instead of `old`, from an upgrade on.

        A running lease gets the new length, counted from where it began. A slot without a lease gets one that begins
        now, or when the pause that is running began, because a resume adds the whole pause.
        """
        if old is None or new is None:
            return self
        start = self.paused_at or now
        return replace(self, slots={name: slot.under(old, new, start) for name, slot in self.slots.items()})

    def resumed(self, now: datetime, schedule: Schedule | None = None) -> Position:
        """Return the position with its clock running again.

        The length of the pause is added to `paused_for` and to every lease that is running. If the state has a
        `schedule`, the pause itself is kept, because only its open part is to be taken from the open time.
        """
        paused_for = self.pause_in_visit(now)
        pause = paused_for - self.paused_for
        slots = {name: slot.extended(pause) for name, slot in self.slots.items()}
        hours = self.hours if schedule is None else self.hours.paused(now - pause, now)
        return replace(self, paused_at=None, paused_for=paused_for, slots=slots, hours=hours)

    def with_slot(self, slot: Slot, groups: Sequence[Group] | None = None) -> Position:
        """Return the position with `slot` held by a machine of these `groups`; None if the state limits no groups."""
        down = self.down if groups is None else self.down.add(slot.machine, groups)
        return replace(self, slots={**self.slots, slot.machine: slot}, fence=max(self.fence, slot.fence), down=down)

    def without_slot(self, machine: str) -> Position:
        """Return the position with the slot of `machine` free, if the machine held one."""
        if machine not in self.slots:
            return self
        down = self.down if machine in self.failed else self.down.drop(machine)
        return replace(self, slots={name: slot for name, slot in self.slots.items() if name != machine}, down=down)

    def with_report(self, machine: str, key: str | None) -> Position:
        """Return the position after the report of `machine` in this visit stands on `key`, or was withdrawn.

        Needed only if the state limits groups: it keeps `failed` and `down`.
        """
        if key == FAILED_KEY:
            return replace(self, failed=self.failed | {machine})
        down = self.down if machine in self.slots else self.down.drop(machine)
        return replace(self, failed=self.failed - {machine}, down=down)


@dataclass(frozen=True, slots=True)
class Report:
    """The latest report of a machine in a visit; `key` is None once an upgrade has dropped the attribute.

    `note` is what the machine said with it.
    """

    visit: int
    machine: str
    key: str | None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class PastVisit:
    """A visit of the run that is over: its state, and the attribute of each machine's standing report."""

    state: str
    reports: Mapping[str, str | None]

    def upgraded(self, state: State | None) -> PastVisit:
        """Return the visit under another version, in which its state is `state`; None if that has no such state."""
        if state is None:
            return self
        kept = {key: key if key is None or state.has_attribute(key) else None for key in set(self.reports.values())}
        return PastVisit(state.name, {machine: kept[key] for machine, key in self.reports.items()})


@dataclass(frozen=True, slots=True)
class CountedRow:
    """The log row of a PUT that counted: its run, visit and `seq`, and the attribute's value after it."""

    run: int
    visit: int
    seq: int
    value: int | None


@dataclass(frozen=True, slots=True)
class LoggedUpdate:
    """The accepted PUT that first used an Idempotency-Key, as the log recorded it.

    `default_key` is what a PUT without `key` meant then. `row` is None if the PUT was itself a machine's replay, which
    has no row.
    """

    state: str
    machine: str | None
    key: str | None
    default_key: str | None
    row: CountedRow | None = None

    @classmethod
    def of(
        cls, chart: Chart, state: str, machine: str | None, key: str | None, row: CountedRow | None = None
    ) -> LoggedUpdate:
        """A PUT that was accepted by this version of the chart."""
        # A state that an upgrade has renamed still answers replays. Its PUT without `key` meant the report's attribute.
        default_key = chart.states[state].default_key if state in chart.states else key
        return cls(state, machine, key, default_key, row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A PUT, with what the log and the reports already know about it.

    `report` is the machine's report in the latest visit of `state` in this run, `was_entered` is whether there was
    such a visit, and `repeats` is the accepted PUT that had the same Idempotency-Key. `takes_back` asks for a report
    without a slot if the machine's report is a failure that the end of its lease made; `failed_by_lease` is whether the
    log says so. `run` is the run that the client means; None means the current one. `note` is for people.
    """

    state: str
    machine: str | None = None
    key: str | None = None
    run: int | None = None
    note: str | None = None
    report: Report | None = None
    was_entered: bool = False
    repeats: LoggedUpdate | None = None
    takes_back: bool = False
    failed_by_lease: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Pause:
    """An operator stops the clock and every transition; reports are still counted."""

    reason: str


@dataclass(frozen=True, slots=True)
class Resume:
    """An operator ends the pause."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reset:
    """An operator begins a new run in the initial state."""

    reason: str


@dataclass(frozen=True, slots=True)
class Goto:
    """An operator moves the chart to `state`."""

    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Archive:
    """An operator takes the chart out of use."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """`chart`, the version `version`, takes over. `homes` maps a state that it lacks to the state to go on in.

    `reports` maps each machine that reported in the current visit to its attribute; it may be empty if no set of
    `chart` names its machines and the current state has no approvers. `hours` has the calendars that `chart` names, in
    the versions in force. `rosters` has the newest version of each roster that `chart` follows.
    """

    chart: Chart
    version: int
    homes: Mapping[str, str] = field(default_factory=dict)
    reports: Mapping[str, str | None] = field(default_factory=dict)
    hours: Hours = NO_HOURS
    rosters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Open:
    """An operator opens the chart `until` then, whatever its windows say."""

    until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class FollowCalendar:
    """A calendar that the chart names has a new version; `hours` has the version and its events."""

    name: str
    hours: Hours


@dataclass(frozen=True, slots=True)
class NewRoster:
    """The chart goes by another version of a roster.

    `reports` maps to its attribute each machine that reported in the current visit and whose line is gone or changed.
    """

    roster: str
    version: int
    reports: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """A machine asks for a slot of `state`, or renews its lease.

    `run` is the run that the client means; None means the current one. A machine that has done its part in this visit
    gets a slot only if it asks `again`. `report` is the machine's report in the current visit.
    """

    state: str
    machine: str
    run: int | None = None
    again: bool = False
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """A machine gives back its slot of `state` without a report. `run` is as in `Claim`."""

    state: str
    machine: str
    run: int | None = None


@dataclass(frozen=True, slots=True)
class Evict:
    """An operator takes a machine's slot away."""

    machine: str
    reason: str


Happening = (
    Update
    | Tick
    | Pause
    | Resume
    | Reset
    | Goto
    | Archive
    | Upgrade
    | Open
    | FollowCalendar
    | NewRoster
    | Claim
    | Release
    | Evict
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a row of the log will say. `run` and `visit` are those in which it happened, before any move."""

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
    note: str | None = None

    @property
    def is_asked_for(self) -> bool:
        """Whether a caller asked for it; not so what the clock does, and a move of its own on entering a state."""
        return self.kind not in CLOCK_KINDS and (self.kind is not Kind.TRANSITION or self.key is not None)


def find_asked_for(entries: Iterable[Entry]) -> tuple[int, Entry] | None:
    """Return the row that a report or a claim made of its own, and its place from 1; None if there is no such row."""
    return next(((place, entry) for place, entry in enumerate(entries, 1) if entry.is_asked_for), None)


@dataclass(frozen=True, slots=True)
class Visit:
    """A visit of a state that began in this step."""

    run: int
    visit: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One decision: the answer, where the chart stands after it, and what there is to write.

    `key` and `value` are the attribute that the answer is about. `repeated` is the row that counted, if the answer
    repeats a PUT by its Idempotency-Key. `group` is the one that is full if a claim is refused for it, as text.
    `withdrawn` are reports to delete before `reports` are written. `due_at` is when the clock next has something to
    do; None means never. `clock_moves` is how many clock transitions were taken. `moves` is whether the step may change
    the answer to a waiting client, so that the clients must be told.
    """

    verdict: Verdict
    reason: Reason
    position: Position
    key: str | None = None
    value: int | None = None
    repeated: CountedRow | None = None
    entries: tuple[Entry, ...] = ()
    visits: tuple[Visit, ...] = ()
    withdrawn: tuple[Report, ...] = ()
    reports: tuple[Report, ...] = ()
    due_at: datetime | None = None
    group: str | None = None
    clock_moves: int = 0
    moves: bool = False


def find_counted(chart: Chart, seq: int, step: Step) -> LoggedUpdate | None:
    """Return what the log keeps of the PUT that `step` counted; None if it counted none.

    `seq` is that of the chart's last log row before the step.
    """
    if step.reason not in COUNTED:
        return None
    own = find_asked_for(step.entries)
    assert own is not None  # a PUT that counted has a row
    place, entry = own
    row = CountedRow(entry.run, entry.visit, seq + place, entry.value_after)
    return LoggedUpdate.of(chart, entry.from_state, entry.machine, entry.key, row)


def is_due(chart: Chart, position: Position, now: datetime) -> bool:
    """Return whether the clock has something to do."""
    due_at = next_due(chart, position)
    return due_at is not None and due_at <= now


def next_due(chart: Chart, position: Position) -> datetime | None:
    """Return when the clock next has something to do; None if it has nothing to do or the chart is paused."""
    if position.is_paused:
        return None
    guards = [move.guard.due_at(position) for move in chart.states[position.state].transitions]
    leases = [slot.expires_at for slot in position.slots.values() if slot.expires_at and not slot.expired_at]
    return min([instant for instant in (*guards, *leases) if instant is not None], default=None)
