"""A chart's condition, and why: the one word and the one sentence that every page, list, metric and command shows.

`judge` decides the word from the chart's definition and position alone. `judge_health` asks the database for what the
sentence says besides: which report moved the chart, from which machine, and how many had reported by then. The log
keeps the row that moved the chart, so the sentence is the same however long ago that was.

A chart is on its *main path* in every state that planned transitions alone reach (see `app.core.plan`). Its *deadline*
is the clock guard that comes due first, if it leads off the main path. The first condition that holds is the one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from math import sqrt

from app import store
from app.core.chart import FAILED_KEY, Chart, CountGuard, State
from app.core.expect import FromRoster
from app.core.log import LogRow
from app.core.plan import find_edge, find_limit, find_needed, find_next_clock, list_on_plan, list_planned
from app.core.position import Kind, Position
from app.core.window import find_closing
from app.core.window import judge as judge_window
from app.db import Connection
from app.service.forecast import Forecast, Pace, find_forecast, find_pace
from app.service.words import name_some, say_number, say_opening, say_ordinal, say_reported, say_span

# Why a chart is where it is: a sentence from its log

# So many of a run's latest acts are searched for the move that took the chart off its main path.
MAX_ACTS = 200
# Rows of these kinds begin a visit.
MOVES = frozenset({Kind.TRANSITION, Kind.TIMEOUT, Kind.GOTO, Kind.UPGRADE, Kind.RESET, Kind.IMPORT})


@dataclass(frozen=True, slots=True)
class Departure:
    """The move that took a chart to where it is: the row of the log that says it, and a sentence about it."""

    row: LogRow
    because: str

    @property
    def at(self) -> datetime:
        """When the chart moved."""
        return self.row.at


class Told:
    """What the log and the reports say of a chart whose row is `row`."""

    def __init__(self, connection: Connection, row: store.charts.ChartRow) -> None:
        self.connection = connection
        self.row = row

    def list_acts(self, limit: int) -> list[LogRow]:
        """List the latest rows of the run that are not a machine's update, claim or release, newest first."""
        return store.log.list_acts(self.connection, self.row, limit)

    def count_reports(self, visit: int) -> Mapping[str | None, int]:
        """Count the machines that reported on each attribute in a visit of the run."""
        return store.machines.count_reports(self.connection, self.row, visit)

    def find_roster(self, name: str, at: datetime) -> store.rosters.RosterVersion | None:
        """Return the version of a roster that was in force at `at`."""
        return store.rosters.find_version_at(self.connection, name, at)

    def find_latest_report(self, key: str | None = None) -> store.machines.MachineReport | None:
        """Return the latest report of the current visit, on the attribute `key` if it is given."""
        return store.machines.find_latest_report(self.connection, self.row, key)


def find_departure(told: Told, chart: Chart, position: Position, *, is_off: bool) -> Departure | None:
    """Return the move by which the chart left its main path (`is_off`), or else its latest move.

    None if the log has no such row, because it was pruned or because an upgrade changed the main path.
    """
    on_plan = list_on_plan(chart)
    for act in told.list_acts(MAX_ACTS):
        is_move = act.kind in MOVES and (act.from_state != act.to_state or act.kind == Kind.GOTO)
        if is_move and (not is_off or (act.from_state in on_plan and act.to_state not in on_plan)):
            return Departure(act, _say_move(told, chart, position, act))
    return None


def say_edge(told: Told, chart: Chart, position: Position, edge: tuple[str, str]) -> tuple[datetime, str] | None:
    """Since when a chart is one report away from leaving its main path, and why; `edge` is the key and the target.

    None if no machine has reported on the key by name.
    """
    key, target = edge
    report = told.find_latest_report(key)
    if report is None:
        return None
    counts = told.count_reports(position.visit)
    last = _Report(state=position.state, key=key, value=position.values[key], machine=report.machine, target=target)
    reported = say_reported(sum(counts.values()), chart.count_expected(position), "have")
    return (
        report.reported_at,
        f"{_say_report(chart, chart.state_at(position), last)}; one more goes to {target}; {reported}",
    )


