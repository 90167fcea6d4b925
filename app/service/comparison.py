"""How the current run compares with the one before it: is it faster, and did that one have more failures by then?

The *point* that is compared is the present visit with its count of reports on the first attribute. The run before is
looked up at the same point: the same state, entered as often, with as many reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app import store
from app.core.chart import FAILED_KEY, Chart
from app.db import Connection
from app.service.words import say_number, say_span
from app.store.machines import VisitRow

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
