"""The runs of a chart side by side: which states each passed through, how long they took, and how it ended.

And how the current run compares with the one before it: is it faster, and did that one have more failures by then? The
*point* that is compared is the present visit with its count of reports on the first attribute. The run before is looked
up at the same point: the same state, entered as often, with as many reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby, islice, takewhile
from typing import Any, NamedTuple

from app import store
from app.core.chart import FAILED_KEY, Chart
from app.core.errors import BadRequestError
from app.core.log import LogRow, format_instant
from app.core.plan import list_failed_endings
from app.core.position import Kind
from app.db import Connection, snapshot
from app.service.context import Service
from app.service.words import say_number, say_span
from app.store.machines import VisitRow

# The current run beside the one before it

# Less than this is no difference.
SMALLEST = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class _Window:
    """When a run was at a point, counted from the run's start. `until` is None if it is there still."""

    since: timedelta
    until: timedelta | None


def compare_with_last_run(
    connection: Connection, row: store.charts.ChartRow, chart: Chart, now: datetime
) -> str | None:
    """Return the current run against the one before it, in one sentence; None if this is the first run."""
    visits = store.machines.list_visits_of_runs(connection, row, row.run - 1, row.run)
    here = [visit for visit in visits if visit.run == row.run]
    before = [visit for visit in visits if visit.run == row.run - 1]
    if not here or not before or row.state not in chart.states:
        return None
    state = chart.states[row.state]
    key = state.default_key if state.is_counting else None
    count = 0 if key is None else store.machines.count_reports(connection, row, row.visit).get(key, 0)
    turn = sum(visit.state == row.state for visit in here)
    same = [visit for visit in before if visit.state == row.state][turn - 1 : turn]
    if not same:
        return f"Run {row.run - 1} was not in {row.state}{_say_end(connection, row, chart, before)}."
    window = _find_window(connection, row, key, count, start=before[0].entered_at, visit=same[0])
    if window is None:
        return f"Run {row.run - 1} did not get as far in {row.state}{_say_end(connection, row, chart, before)}."
    age = here[-1].entered_at - here[0].entered_at if state.is_final else now - here[0].entered_at
    speed = _say_speed(age, window, is_over=state.is_final)
    moment = before[0].entered_at + window.since
    failures = store.overview.count_reports_until(connection, row, row.run - 1, FAILED_KEY, moment)
    own = store.overview.count_reports_until(connection, row, row.run, FAILED_KEY, now)
    return f"{speed} run {row.run - 1}{_say_failures(failures, own)}."


def _find_window(
    connection: Connection,
    row: store.charts.ChartRow,
    key: str | None,
    count: int,
    *,
    start: datetime,
    visit: VisitRow,
) -> _Window | None:
    """Return when the run before had `count` reports in a visit, and not one more; None if it never had so many."""
    since: datetime | None = visit.entered_at
    until = visit.left_at
    if key is not None:
        if count:
            since = store.overview.find_report_time(connection, row, visit, key, count)
        until = store.overview.find_report_time(connection, row, visit, key, count + 1) or until
    if since is None:
        return None
    return _Window(since - start, None if until is None else until - start)


def _say_speed(age: timedelta, there: _Window, *, is_over: bool) -> str:
    """How much sooner or later this run, of this age, is at the point than the run before was."""
    until = there.since if is_over else there.until
    if age < there.since - SMALLEST:
        return f"{say_span(there.since - age)} faster than"
    if until is not None and age > until + SMALLEST:
        return f"{say_span(age - until)} slower than"
    return "As fast as"


def _say_failures(failures: int, own: int) -> str:
    if not failures and not own:
        return "; neither had a failure at this point"
    return f", which had {_count_failures(failures)} at this point; this run has {say_number(own) if own else 'none'}"


def _say_end(connection: Connection, row: store.charts.ChartRow, chart: Chart, visits: Sequence[VisitRow]) -> str:
    """How the run before ended, after what time, and with how many failures."""
    last = visits[-1]
    is_final = last.state in chart.states and chart.states[last.state].is_final
    end = last.entered_at if is_final else last.left_at or last.entered_at
    failures = store.overview.count_reports_until(connection, row, row.run - 1, FAILED_KEY, end)
    how = f"it ended in {last.state}" if is_final else f"it was broken off in {last.state}"
    return f": {how} after {say_span(end - visits[0].entered_at)}, with {_count_failures(failures)}"


def _count_failures(count: int) -> str:
    return "no failure" if not count else "1 failure" if count == 1 else f"{say_number(count)} failures"


# Runs side by side