def say_last_report(told: Told) -> str:
    """Which machine reported last in this visit, as the end of a sentence; empty if none did by name."""
    report = told.find_latest_report()
    return "" if report is None else f"; the last report came from {report.machine} on {report.key or 'no attribute'}"


def _say_move(told: Told, chart: Chart, position: Position, act: LogRow) -> str:
    match act.kind:
        case Kind.GOTO | Kind.RESET:
            return f"{_who(act)} moved it from {act.from_state} to {act.to_state}: {act.reason}"
        case Kind.UPGRADE:
            return f"version {act.version} took over in {act.to_state}, imported by {_who(act)}"
        case Kind.IMPORT:
            return f"the run began in {act.to_state}"
    counts = told.count_reports(act.visit)
    expected = _expected_then(told, chart, position, act)
    reported = say_reported(sum(counts.values()), expected) if counts else ""
    state = chart.states.get(act.from_state)
    if state is not None and expected is not None:
        state = state.sized(expected)
    said = _say_counted(told.connection, chart, state, act, counts)
    return f"{said}; {reported}" if reported else said


def _expected_then(told: Told, chart: Chart, position: Position, act: LogRow) -> int | None:
    """How many machines took part in the state that the row left; None if nothing keeps it, or the state is gone.

    A roster's versions keep their sizes. The machines with some labels are counted for the current state alone.
    """
    expect = chart.expect_of(act.from_state) if act.from_state in chart.states else None
    if expect is None or expect.is_fixed:
        return None if expect is None else expect.size
    version = told.find_roster(expect.roster, act.at) if isinstance(expect, FromRoster) else None
    if version is None or not isinstance(expect, FromRoster):
        return None
    if not expect.where:
        return version.machines
    is_same = expect == chart.expect_of(position.state) and version.version == position.rosters.get(expect.roster)
    return position.expected if is_same else None


def _say_counted(
    connection: Connection, chart: Chart, state: State | None, act: LogRow, counts: Mapping[str | None, int]
) -> str:
    """What a count or the clock did, without how many machines had reported."""
    before = None
    if act.kind == Kind.TIMEOUT and act.key is not None:
        return _say_clock(state, act, counts)
    if act.key is None:
        # The row before says what made the guard hold: the end of a lease, a resume, an upgrade.
        before = store.log.find_row(connection, act.chart, act.seq - 1)
    if before is not None and before.kind == Kind.EXPIRE and before.key is not None:
        return f"{_say_report(chart, state, _Report.of(before, act.to_state))}, whose lease ran out"
    if act.key is not None:
        return _say_report(chart, state, _Report.of(act, act.to_state))
    after = "" if before is None else f", at the {before.kind} by {_who(before)}"
    return f"{act.reason} held in {act.from_state}{after}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """A report in a state: the attribute, its value after it, the machine, and where the chart goes by it."""

    state: str
    key: str
    value: int
    machine: str | None
    target: str

    @classmethod
    def of(cls, row: LogRow, target: str) -> _Report:
        return cls(
            state=row.from_state, key=row.key or "", value=row.value_after or 0, machine=row.machine, target=target
        )


def _say_report(chart: Chart, state: State | None, report: _Report) -> str:
    """`the 21st failure, limit 20, from web-1401 in fleet`; `state` is the report's, None if the chart lost it."""
    guard = None if state is None else find_limit(state, report.key, report.target)
    word = "limit" if report.target not in list_on_plan(chart) else "needed"
    limit = "" if guard is None else f", {word} {say_threshold(guard)},"
    source = "" if report.machine is None else f" from {report.machine}"
    is_ordinal = state is None or not state.is_counting or state.func == "increment"
    first = 0 if state is None else state.initial_values().get(report.key, 0)
    noun = "failure" if report.key == FAILED_KEY else f"report on {report.key}"
    what = f"the {say_ordinal(report.value - first)} {noun}" if is_ordinal else f"{report.key} {report.value}"
    return f"{what}{limit}{source} in {report.state}"


