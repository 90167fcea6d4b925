"""Reads log rows, in order, back to the position that they led to; `verify` compares it with the live tables."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from app.core.arrival import (
    begin,
    find_entry_move,
    find_failed,
    find_full,
    groups_of,
    measure,
    read_counted_on_entry,
    read_taken_over,
    regroup,
)
from app.core.chart import FAILED_KEY, Chart, CountGuard, ElapsedGuard, OnExpire, SlotRule, State, Transition
from app.core.errors import LogDamagedError
from app.core.expect import NOTHING, FromRoster, Labels, PastReport, Rosters, Where, write_group
from app.core.log import NOT_PAUSED, Imported, LogRow, Pauser, chain_hash, read_marker
from app.core.position import LEASES_FOLLOW, TAKEN_BACK, Kind, PastVisit, Position, Slot, read_logged_homes
from app.core.window import Hours


@dataclass(frozen=True, slots=True)
class ReportLine:
    """A machine's latest report in a visit. After a prune the `seq` and time of older ones are not known (None).

    `note` is `mark_note` of what the machine said.
    """

    key: str | None
    seq: int | None
    at: datetime | None
    note: bytes | None = None


def mark_note(note: str | None) -> bytes | None:
    """Return what tells a note from other notes: its SHA-256, because a run may have a million notes of 8 KiB."""
    return None if note is None else hashlib.sha256(note.encode()).digest()


@dataclass(slots=True, kw_only=True)
class Stay:
    """A visit as the log tells it.

    `state` is None if it is not known: an upgrade by a release that did not log the new names of states may have
    renamed it.
    """

    run: int
    visit: int
    state: str | None
    entered_at: datetime
    left_at: datetime | None = None
    reports: dict[str, ReportLine] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Replay:
    """A chart's history, read again from its log.

    `chart_of` returns the definition of a version number, and `rosters` knows every version of every roster. `fill`
    returns hours with the events of their calendars, from one instant to beyond another; it may ask the database.
    `reports` maps each machine that reported in the current visit to its attribute, and `past` has the reports of
    visits whose rows were pruned. `last_hash` is what the next row must be chained to, and `rows` is how many were
    read.
    """

    chart_of: Callable[[int], Chart]
    rosters: Rosters = NOTHING
    fill: Callable[[Hours, datetime, datetime], Hours] = lambda hours, since, until: hours
    position: Position | None = None
    is_archived: bool = False
    seq: int = 0
    reports: dict[str, str | None] = field(default_factory=dict)
    past: dict[int, PastVisit] = field(default_factory=dict)
    last_hash: str = ""
    rows: int = 0
    stays: list[Stay] = field(default_factory=list)
    end_run: Callable[[list[Stay]], None] = lambda stays: None
    imports: dict[int, Imported] = field(default_factory=dict)
    pauser: Pauser | None = NOT_PAUSED

    def read(self, row: LogRow, row_hash: str, log_key: bytes | None = None) -> None:
        """Check the row's hash and apply the row. Raises LogDamagedError if either contradicts the rows before."""
        if chain_hash(self.last_hash, row, log_key) != row_hash:
            raise LogDamagedError(f"{row.chart}: seq {row.seq}: the hash does not fit the row and its chain")
        self.last_hash = row_hash
        self.apply(row)
        self.rows += 1

    def apply(self, row: LogRow) -> None:
        """Move the position on by one row. Raises LogDamagedError if the row contradicts the rows before."""
        if row.kind == Kind.PRUNE:
            self._restore(row)
            return
        if row.seq != self.seq + 1:
            raise LogDamagedError(f"{row.chart}: seq {row.seq} follows {self.seq}")
        self.seq = row.seq
        if row.kind == Kind.IMPORT:
            self._begin(row)
            return
        if row.kind == Kind.LATE:
            self._check_late(row)
            return
        here = self._checked_position(row)
        match row.kind:
            case Kind.UPDATE | Kind.TRANSITION if row.key is not None:
                self._count(row)
                self._judge_report(row)
            case Kind.TRANSITION | Kind.TIMEOUT:
                self._judge_move(row)
            case Kind.PAUSE:
                self.position = replace(here, paused_at=row.at)
                self.pauser = Pauser(row.actor or row.remote_addr, row.reason)
            case Kind.RESUME:
                schedule = self.chart_of(row.version).find_schedule(row.from_state)
                self.position = here.resumed(row.at, schedule)
                self.pauser = NOT_PAUSED
            case Kind.ARCHIVE:
                self.is_archived = True
                self.stays[-1].left_at = row.at
            case Kind.UPGRADE:
                self._upgrade(row)
            case Kind.RESET:
                self.position = replace(here, run=row.run, visit=0, renamed={})
                self.past = {}
                self.reports = {}
            case Kind.CLAIM:
                self._claim(row)
            case Kind.RELEASE | Kind.EVICT:
                self._free(row)
            case Kind.EXPIRE:
                self._expire(row)
            case Kind.WITHDRAW:
                self._withdraw(row)
            case Kind.OPEN:
                self._open(row)
            case Kind.CALENDAR:
                self._follow_calendar(row)
            case Kind.ROSTER:
                self._take_over_roster(row)
        if row.kind in _MOVES:
            self._enter(row)

    def _restore(self, row: LogRow) -> None:
        if self.seq:
            raise LogDamagedError(f"{row.chart}: seq {row.seq} is a prune, but there are rows before it")
        marker = read_marker(row)
        self._state(row.version, row.to_state)
        self.seq = row.seq
        self.reports = dict(marker.reports)
        self.past = dict(marker.past)
        chart = self.chart_of(row.version)
        self.position = regroup(chart, find_failed(chart, marker.position, self.reports), self.rosters)
        self.is_archived = marker.is_archived
        self.last_hash = marker.hash
        self.imports = dict(marker.imports)
        self.pauser = marker.pauser
        here = marker.position
        reports = {name: ReportLine(key, None, None) for name, key in marker.reports.items()}
        stay = Stay(run=here.run, visit=here.visit, state=here.state, entered_at=here.entered_at, reports=reports)
        # Nothing follows the row of an archive: if the chart is archived, the marker has that row's time.
        stay.left_at = row.at if marker.is_archived else None
        self.stays = [stay]

    def _begin(self, row: LogRow) -> None:
        here = self.position
        if here is not None and not self.is_archived:
            raise LogDamagedError(f"{row.chart}: seq {row.seq} imports a chart that is not archived")
        version, run, fence = (0, 0, 0) if here is None else (here.version, here.run, here.fence)
        state = self._state(row.version, row.to_state)
        _check(row, version + 1, run + 1, 1, self.chart_of(row.version).initial)
        self.position = Position(
            version=row.version,
            run=row.run,
            visit=1,
            state=row.to_state,
            values=state.initial_values(),
            entered_at=row.at,
            fence=fence,
        )
        self.reports = dict(state.reports)
        self.past = {}
        self.is_archived = False
        self.pauser = NOT_PAUSED
        self.imports[row.version] = Imported(row.note, row.at, row.actor)
        reports = {name: ReportLine(key, row.seq, row.at) for name, key in state.reports.items()}
        self._end_run(Stay(run=row.run, visit=1, state=row.to_state, entered_at=row.at, reports=reports))

    def _end_run(self, first: Stay) -> None:
        """Begin another run with the visit `first`."""
        if self.stays:
            self.end_run(self.stays)
        self.stays = [first]

    def _checked_position(self, row: LogRow, *, is_late: bool = False) -> Position:
        here = self.position
        if here is None or self.is_archived:
            raise LogDamagedError(f"{row.chart}: seq {row.seq} ({row.kind}) comes before an import")
        run, visit = (here.run + 1, 1) if row.kind == Kind.RESET else (here.run, here.visit)
        version = here.version + 1 if row.kind == Kind.UPGRADE else here.version
        # A late report is about a state that the chart has left.
        _check(row, version, run, row.visit if is_late else visit, row.from_state if is_late else here.state)
        return here

    def _check_late(self, row: LogRow) -> None:
        """Raise LogDamagedError unless the row is about an earlier visit of this run; it moves no chart."""
        here = self._checked_position(row, is_late=True)
        state = self._state(row.version, row.from_state)
        is_report = row.machine is not None and row.key is not None and state.has_attribute(row.key)
        if row.visit >= here.visit or not is_report or (row.value_before, row.value_after) != (None, None):
            raise LogDamagedError(f"{row.chart}: seq {row.seq} is no late report of an earlier visit")
        for stay in self.stays:
            if (stay.run, stay.visit) == (row.run, row.visit) and row.machine is not None:
                stay.reports[row.machine] = ReportLine(row.key, row.seq, row.at, mark_note(row.note))

    def position_at(self, at: datetime) -> Position:
        """Return the position with what its guards need at `at`: the calendars' events, if one counts open time."""
        here = self._here()
        state = self.chart_of(here.version).state_at(here)
        if not here.hours.calendars or not _counts_open_time(state):
            return here
        return replace(here, hours=self.fill(here.hours, here.entered_at, at))

    def _here(self) -> Position:
        assert self.position is not None  # _checked_position came first
        return self.position

    def _state(self, version: int, name: str) -> State:
        try:
            return self.chart_of(version).states[name]
        except KeyError:
            raise LogDamagedError(f"version {version} has no state {name!r}") from None

    def _enter(self, row: LogRow) -> None:
        here, state = self._here(), self._state(row.version, row.to_state)
        self.position, counted = begin(self.chart_of(row.version), here.entered(state, row.at), self)
        self.reports = dict.fromkeys(counted, state.default_key)
        here = self.position
        self.stays[-1].left_at = row.at
        reports = {name: ReportLine(state.default_key, row.seq, row.at) for name in counted}
        stay = Stay(run=here.run, visit=here.visit, state=here.state, entered_at=row.at, reports=reports)
        if row.kind == Kind.RESET:
            self._end_run(stay)
        else:
            self.stays.append(stay)

    def _judge_report(self, row: LogRow) -> None:
        """Raise LogDamagedError if the report moved the chart without a guard that held, or failed to move it."""
        here = self.position_at(row.at)
        state = self.chart_of(row.version).state_at(here)
        taken = None if here.is_paused else _first_that_holds(state, here, row.at)
        if row.kind == Kind.UPDATE:
            if taken is not None:
                guard = taken.guard.log_text
                raise LogDamagedError(f"{row.chart}: seq {row.seq} stays in {row.from_state!r}, although {guard} held")
        elif taken is None or taken.target != row.to_state:
            self._refuse_move(row)

    def _judge_move(self, row: LogRow) -> None:
        """Raise LogDamagedError if the chart moved, without a report, and no guard led there."""
        here = self.position_at(row.at)
        state = self.chart_of(row.version).state_at(here)
        counted = read_counted_on_entry(row.reason)
        if counted is not None:
            taken = find_entry_move(state, here, counted, row.at)
            is_right = taken is not None and not here.is_paused and counted == len(self.reports)
        elif row.key is None:
            taken = _first_that_holds(state, here, row.at)
            is_right = taken is not None and isinstance(taken.guard, CountGuard) and not here.is_paused
        else:
            moves = (move for move in state.transitions if move.guard.is_clock and move.guard.holds(here, row.at))
            taken = next(moves, None)
            is_right = taken is not None and taken.guard.key == row.key
        if taken is None or not is_right or taken.target != row.to_state:
            self._refuse_move(row)

    def _refuse_move(self, row: LogRow) -> None:
        raise LogDamagedError(
            f"{row.chart}: seq {row.seq} ({row.kind}) moves from {row.from_state!r} to {row.to_state!r}, which no guard"
            " allowed"
        )

    def list_past(self, run: int) -> dict[int, PastVisit]:
        """Return the visits of the run so far, the current one included, with their reports, by number."""
        stays = (stay for stay in self.stays if stay.run == run)
        return {**self.past, **{stay.visit: PastVisit(stay.state or "", _keys(stay)) for stay in stays}}

    def find_labels(self, roster: str, version: int, machines: Collection[str]) -> Mapping[str, Labels]:
        """Return the labels of those of `machines` that are on the roster."""
        return self.rosters.find_labels(roster, version, machines)

    def count_machines(self, roster: str, version: int, where: Where) -> int:
        """Return how many machines of the roster have the labels `where`."""
        return self.rosters.count_machines(roster, version, where)

    def count_groups(self, roster: str, version: int, where: Where, label: str) -> Mapping[str, int]:
        """Return how many of these machines have each value of `label`."""
        return self.rosters.count_groups(roster, version, where, label)

    def list_reports(
        self, run: int, states: Collection[str], machines: Collection[str] | None = None
    ) -> Sequence[PastReport]:
        """Return the standing reports in the run's visits of `states`, the earliest visit first."""
        return [
            PastReport(number, visit.state, machine, key)
            for number, visit in sorted(self.list_past(run).items())
            if visit.state in states
            for machine, key in visit.reports.items()
            if machines is None or machine in machines
        ]

    def _count(self, row: LogRow) -> None:
        here = self._here()
        state = self._state(row.version, row.from_state)
        func, values = state.func, dict(here.values)
        if func is None or row.key not in values:
            raise LogDamagedError(f"{row.chart}: seq {row.seq} counts on {row.key!r}, which {here.state!r} lacks")
        is_back = row.reason == TAKEN_BACK and self.reports.get(row.machine or "") == FAILED_KEY
        if state.slots is not None and row.machine not in here.slots and not is_back:
            raise LogDamagedError(f"{row.chart}: seq {row.seq} counts {row.machine!r}, which holds no slot")
        if row.machine is not None:
            moved_from = self.reports.get(row.machine)
            if moved_from is not None and moved_from in values and moved_from != row.key:
                values[moved_from] = func.undo(moved_from, values[moved_from])
            self.reports[row.machine] = row.key
            self.stays[-1].reports[row.machine] = ReportLine(row.key, row.seq, row.at, mark_note(row.note))
            self._note_report(row.version, row.machine, row.key)
        if values[row.key] != row.value_before:
            raise LogDamagedError(
                f"{row.chart}: seq {row.seq} found {row.key} at {row.value_before}, the log before it gives"
                f" {values[row.key]}"
            )
        values[row.key] = func.apply(row.key, values[row.key])
        if values[row.key] != row.value_after:
            raise LogDamagedError(
                f"{row.chart}: seq {row.seq} left {row.key} at {row.value_after} instead of {values[row.key]}"
            )
        self.position = replace(self._here(), values=values)
        if row.machine is not None:
            self.position = self.position.without_slot(row.machine)

    def _note_report(self, version: int, machine: str, key: str | None) -> None:
        here = self._here()
        slots = self._state(version, here.state).slots
        if slots is not None and slots.per:
            self.position = here.with_report(machine, key)

    def _upgrade(self, row: LogRow) -> None:
        here, state = self._here(), self._state(row.version, row.to_state)
        upgraded = here.upgraded(row.version, self.chart_of(row.version), row.to_state, self._homes(row))
        self.position = replace(upgraded, hours=here.hours.of_calendars(self.chart_of(row.version).calendars))
        if (row.reason or "").endswith(LEASES_FOLLOW):
            old_rule = self._state(here.version, row.from_state).slots
            self.position = self.position.with_leases(old_rule, state.slots, row.at)
        values = self.position.values
        self.reports = {name: key if key in values else None for name, key in self.reports.items()}
        self.imports[row.version] = Imported(row.note, row.at, row.actor)
        chart, homes = self.chart_of(row.version), self._homes(row)
        self.past = {
            number: visit.upgraded(chart.states.get(homes.get(visit.state, visit.state)))
            for number, visit in self.past.items()
        }
        self._upgrade_stays(row)
        self.position = measure(chart, self.position.following(chart.rosters), self)
        self.position = regroup(chart, find_failed(chart, self.position, self.reports), self)

    def _upgrade_stays(self, row: LogRow) -> None:
        """Give the visits of this run their new names, and drop the attributes that their states have no longer."""
        chart, homes = self.chart_of(row.version), self._homes(row)
        for stay in self.stays:
            stay.state = None if stay.state is None else homes.get(stay.state, stay.state)
            if row.note is None and stay.state not in chart.states:
                stay.state = None
            state = None if stay.state is None else chart.states.get(stay.state)
            if state is None:
                continue
            for machine, line in stay.reports.items():
                if line.key is not None and not state.has_attribute(line.key):
                    stay.reports[machine] = replace(line, key=None)
        self.stays[-1].state = row.to_state

    def _take_over_roster(self, row: LogRow) -> None:
        here, chart, said = self._here(), self.chart_of(row.version), read_taken_over(row.reason)
        if said is None or said[0] not in chart.rosters or said[1] != here.rosters.get(said[0]):
            raise LogDamagedError(f"{row.chart}: seq {row.seq} takes over {row.reason!r}, which does not fit")
        roster, _, version = said
        after = measure(chart, replace(here, rosters={**here.rosters, roster: version}), self)
        expect = chart.expect_of(here.state)
        is_own = isinstance(expect, FromRoster) and expect.roster == roster
        size = after.expected if is_own else self.count_machines(roster, version, ())
        if row.value_after != size:
            raise LogDamagedError(
                f"{row.chart}: seq {row.seq} says that {row.value_after} machines take part, the roster gives {size}"
            )
        self.position = regroup(chart, after, self)

    def _homes(self, row: LogRow) -> dict[str, str]:
        try:
            return read_logged_homes(row.reason)
        except ValueError:
            raise LogDamagedError(f"{row.chart}: seq {row.seq}: the upgrade's map cannot be read") from None

    def _open(self, row: LogRow) -> None:
        here = self._here()
        try:
            until = datetime.fromisoformat(row.note or "")
        except ValueError:
            raise LogDamagedError(f"{row.chart}: seq {row.seq} opens until {row.note!r}, which is no instant") from None
        self.position = replace(here, hours=here.hours.opened(row.at, until))

    def _follow_calendar(self, row: LogRow) -> None:
        here = self._here()
        before = dict(here.hours.calendars).get(row.key or "")
        if row.key is None or row.value_after is None or row.value_before != before:
            raise LogDamagedError(
                f"{row.chart}: seq {row.seq} replaces version {row.value_before} of the calendar {row.key!r}, the log"
                f" before it gives {before}"
            )
        self.position = replace(here, hours=here.hours.with_calendar(row.key, row.value_after))

    def _withdraw(self, row: LogRow) -> None:
        here, values = self._here(), dict(self._here().values)
        if row.machine is None or row.machine not in self.reports:
            raise LogDamagedError(f"{row.chart}: seq {row.seq} withdraws a report of {row.machine!r}, which made none")
        self.stays[-1].reports.pop(row.machine, None)
        key, func = self.reports.pop(row.machine), self._state(row.version, row.from_state).func
        if func is None or not func.is_counting or key not in values:
            key = None
        before = after = None
        if key is not None and func is not None:
            before = values[key]
            after = values[key] = func.undo(key, before)
        if (row.key, row.value_before, row.value_after) != (key, before, after):
            raise LogDamagedError(
                f"{row.chart}: seq {row.seq} takes {row.key} from {row.value_before} to {row.value_after}, the log"
                f" before it gives {key} from {before} to {after}"
            )
        self.position = replace(here, values=values)
        self._note_report(row.version, row.machine, None)

    def _claim(self, row: LogRow) -> None:
        here = self._here()
        chart = self.chart_of(row.version)
        rule = chart.state_at(here).slots
        if rule is None or row.machine is None or row.value_after is None:
            raise LogDamagedError(f"{row.chart}: seq {row.seq} claims a slot of a state without slots")
        held = here.slots.get(row.machine)
        # The report count alone is the wider limit most often, and counting the successes reads every report.
        is_over = held is None and len(here.slots) >= rule.limit(len(self.reports))
        if is_over and len(here.slots) >= self._find_limit(row, rule):
            raise LogDamagedError(f"{row.chart}: seq {row.seq} claims past the limit")
        full = find_full(chart, here, self, rule, row.machine) if held is None and rule.per else None
        if full is not None:
            raise LogDamagedError(f"{row.chart}: seq {row.seq} claims past the limit of the group {write_group(full)}")
        fences = (None, here.fence + 1) if held is None else (held.fence, held.fence)
        if (row.value_before, row.value_after) != fences:
            raise LogDamagedError(f"{row.chart}: seq {row.seq} claims with fence {row.value_after} out of order")
        slot = Slot(
            machine=row.machine,
            fence=row.value_after,
            claimed_at=row.at if held is None else held.claimed_at,
            renewed_at=row.at,
            expires_at=None if rule.lease is None else row.at + rule.lease,
        )
        self.position = here.with_slot(slot, groups_of(chart, here, self, rule, row.machine))

    def _find_limit(self, row: LogRow, rule: SlotRule) -> int:
        """Return how many slots there were at most.

        Before stages widened by reports on the first attribute alone, every report widened them, so the rows of that
        time may show more slots than today's rule gives. The log does not say which rule wrote a row.
        """
        first = self._state(row.version, row.from_state).default_key
        succeeded = sum(key == first for key in self.reports.values())
        return max(rule.limit(succeeded), rule.limit(len(self.reports)))

    def _free(self, row: LogRow) -> None:
        slot = self._held(row)
        self.position = self._here().without_slot(slot.machine)

    def _expire(self, row: LogRow) -> None:
        slot = self._held(row)
        if row.value_before != row.value_after and row.key is not None:
            self._count(row)
        if row.reason == OnExpire.HOLD:
            self.position = self._here().with_slot(replace(slot, expired_at=row.at))
        else:
            self.position = self._here().without_slot(slot.machine)

    def _held(self, row: LogRow) -> Slot:
        slot = self._here().slots.get(row.machine or "")
        if slot is None or (row.key is None and row.value_before != slot.fence):
            raise LogDamagedError(f"{row.chart}: seq {row.seq}: {row.machine!r} does not hold this slot")
        return slot


