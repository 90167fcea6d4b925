"""What people and programs read: statuses, chart files, versions, machines, and the log with its formats."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from app import chart_file, store
from app.core.chart import Chart
from app.core.log import HashedRow, HistoryFilter
from app.core.position import Kind
from app.db import asking, snapshot
from app.service.absent import find_absent
from app.service.context import Service, list_positions, list_waiting, read_position
from app.service.status import Status, describe_status

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
            describe_status(connection, chart, row, position, now, waiting=list_waiting(service, row, chart))
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