def say_threshold(guard: CountGuard) -> str:
    """The threshold as a number, or as the percentage that it is of a set whose size has been forgotten."""
    return say_number(guard.threshold) if guard.share is None else guard.written


def _say_clock(state: State | None, act: LogRow, counts: Mapping[str | None, int]) -> str:
    """`the time of fleet was over (elapsed 12h): 1,216 of 1,980 on count`."""
    said = f"the time of {act.from_state} was over ({act.reason})"
    key = None if state is None or not state.is_counting else state.default_key
    if state is None or key is None:
        return said
    needed = find_needed(state)
    of = "" if needed is None else f" of {say_number(needed)}"
    failed = f" and {say_number(counts[FAILED_KEY])} on {FAILED_KEY}" if counts.get(FAILED_KEY) else ""
    return f"{said}: {say_number(counts.get(key, 0))}{of} machines on {key}{failed}"


def _who(row: LogRow) -> str:
    return row.actor or row.remote_addr or "someone"


# The condition

# Before this share of the time allowed is over, a slow start says nothing about the end.
EARLIEST = 0.25
# The sentence about leases that ran out names at most this many machines.
MOST_LEASES = 3
# A chart is slower than its deadline allows only if chance does not explain it: if it misses the deadline even at the
# pace of so many standard deviations more reports.
CHANCE = 1.2816


class Condition(IntEnum):
    """How a chart is doing, in one word. The most urgent condition comes first."""

    FAILED = 1
    BACKING_OUT = 2
    AT_THE_EDGE = 3
    STUCK = 4
    WAITING = 5
    PAUSED = 6
    RUNNING = 7
    ENDED = 8

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Failures:
    """How many failures were counted. At `limit` failures the chart goes to `target`; both are None without a limit."""

    value: int
    limit: int | None
    target: str | None

    @property
    def share(self) -> float:
        """How near the failures are to their limit, from 0 to 1. Without a limit, 1 from the first failure on."""
        if self.limit is None or self.limit <= 0:
            return float(self.value > 0)
        return min(self.value / self.limit, 1.0)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the visit has lasted without its pauses, and the time `allowed` before the clock takes it to `target`.

    `is_planned` is True if `target` is on the main path; otherwise the end of that time is a deadline.
    """

    spent: timedelta
    allowed: timedelta | None = None
    target: str | None = None
    is_planned: bool = False

    @property
    def share(self) -> float | None:
        """How much of the allowed time is over, from 0 to 1. None if there is no limit."""
        if self.allowed is None:
            return None
        return min(max(self.spent / self.allowed, 0.0), 1.0) if self.allowed else 1.0

    @property
    def left(self) -> timedelta | None:
        """How long it is to the deadline; None without a deadline."""
        return None if self.allowed is None or self.is_planned else max(self.allowed - self.spent, timedelta(0))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition, since when it holds, and why in one sentence, as far as the chart's position tells."""

    condition: Condition
    since: datetime
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a chart is doing: its condition, since when, why, its failures, its time, and its forecast.

    `departure` is how the chart left its main path, if it did.
    """

    condition: Condition
    since: datetime
    because: str
    failures: Failures | None
    timing: Timing
    forecast: Forecast | None
    departure: Departure | None = None

    @property
    def has_failed(self) -> bool:
        """True if the chart has ended in a state that it was not meant to end in."""
        return self.condition is Condition.FAILED


def judge_health(told: Told, chart: Chart, position: Position, now: datetime) -> Health:
    """Return the chart's health at `now`, with a sentence that names machine, key and numbers."""
    state = chart.state_at(position)
    verdict = judge(chart, told.row, position, now)
    since, because, departure = verdict.since, verdict.because, None
    match verdict.condition:
        case Condition.FAILED | Condition.BACKING_OUT | Condition.ENDED:
            departure = find_departure(told, chart, position, is_off=verdict.condition is not Condition.ENDED)
            if departure is not None:
                because = departure.because
                since = departure.at if verdict.condition is Condition.BACKING_OUT else since
        case Condition.AT_THE_EDGE:
            edge = find_edge(chart, position, now)
            assert edge is not None  # that is why it is at the edge
            since, because = say_edge(told, chart, position, edge) or (since, because)
        case Condition.STUCK:
            because += say_last_report(told)
    return Health(
        condition=verdict.condition,
        since=since,
        because=because,
        failures=find_failures(state, position),
        timing=find_timing(chart, position, now),
        forecast=find_forecast(state, position, now),
        departure=departure if verdict.condition is not Condition.ENDED else None,
    )