def _keys(stay: Stay) -> dict[str, str | None]:
    return {machine: line.key for machine, line in stay.reports.items()}


def _counts_open_time(state: State) -> bool:
    """Return True if a guard counts the time in which the state was open."""
    return any(isinstance(move.guard, ElapsedGuard) and move.guard.schedule for move in state.transitions)


def _first_that_holds(state: State, here: Position, at: datetime) -> Transition | None:
    for transition in state.transitions:
        if transition.guard.holds(here, at):
            return transition
    return None


def _check(row: LogRow, version: int, run: int, visit: int, state: str) -> None:
    if (row.version, row.run, row.visit, row.from_state) != (version, run, visit, state):
        raise LogDamagedError(
            f"{row.chart}: seq {row.seq} says version {row.version}, run {row.run}, visit {row.visit},"
            f" state {row.from_state!r}, but the chart was in version {version}, run {run}, visit {visit},"
            f" state {state!r}"
        )
    if row.kind not in _KINDS:
        raise LogDamagedError(f"{row.chart}: seq {row.seq} is of the unknown kind {row.kind!r}")
    if row.from_state != row.to_state and row.kind not in _MOVES and row.kind != Kind.UPGRADE:
        raise LogDamagedError(f"{row.chart}: seq {row.seq} ({row.kind}) moves to {row.to_state!r}")


_KINDS = frozenset(Kind)
_MOVES = frozenset({Kind.TRANSITION, Kind.TIMEOUT, Kind.RESET, Kind.GOTO})
