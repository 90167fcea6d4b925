"""What people and programs read: statuses, chart files, versions, machines, and the log with its formats.

On a chart's page the log is the history, in which rows about one machine of many are folded into a line: updates,
claims, releases, late reports, leases that ran out, and reports that were withdrawn.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

from app import chart_file, store
from app.core.chart import FAILED_KEY, Chart
from app.core.log import HashedRow, HistoryFilter, LogRow
from app.core.position import Kind
from app.db import Connection, asking, snapshot
from app.service.context import Service, list_positions, list_waiting, read_position
from app.service.crowds import find_absent
from app.service.status import Status, describe_status
from app.service.words import say_number

# Rows of the log that one query reads.
PAGE = 2000
# Characters of a format that are sent together: each piece is a system call, and over HTTP a chunk.
PIECE = 65536

# Charts


def list_statuses(service: Service) -> list[Status]:
    """The status of every chart that is not archived, ordered by name. The missing machines are not named."""
    with snapshot(service.database) as connection:
        positions, now = list_positions(service, connection)
        return [
            describe_status(
                connection,
                chart,
                row,
                position,
                now,
                known=service.know(connection, row),
                waiting=list_waiting(service, row, chart),
            )
            for row, chart, position in positions
        ]


def get_status(service: Service, name: str) -> Status:
    """Return a chart's status. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        row = store.charts.get_chart(connection, name)
        chart = service.definitions.get(connection, row)
        position, now = read_position(service, connection, row, chart)
        known = service.know(connection, row)
        return describe_status(
            connection,
            chart,
            row,
            position,
            now,
            waiting=list_waiting(service, row, chart),
            absent=find_absent(known, connection, row, chart),
            known=known,
        )


def has_slots(service: Service, name: str, state: str) -> bool:
    """True if the chart has the state, with slots. Raises ChartNotFoundError."""
    with asking(service.database) as connection:
        chart = service.definitions.get(connection, store.charts.get_chart(connection, name))
    return state in chart.states and chart.states[state].slots is not None


def export_chart(service: Service, name: str) -> str:
    """Return the chart file at the current state, with its values and who made them. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        row = store.charts.get_chart(connection, name)
        chart = service.definitions.get(connection, row)
        values = store.charts.read_values(connection, row.id)
        reports = store.machines.read_reports(connection, row)
    return chart_file.dump(chart, state=row.state, values=values, reports=reports)


def get_definition(service: Service, name: str) -> Chart:
    """Return the definition in force of a chart. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        return service.definitions.get(connection, store.charts.get_chart(connection, name))


def list_versions(service: Service, name: str) -> list[store.definitions.Version]:
    """Return every version of a chart, the oldest first. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        return store.definitions.list_versions(connection, store.charts.get_chart(connection, name).id)


def get_version(service: Service, name: str, version: int) -> store.definitions.Version:
    """Return one version of a chart. Raises ChartNotFoundError, VersionNotFoundError."""
    with snapshot(service.database) as connection:
        return store.definitions.get_version(connection, store.charts.get_chart(connection, name).id, version)


# The log


def list_kinds() -> tuple[str, ...]:
    """Every kind of row that a log can have."""
    return tuple(str(kind) for kind in Kind)


def iterate_history(service: Service, name: str, wanted: HistoryFilter) -> Iterator[HashedRow]:
    """Return the rows of a chart's log that `wanted` lets through, the oldest first.

    They are read a page at a time, so that a long log needs little memory and holds no transaction open. The log of an
    archived chart is read as well. Raises ChartNotFoundError.
    """
    with asking(service.database) as connection:
        store.charts.get_chart_even_archived(connection, name)
    return _iterate_pages(service, name, wanted)


def _iterate_pages(service: Service, name: str, wanted: HistoryFilter) -> Iterator[HashedRow]:
    left = wanted.limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        with asking(service.database) as connection:
            rows = store.log.list_history(connection, name, replace(wanted, limit=size))
        yield from rows
        if len(rows) < size:
            return
        wanted = replace(wanted, after=rows[-1].row.seq)
        left = None if left is None else left - size


def has_rows(service: Service, name: str, wanted: HistoryFilter) -> bool:
    """True if the log has a row that passes the filter `wanted`. Raises ChartNotFoundError."""
    return any(True for _ in iterate_history(service, name, replace(wanted, limit=1)))


# Formats of the log


def as_ndjson(rows: Iterable[HashedRow]) -> Iterator[str]:
    """The rows as NDJSON: one JSON object on each line. Each text is a piece of it, up to about 64 KiB."""
    return _gathered(_as_json(row) + "\n" for row in rows)


def as_json_array(rows: Iterable[HashedRow]) -> Iterator[str]:
    """The rows as one JSON array, with one object on each line."""
    return _gathered(_array_lines(rows))


def _array_lines(rows: Iterable[HashedRow]) -> Iterator[str]:
    before = "[\n"
    for row in rows:
        yield before + _as_json(row)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def as_csv(rows: Iterable[HashedRow]) -> Iterator[str]:
    """The rows as CSV (RFC 4180) under a heading. No cell begins like a formula of a spreadsheet."""
    return _gathered(_csv_lines(rows))


def _csv_lines(rows: Iterable[HashedRow]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(HashedRow.columns())
    for row in rows:
        yield _emptied(buffer)
        writer.writerow([quote_cell(value) for value in row.as_json().values()])
    yield _emptied(buffer)


def _emptied(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text


def _gathered(lines: Iterable[str]) -> Iterator[str]:
    piece: list[str] = []
    size = 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if size >= PIECE:
            yield "".join(piece)
            piece, size = [], 0
    if piece:
        yield "".join(piece)


def _as_json(row: HashedRow) -> str:
    return json.dumps(row.as_json(), ensure_ascii=False)


def quote_cell(value: Any) -> Any:
    """Return a value as a cell that no spreadsheet takes for a formula."""
    # A spreadsheet evaluates a cell that begins with one of these as a formula. A quote in front makes it a text.
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return "'" + value
    return value


# The history on a chart's page

# Rows on a page.
PAGE_SIZE = 20
# So many rows or fewer between two that matter are shown as they are.
FEW = 3
# Folds of more rows than this on one page say only how many rows they stand for.
MAX_COUNTED = 100_000
# The page's own choices beside the kinds of rows: every row, and reports of failures.
EVERYTHING, FAILURES = "all", "failed"

# What a fold calls the rows of a kind, if not by the kind itself.
NOUNS = {
    str(Kind.LATE): "late report",
    str(Kind.EXPIRE): "lease* that ran out",
    str(Kind.WITHDRAW): "report* withdrawn",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """Which rows of the log a page shows: the newest rows that match, before the row with the seq `before`.

    `kind` is a kind of row, EVERYTHING or FAILURES; without any condition the page shows what matters. `words` are
    searched in reasons and notes.
    """

    kind: str | None = None
    machine: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    words: str | None = None

    @property
    def is_folded(self) -> bool:
        """Whether what machines did is folded."""
        return (self.kind, self.machine, self.since, self.until, self.words) == (None,) * 5

    def as_filter(self) -> HistoryFilter:
        """The rows that match, on all pages."""
        has_kind = self.kind not in (None, EVERYTHING, FAILURES)
        return HistoryFilter(
            kind=self.kind if has_kind else None,
            key=FAILED_KEY if self.kind == FAILURES else None,
            machine=self.machine,
            since=self.since,
            until=self.until,
            words=self.words,
        )


@dataclass(frozen=True, slots=True)
class Fold:
    """The rows from `first` to `last`, which machines caused; `counts` has how many there are, in words."""

    first: int
    last: int
    counts: Sequence[str]


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of the log. The next page begins before the row with the seq `older`; None if this is the last page."""

    rows: Sequence[LogRow | Fold]
    older: int | None