def judge(chart: Chart, row: store.charts.ChartRow, position: Position, now: datetime) -> Verdict:
    """Return the chart's condition at `now`. It asks nothing of the database.

    A pause stops the clock: while it lasts a chart is neither late nor waits for the clock, but a lease that ran out
    before, and a count at the edge, stand as they are.
    """
    state, entered = chart.state_at(position), position.entered_at
    is_off = state.name not in list_on_plan(chart)
    if state.is_final:
        if is_off:
            return Verdict(Condition.FAILED, entered, f"{state.name} is an ending off the main path")
        return Verdict(Condition.ENDED, entered, f"{state.name} is the end of the main path")
    if is_off:
        return Verdict(Condition.BACKING_OUT, entered, f"{state.name} is off the main path")
    edge = find_edge(chart, position, now)
    if edge is not None:
        key, target = edge
        sentence = f"{key} is {say_number(position.values[key])} in {state.name}: one more report goes to {target}"
        return Verdict(Condition.AT_THE_EDGE, row.updated_at, sentence)
    stuck = _judge_leases(position, now)
    if stuck is None and position.paused_at is not None:
        who = row.paused_by or "someone"
        sentence = f"{who} paused it {say_span(now - position.paused_at)} ago: {row.pause_reason}"
        return Verdict(Condition.PAUSED, position.paused_at, sentence)
    return (
        stuck
        or _judge_window(chart, position, now)
        or _judge_pace(chart, row, position, now)
        or _judge_waiting(state, position, now)
        or _run(state, position)
    )


def _judge_window(chart: Chart, position: Position, now: datetime) -> Verdict | None:
    """A state that is closed now for every machine; no machine is late while none may work."""
    schedule = chart.find_schedule(position.state)
    if schedule is None or schedule.needs_labels:
        return None
    opening = judge_window(schedule, position.hours, now)
    if opening.is_open:
        return None
    since = max(find_closing(schedule, position.hours, now) or position.entered_at, position.entered_at)
    return Verdict(Condition.WAITING, since, f"{position.state} waits for its window: {say_opening(opening, now)}")


def _judge_leases(position: Position, now: datetime) -> Verdict | None:
    """A lease that ran out and whose slot is still held."""
    over = sorted((slot.expired_at, slot.machine) for slot in position.slots.values() if slot.expired_at is not None)
    if not over:
        return None
    since, machines = over[0][0], name_some([machine for _, machine in over], MOST_LEASES)
    verb = "the lease of" if len(over) == 1 else f"the leases of {say_number(len(over))} machines:"
    held = "slot is" if len(over) == 1 else "slots are"
    sentence = f"{verb} {machines} ran out {say_span(now - since)} ago in {position.state}, and the {held} still held"
    return Verdict(Condition.STUCK, since, sentence)


