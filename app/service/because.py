"""Why a chart is where it is, in one sentence from its log: which report moved it, from which machine, and the numbers.

The log keeps the row that moved the chart, so the sentence is the same however long ago that was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app import store
from app.core.chart import FAILED_KEY, Chart, CountGuard
from app.core.log import LogRow
from app.core.plan import find_limit, find_needed, list_on_plan
from app.core.position import Kind, Position
from app.db import Connection
from app.service.words import say_number, say_ordinal, say_reported

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

    def find_latest_report(self, key: str | None = None) -> store.machines.MachineReport | None:
        """Return the latest report of the current visit, on the attribute `key` if it is given."""
        return store.machines.find_latest_report(self.connection, self.row, key)


def find_departure(told: Told, chart: Chart, *, is_off: bool) -> Departure | None:
    """Return the move by which the chart left its main path (`is_off`), or else its latest move.

    None if the log has no such row, because it was pruned or because an upgrade changed the main path.
    """
    on_plan = list_on_plan(chart)
    for act in told.list_acts(MAX_ACTS):
        is_move = act.kind in MOVES and (act.from_state != act.to_state or act.kind == Kind.GOTO)
        if is_move and (not is_off or (act.from_state in on_plan and act.to_state not in on_plan)):
            return Departure(act, _say_move(told, chart, act))
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
    return report.reported_at, f"{_say_report(chart, last)}; one more goes to {target}; {reported}"


def say_last_report(told: Told) -> str:
    """Which machine reported last in this visit, as the end of a sentence; empty if none did by name."""
    report = told.find_latest_report()
    return "" if report is None else f"; the last report came from {report.machine} on {report.key or 'no attribute'}"


def _say_move(told: Told, chart: Chart, act: LogRow) -> str:
    match act.kind:
        case Kind.GOTO | Kind.RESET:
            return f"{_who(act)} moved it from {act.from_state} to {act.to_state}: {act.reason}"
        case Kind.UPGRADE:
            return f"version {act.version} took over in {act.to_state}, imported by {_who(act)}"
        case Kind.IMPORT:
            return f"the run began in {act.to_state}"
    counts = told.count_reports(act.visit)
    reported = say_reported(sum(counts.values()), _expected_then(chart, act)) if counts else ""
    said = _say_counted(told.connection, chart, act, counts)
    return f"{said}; {reported}" if reported else said


def _expected_then(chart: Chart, act: LogRow) -> int | None:
    """How many machines took part in the state that the row left; None if that was looked up, or the state is gone."""
    expect = chart.expect_of(act.from_state) if act.from_state in chart.states else None
    return expect.size if expect is not None and expect.is_fixed else None


def _say_counted(connection: Connection, chart: Chart, act: LogRow, counts: Mapping[str | None, int]) -> str:
    """What a count or the clock did, without how many machines had reported."""
    before = None
    if act.kind == Kind.TIMEOUT and act.key is not None:
        return _say_clock(chart, act, counts)
    if act.key is None:
        # The row before says what made the guard hold: the end of a lease, a resume, an upgrade.
        before = store.log.find_row(connection, act.chart, act.seq - 1)
    if before is not None and before.kind == Kind.EXPIRE and before.key is not None:
        return f"{_say_report(chart, _Report.of(before, act.to_state))}, whose lease ran out"
    if act.key is not None:
        return _say_report(chart, _Report.of(act, act.to_state))
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


def _say_report(chart: Chart, report: _Report) -> str:
    """`the 21st failure, limit 20, from web-1401 in fleet`."""
    state = chart.states.get(report.state)
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


def _say_clock(chart: Chart, act: LogRow, counts: Mapping[str | None, int]) -> str:
    """`the time of fleet was over (elapsed 12h): 1,216 of 1,980 on count`."""
    said = f"the time of {act.from_state} was over ({act.reason})"
    state = chart.states.get(act.from_state)
    key = None if state is None or not state.is_counting else state.default_key
    if state is None or key is None:
        return said
    needed = find_needed(state)
    of = "" if needed is None else f" of {say_number(needed)}"
    failed = f" and {say_number(counts[FAILED_KEY])} on {FAILED_KEY}" if counts.get(FAILED_KEY) else ""
    return f"{said}: {say_number(counts.get(key, 0))}{of} machines on {key}{failed}"


def _who(row: LogRow) -> str:
    return row.actor or row.remote_addr or "someone"