def get_history(connection: Connection, row: store.charts.ChartRow, query: HistoryQuery) -> HistoryPage:
    """Return one page of a chart's log, newest first."""
    if query.is_folded:
        return _get_folded(connection, row, query.before)
    rows = store.log.list_latest_history(connection, row.name, query.as_filter(), query.before, PAGE_SIZE + 1)
    return HistoryPage(rows[:PAGE_SIZE], rows[PAGE_SIZE - 1].seq if len(rows) > PAGE_SIZE else None)


def _get_folded(connection: Connection, row: store.charts.ChartRow, before: int | None) -> HistoryPage:
    end = row.seq + 1 if before is None else min(before, row.seq + 1)
    acts = store.log.list_latest_acts(connection, row.name, end, PAGE_SIZE + 1)
    older = acts[PAGE_SIZE - 1].seq if len(acts) > PAGE_SIZE else None
    acts = acts[:PAGE_SIZE]
    # Between two rows of the page, and below the last one down to the log's first row, lie the rows of machines.
    bounds = [end, *(act.seq for act in acts)]
    if older is None:
        bounds.append(store.log.find_oldest_seq(connection, row.name) - 1)
    gaps = [(low + 1, high - 1) for high, low in pairwise(bounds) if high - low > 1]
    folded = _fold(connection, row.name, gaps)
    rows = [item for number, act in enumerate([*acts, None]) for item in (*folded.get(bounds[number] - 1, ()), act)]
    return HistoryPage([item for item in rows if item is not None], older)


def _fold(connection: Connection, chart: str, gaps: Sequence[tuple[int, int]]) -> dict[int, Sequence[LogRow | Fold]]:
    """Return what stands for the rows of each gap, by the last seq of the gap."""
    short = [gap for gap in gaps if gap[1] - gap[0] < FEW]
    long = [gap for gap in gaps if gap[1] - gap[0] >= FEW]
    shown = store.log.list_rows(connection, chart, [seq for first, last in short for seq in range(first, last + 1)])
    found: dict[int, Sequence[LogRow | Fold]] = {
        last: [item for item in shown if first <= item.seq <= last] for first, last in short
    }
    if sum(last - first + 1 for first, last in long) > MAX_COUNTED:
        return found | {last: [Fold(first, last, [f"{say_number(last - first + 1)} rows"])] for first, last in long}
    counts = store.log.count_kinds(connection, chart, long)
    return found | {last: [Fold(first, last, _say_counts(counts.get(first, {})))] for first, last in long}


def _say_counts(counts: dict[tuple[str, str | None], int]) -> list[str]:
    """How many reports there are, failures among them, and other rows: `312 reports`, `4 failed`, `40 claims`."""
    kinds: dict[str, int] = {}
    for (kind, _), count in counts.items():
        kinds[kind] = kinds.get(kind, 0) + count
    updates = kinds.pop(str(Kind.UPDATE), 0)
    failed = counts.get((str(Kind.UPDATE), FAILED_KEY), 0)
    said = [_say(updates, "report"), f"{say_number(failed)} failed" if failed else ""]
    said += [_say(count, NOUNS.get(kind, kind)) for kind, count in sorted(kinds.items())]
    return [text for text in said if text]


def _say(count: int, noun: str) -> str:
    """A number and a noun, which takes an s for several: in the place of `*`, or at its end."""
    if not count:
        return ""
    one, _, rest = noun.partition("*")
    return f"{say_number(count)} {one}{'' if count == 1 else 's'}{rest}"
