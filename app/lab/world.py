"""One chart in the lab: the core decides, this module keeps what the service keeps in its tables, and time is moved.

Nothing here decides anything about a chart: every answer comes from `app.core.machine`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.chart_file.windows import ParsedCalendar
from app.core import machine
from app.core.chart import Chart, Transition
from app.core.errors import BadRequestError, ConflictError, StateServiceError
from app.core.expect import Labels
from app.core.memory import Lists, Memory
from app.core.position import (
    Archive,
    Claim,
    Entry,
    Happening,
    Kind,
    LoggedUpdate,
    NewRoster,
    Position,
    Reason,
    Report,
    Step,
    Tick,
    Update,
    Upgrade,
    find_counted,
)
from app.core.window import HORIZON, Hours, Interval

# Calendars by name.
Calendars = Mapping[str, ParsedCalendar]
# Kinds of rows that begin a visit, whether or not the state is another one.
MOVES = frozenset({Kind.TRANSITION, Kind.TIMEOUT, Kind.RESET, Kind.GOTO})
# Ticks at one instant after which the clock is taken to move in a circle.
MAX_TICKS = 20
# Events are found from this long before a story begins: it may begin inside one.
BEFORE = timedelta(days=40)


@dataclass(frozen=True, slots=True)
class Move:
    """A visit that began: by the transition `taken`, or by an operator's act if it is None."""

    at: datetime
    from_state: str
    to_state: str
    taken: Transition | None


def need_rosters(chart: Chart, rosters: Collection[str]) -> None:
    """Raise BadRequestError if the chart goes by a roster that is not among `rosters`."""
    missing = [name for name in chart.rosters if name not in rosters]
    if missing:
        raise BadRequestError(
            f"chart {chart.name!r} goes by the roster {missing[0]!r}, which is not given here:"
            f" name the file with its lines, by --roster {missing[0]}=FILE or under 'rosters' in the story"
        )