def _judge_pace(chart: Chart, row: store.charts.ChartRow, position: Position, now: datetime) -> Verdict | None:
    """A chart that is slower than its deadline allows, or silent for half of the time to it."""
    state, timing = chart.state_at(position), find_timing(chart, position, now)
    pace = find_pace(state, position, now)
    if timing.allowed is None or timing.is_planned or pace is None or pace.missing <= 0:
        return None
    start = now - timing.spent
    late = _find_late(pace, timing.spent, timing.allowed)
    if late is not None:
        per_hour = pace.counted / (timing.spent / timedelta(hours=1))
        sentence = (
            f"{say_number(pace.value)} of {say_number(pace.needed)} on {pace.key} in {state.name} after"
            f" {say_span(timing.spent)} of {say_span(timing.allowed)}, {per_hour:,.1f} an hour: the rest takes about"
            f" {say_span(pace.time_left())}, and {timing.target} comes in {say_span(timing.allowed - timing.spent)}"
        )
        return Verdict(Condition.STUCK, start + late, sentence)
    last = max(row.updated_at, position.entered_at)
    if now - last > timing.allowed / 2:
        sentence = (
            f"nothing has happened in {state.name} for {say_span(now - last)}, more than half of the"
            f" {say_span(timing.allowed)} before it goes to {timing.target}:"
            f" {say_number(pace.value)} of {say_number(pace.needed)} on {pace.key}"
        )
        return Verdict(Condition.STUCK, last + timing.allowed / 2, sentence)
    return None


def _find_late(pace: Pace, spent: timedelta, allowed: timedelta) -> timedelta | None:
    """At which age of the visit the present count was too small for the deadline; None if it is large enough."""
    if pace.counted <= 0:
        return None
    optimistic = pace.counted + CHANCE * sqrt(pace.counted)
    late = max(allowed / (1 + pace.missing / optimistic), allowed * EARLIEST)
    return late if spent > late else None


def _judge_waiting(state: State, position: Position, now: datetime) -> Verdict | None:
    """A state on which people decide, or that the clock ends as planned."""
    if state.approvers is not None:
        sentence = f"{state.name} waits for approval: {_say_values(state, position)}{_say_goal(state)}"
        return Verdict(Condition.WAITING, position.entered_at, sentence)
    first = find_next_clock(state, position)
    if first is None or not all(item.guard.is_clock for item in list_planned(state)):
        return None
    due, move = first
    left = due - now
    when = f"in {say_span(left)}" if left > timedelta(0) else "now"
    sentence = f"{state.name} is ended by the clock {when} ({move.guard.text}), and {move.target} follows"
    return Verdict(Condition.WAITING, position.entered_at, sentence)


def _say_values(state: State, position: Position) -> str:
    """Return the attributes with their values, in the order of the definition."""
    return ", ".join(f"{item.key} {say_number(position.values[item.key])}" for item in state.attributes)


def _run(state: State, position: Position) -> Verdict:
    sentence = f"{state.name} has {_say_values(state, position) or 'no attribute'}{_say_goal(state)}"
    return Verdict(Condition.RUNNING, position.entered_at, sentence)


def _say_goal(state: State) -> str:
    planned = next((move for move in list_planned(state) if not move.guard.is_clock), None)
    return "" if planned is None else f"; {planned.target} follows at {planned.guard.text}"


def find_timing(chart: Chart, position: Position, now: datetime) -> Timing:
    """How long the visit has lasted, and how long it may last until the first clock guard comes due."""
    spent = max(now - position.entered_at - position.pause_in_visit(now), timedelta(0))
    first = find_next_clock(chart.state_at(position), position)
    if first is None:
        return Timing(spent)
    due, transition = first
    allowed = max(due - position.entered_at - position.paused_for, timedelta(0))
    return Timing(spent, allowed, transition.target, transition.target in list_on_plan(chart))


def find_failures(state: State, position: Position) -> Failures | None:
    """The count on the attribute `failed`, and the limit by the first guard on it. None without the attribute."""
    if FAILED_KEY not in position.values:
        return None
    value = position.values[FAILED_KEY]
    for item in state.transitions:
        guard = item.guard
        if not guard.is_clock and guard.key == FAILED_KEY:
            return Failures(value, guard.threshold + (guard.op == ">"), item.target)
    return Failures(value, None, None)