# Runs that one answer holds at most, and by default.
MAX_RUNS = 100
DEFAULT_RUNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StayInRun:
    """A visit in a run. `reports` are those of its machines, by attribute; `left_at` is None while it lasts."""

    visit: int
    state: str
    entered_at: datetime
    left_at: datetime | None
    span: timedelta
    reports: Mapping[str, int]

    @property
    def failures(self) -> int:
        """How many machines' reports stand on the attribute that counts failures."""
        return self.reports.get(FAILED_KEY, 0)

    def as_json(self) -> dict[str, Any]:
        """The visit as the HTTP interface and `--json` give it."""
        return {
            "visit": self.visit,
            "state": self.state,
            "entered_at": format_instant(self.entered_at),
            "left_at": None if self.left_at is None else format_instant(self.left_at),
            "seconds": self.span.total_seconds(),
            "reports": sum(self.reports.values()),
            "failures": self.failures,
            "by_key": dict(self.reports),
        }

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> StayInRun:
        """The visit that `as_json` gave."""
        return cls(
            visit=fields["visit"],
            state=fields["state"],
            entered_at=datetime.fromisoformat(fields["entered_at"]),
            left_at=_find_instant(fields["left_at"]),
            span=timedelta(seconds=fields["seconds"]),
            reports=fields["by_key"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run. `ending` is the final state that it reached, or None; `is_failure` is whether that ending is a failure.

    `ended_at` is when it reached its ending, or when a reset or an archive ended it before. `compared` is how the
    current run compares with the one before it, in a sentence; None for other runs.
    """

    run: int
    version: int
    state: str
    ending: str | None
    is_failure: bool
    is_current: bool
    started_at: datetime
    ended_at: datetime | None
    span: timedelta
    stays: Sequence[StayInRun]
    compared: str | None = None

    @property
    def reports(self) -> int:
        """How many reports its machines made."""
        return sum(sum(stay.reports.values()) for stay in self.stays)

    @property
    def failures(self) -> int:
        """How many of them are failures."""
        return sum(stay.failures for stay in self.stays)

    def as_json(self) -> dict[str, Any]:
        """The run as the HTTP interface and `--json` give it."""
        return {
            "run": self.run,
            "version": self.version,
            "state": self.state,
            "ending": self.ending,
            "failed": self.is_failure,
            "current": self.is_current,
            "started_at": format_instant(self.started_at),
            "ended_at": None if self.ended_at is None else format_instant(self.ended_at),
            "seconds": self.span.total_seconds(),
            "reports": self.reports,
            "failures": self.failures,
            "states": [stay.as_json() for stay in self.stays],
            "compared": self.compared,
        }

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> Run:
        """The run that `as_json` gave."""
        return cls(
            run=fields["run"],
            version=fields["version"],
            state=fields["state"],
            ending=fields["ending"],
            is_failure=fields["failed"],
            is_current=fields["current"],
            started_at=datetime.fromisoformat(fields["started_at"]),
            ended_at=_find_instant(fields["ended_at"]),
            span=timedelta(seconds=fields["seconds"]),
            stays=[StayInRun.of_json(stay) for stay in fields["states"]],
            # A server of an earlier version does not say it.
            compared=fields.get("compared"),
        )


def _find_instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def list_runs(service: Service, name: str, limit: int = DEFAULT_RUNS, before: int | None = None) -> list[Run]:
    """Return the latest `limit` runs of a chart, before the run `before` if that is given; the oldest comes first.

    Raises ChartNotFoundError.
    """
    with snapshot(service.database) as connection:
        row = store.charts.get_chart(connection, name)
        now = service.read_now(connection)
        last = row.run if before is None else min(before - 1, row.run)
        first = max(last - limit + 1, 1)
        if last < first:
            return []
        visits = store.machines.list_visits_of_runs(connection, row, first, last)
        counts = _count_reports(connection, row, first, last)
        versions = store.definitions.list_versions(connection, row.id)
        found = []
        for _, group in groupby(visits, key=lambda visit: visit.run):
            items = list(group)
            stays = [_describe(visit, counts.get((visit.run, visit.visit), {}), now) for visit in items]
            until = items[-1].left_at or now
            version = max((item.version for item in versions if item.imported_at <= until), default=row.version)
            chart = service.definitions.get_version(connection, row, version)
            run = _build(items, stays, chart, version, is_current=items[0].run == row.run)
            if run.is_current:
                run = replace(run, compared=compare_with_last_run(connection, row, chart, now))
            found.append(run)
        return found


def _count_reports(
    connection: Connection, row: store.charts.ChartRow, first: int, last: int
) -> dict[tuple[int, int], dict[str, int]]:
    """Count the reports of each run and visit, by attribute: of machines with an id, and without."""
    found: dict[tuple[int, int], dict[str, int]] = {}
    for place, named in store.machines.count_reports_of_runs(connection, row, first, last).items():
        found[place] = {str(key): count for key, count in named.items() if key is not None}
    begin = store.log.find_first_seq(connection, row._replace(run=first))
    for place, anonymous in store.log.count_anonymous(connection, row.name, begin - 1).items():
        here = found.setdefault(place, {})
        for key, count in anonymous.items():
            here[key] = here.get(key, 0) + count
    return found


def _describe(visit: VisitRow, reports: Mapping[str, int], now: datetime) -> StayInRun:
    return StayInRun(
        visit=visit.visit,
        state=visit.state,
        entered_at=visit.entered_at,
        left_at=visit.left_at,
        span=max((visit.left_at or now) - visit.entered_at, timedelta(0)),
        reports=reports,
    )


def _build(
    visits: Sequence[VisitRow], stays: Sequence[StayInRun], chart: Chart, version: int, *, is_current: bool
) -> Run:
    first, last = visits[0], visits[-1]
    has_ended = last.state in chart.states and chart.states[last.state].is_final
    # A final state is not left, unless by a reset long after the end.
    ended_at = last.entered_at if has_ended else last.left_at
    taken = (ended_at or last.entered_at + stays[-1].span) - first.entered_at
    return Run(
        run=first.run,
        version=version,
        state=last.state,
        ending=last.state if has_ended else None,
        is_failure=has_ended and last.state in list_failed_endings(chart),
        is_current=is_current,
        started_at=first.entered_at,
        ended_at=ended_at,
        span=max(taken, timedelta(0)),
        stays=stays,
    )


# What a run teaches


@dataclass(frozen=True, slots=True)
class Learned:
    """What the machines of a run did: how long each piece of work took, from its claim on, and which share failed.

    `reports` is how many reports the share is of.
    """

    spans: tuple[timedelta, ...]
    fail: float
    reports: int


def learn_from_run(service: Service, name: str, run: int, most: int | None = None) -> Learned:
    """Return what a run of a chart teaches a simulation: its first `most` rows, or all if that is None.

    Raises ChartNotFoundError, BadRequestError.
    """
    with snapshot(service.database) as connection:
        row = store.charts.get_chart(connection, name)
        check_run(name, run, row.run)
        first = store.log.find_first_seq(connection, row._replace(run=run))
        logged = islice(store.log.stream_history(connection, name, first - 1), most)
        rows = _of_run((one.row for one in logged), run)
        return learn(name, run, (Done(one.kind, one.at, one.machine, one.key) for one in rows))


def check_run(name: str, run: int, runs: int) -> None:
    """Raise BadRequestError if a chart that has had so many runs has not had this one."""
    if not 1 <= run <= runs:
        raise BadRequestError(f"chart {name!r} has had {runs} runs: there is no run {run}")


def _of_run(rows: Iterable[LogRow], run: int) -> Iterator[LogRow]:
    return takewhile(lambda row: row.run == run, rows)


class Done(NamedTuple):
    """What a row of the log says that a machine did."""

    kind: str
    at: datetime
    machine: str | None
    key: str | None

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> Done:
        """Return what a row says, as the HTTP interface gives it."""
        return cls(fields["kind"], datetime.fromisoformat(fields["at"]), fields["machine"], fields["key"])


def learn(name: str, run: int, done: Iterable[Done]) -> Learned:
    """Return what the rows of a run teach a simulation. Raises BadRequestError if no machine has reported."""
    claimed: dict[str, datetime] = {}
    spans: list[timedelta] = []
    reports = failed = 0
    for kind, at, machine, key in done:
        if kind == Kind.CLAIM and machine is not None:
            claimed.setdefault(machine, at)
        elif kind in (Kind.RELEASE, Kind.EVICT, Kind.EXPIRE):
            claimed.pop(machine or "", None)
        elif kind in (Kind.UPDATE, Kind.TRANSITION) and key is not None:
            reports += 1
            failed += key == FAILED_KEY
            if machine in claimed:
                spans.append(at - claimed.pop(machine))
    if not reports:
        raise BadRequestError(f"no machine reported in run {run} of chart {name!r}: it teaches nothing")
    return Learned(tuple(spans), failed / reports, reports)


# For people


def say_ending(run: Run) -> str:
    """How a run ended, in a word or two."""
    if run.ending is not None:
        return run.ending
    return f"in {run.state}" if run.is_current and run.ended_at is None else f"broken off in {run.state}"


def list_states(runs: Sequence[Run]) -> list[str]:
    """The states that any of the runs passed through, in the order in which they were first entered."""
    return list(dict.fromkeys(stay.state for run in runs for stay in run.stays))


def say_stays(run: Run, state: str) -> str:
    """How long a run was in a state, and what its machines reported there; empty if it never entered the state."""
    stays = [stay for stay in run.stays if stay.state == state]
    if not stays:
        return ""
    if state == run.ending:
        return "the end"
    spent = say_span(sum((stay.span for stay in stays), timedelta(0)))
    reports, failures = sum(sum(stay.reports.values()) for stay in stays), sum(stay.failures for stay in stays)
    visits = f"{len(stays)} visits, " if len(stays) > 1 else ""
    said = f", {say_number(reports)} reported" if reports else ""
    return f"{visits}{spent}{said}" + (f", {say_number(failures)} failed" if failures else "")