class World:
    """A chart that was imported at `now`, and everything that its machines have said since.

    `rosters` has the lines of each roster that the chart goes by. Raises BadRequestError if one is missing. A calendar
    that the chart names and `calendars` lacks has no events.
    """

    def __init__(
        self, chart: Chart, now: datetime, rosters: Lists | None = None, calendars: Calendars | None = None
    ) -> None:
        need_rosters(chart, rosters or {})
        self.now = now
        self._calendars = calendars or {}
        # The calendars' events from before the story's beginning up to an instant.
        self._events: dict[str, tuple[Interval, ...]] = {}
        self._events_from = self._events_until = now - BEFORE
        self.charts = {1: chart}
        self.moves: list[Move] = []
        self.is_archived = False
        self.memory = Memory(rosters or {})
        self._visits: dict[str, int] = {}
        self._keys: dict[str, LoggedUpdate] = {}
        # How many rows the chart's log would have.
        self._seq = 0
        newest = {name: self.memory.newest[name] for name in chart.rosters}
        first = machine.start(chart, 1, 1, now, hours=self._find_hours(chart), rosters=newest, known=self.memory)
        self.due_at = first.due_at
        self._position = first.position
        self._take(first)

    @property
    def chart(self) -> Chart:
        """The version in force."""
        return self.charts[self._position.version]

    @property
    def position(self) -> Position:
        """Where the chart stands, with what a decision must know of slot holders' reports and of calendars' events."""
        here = self._position
        if here.hours.calendars:
            here = replace(here, hours=self._fill(here.hours))
        if self.chart.states[here.state].slots is None:
            return here
        reports = self._reports.get(here.visit, {})
        held = {name: reports[name].key for name in here.slots if name in reports}
        return here if held == here.holder_reports else replace(here, holder_reports=held)

    @property
    def _reports(self) -> dict[int, dict[str, Report]]:
        return self.memory.reports

    @property
    def reports(self) -> Mapping[str, str | None]:
        """The attribute on which each machine's report of this visit stands."""
        return {name: report.key for name, report in self._reports.get(self._position.visit, {}).items()}

    def put(
        self, state: str, machine_id: str | None, key: str | None = None, idempotency_key: str | None = None
    ) -> Step:
        """Report on `state`. Raises BadRequestError, KeyReusedError, ConflictError."""
        update = Update(
            state=state,
            machine=machine_id,
            key=key,
            report=self._find_report(state, machine_id),
            was_entered=self._find_visit(state) is not None,
            repeats=self._keys.get(idempotency_key or ""),
        )
        seq = self._seq
        step = self.do(update)
        if idempotency_key is not None:
            counted = find_counted(self.chart, seq, step)
            if counted is not None:
                self._keys[idempotency_key] = counted
            elif step.reason is Reason.REPLAY:
                # The report may have lost the attribute that the PUT names to an upgrade.
                first = LoggedUpdate.of(self.chart, state, machine_id, step.key if key is None else key)
                self._keys.setdefault(idempotency_key, first)
        return step

    def claim(self, state: str, machine_id: str, *, again: bool = False) -> Step:
        """Claim a slot of `state`. Raises BadRequestError."""
        return self.do(Claim(state, machine_id, again=again, report=self._find_report(state, machine_id)))

    def upgrade(self, chart: Chart, homes: Mapping[str, str]) -> Step:
        """Let another version take over. Raises BadRequestError, ConflictError."""
        need_rosters(chart, self.memory.newest)
        version = self._position.version + 1
        newest = {name: self.memory.newest[name] for name in chart.rosters}
        hours = self._find_hours(chart)
        before = self.memory.states, self._visits
        # The new version asks for reports under the new names; below, visits follow that the clock has just begun.
        self._rename(homes)
        try:
            step = self._decide(
                Upgrade(
                    chart=chart, version=version, homes=homes, reports=dict(self.reports), hours=hours, rosters=newest
                )
            )
        except StateServiceError:
            self.memory.states, self._visits = before
            raise
        self.charts[version] = chart
        self._take(step)
        self._rename(homes)
        self._drop_keys(chart)
        return step

    def _rename(self, homes: Mapping[str, str]) -> None:
        """Give the run's visits the names that an upgrade gives to their states."""
        self.memory.states = {visit: homes.get(name, name) for visit, name in self.memory.states.items()}
        self._visits = {homes.get(name, name): visit for name, visit in self._visits.items()}

    def _drop_keys(self, chart: Chart) -> None:
        """Keep of each report in the run only an attribute that the chart, the new version, still has."""
        for visit, name in self.memory.states.items():
            state = chart.states.get(name)
            if state is not None:
                self._reports[visit] = {
                    machine_id: report if state.has_attribute(report.key or "") else replace(report, key=None)
                    for machine_id, report in self._reports.get(visit, {}).items()
                }
        # The new version may count another attribute first.
        first = chart.states[self._position.state].default_key
        succeeded = sum(key is not None and key == first for key in self.reports.values())
        self._position = replace(self._position, succeeded=succeeded)

    def take_over(self, roster: str, lines: Mapping[str, Labels]) -> Step | None:
        """Import a roster's new version, and let the chart go by it; None if the chart does not follow the roster."""
        before = self.memory.newest.get(roster)
        version = self.memory.add(roster, lines)
        if roster not in self.chart.rosters:
            return None
        old = {} if before is None else self.memory.rosters[roster][before]
        differing = {name: key for name, key in self.reports.items() if lines.get(name) != old.get(name)}
        return self.do(NewRoster(roster, version, differing))

    def do(self, happening: Happening) -> Step:
        """Let `happening` happen now. Raises BadRequestError, KeyReusedError, ConflictError; then nothing changed."""
        step = self._decide(happening)
        self.is_archived = isinstance(happening, Archive)
        return self._take(step)

    def pass_until(self, instant: datetime) -> list[Step]:
        """Let time pass, with the clock at work at each instant at which something is due; return what it did.

        Raises ConflictError if the clock's transitions go round in a circle without an end.
        """
        done: list[Step] = []
        ticks = 0
        while not self.is_archived and self.due_at is not None and self.due_at <= instant:
            ticks = 0 if self.due_at > self.now else ticks + 1
            if ticks > MAX_TICKS:
                raise ConflictError(f"the clock moves the chart in a circle, again and again at {self.now:%H:%M:%S}")
            self.now = max(self.now, self.due_at)
            done.append(self.do(Tick()))
        self.now = max(self.now, instant)
        return done

    def _find_hours(self, chart: Chart) -> Hours:
        """Return the calendars by which the chart goes, with their events."""
        return self._fill(
            Hours(calendars=tuple((name, 1) for name in sorted(chart.calendars & self._calendars.keys())))
        )

    def _fill(self, hours: Hours) -> Hours:
        """Return the hours with their calendars' events, from before the story's beginning to the horizon."""
        if hours.calendars and self._events_until < self.now + HORIZON:
            self._events_until = self.now + 2 * HORIZON
            self._events = {
                name: calendar.list_intervals(self._events_from, self._events_until)
                for name, calendar in self._calendars.items()
            }
        return replace(hours, events=self._events) if hours.calendars else hours

    def _find_visit(self, state: str) -> int | None:
        """Return the latest visit of a state in this run, also by a name that the state had before an upgrade."""
        return self._visits.get(self._position.renamed.get(state, state))

    def _find_report(self, state: str, machine_id: str | None) -> Report | None:
        visit = self._find_visit(state)
        return None if visit is None or machine_id is None else self._reports.get(visit, {}).get(machine_id)

    def _decide(self, happening: Happening) -> Step:
        if self.is_archived:
            raise ConflictError(f"chart {self.chart.name!r} is archived")
        return machine.step(self.chart, self.position, happening, self.now, self.memory)

    def _take(self, step: Step) -> Step:
        """Remember what was decided, as the service would write it."""
        for entry in step.entries:
            if entry.kind in MOVES:
                self.moves.append(Move(self.now, entry.from_state, entry.to_state, self._find_taken(entry)))
            if entry.kind is Kind.RESET:
                self._visits = {}
                self.memory.reports.clear()
                self.memory.states.clear()
        self.memory.take(step)
        for visit in step.visits:
            self._visits[visit.state] = visit.visit
        self._seq += len(step.entries)
        self._position, self.due_at = step.position, step.due_at
        return step

    def _find_taken(self, entry: Entry) -> Transition | None:
        """Return the transition that the row tells of; None for an operator's act."""
        if entry.kind not in (Kind.TRANSITION, Kind.TIMEOUT):
            return None
        transitions = self.charts[entry.version].states[entry.from_state].transitions
        leading = [item for item in transitions if item.target == entry.to_state]
        if entry.kind is Kind.TIMEOUT or entry.reason is not None:
            said = [item for item in leading if item.guard.log_text == entry.reason]
            leading = said or leading
        elif len(leading) > 1:
            # The row of a report that moves the chart names the attribute, not the guard.
            counted = [item for item in leading if item.guard.key == entry.key]
            leading = counted or leading
        return leading[0] if leading else None
