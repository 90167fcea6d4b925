"""What people and programs read: charts, definitions, history."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from app import chart_file, store
from app.db import asking, snapshot
from app.service.context import Service, list_missing, list_waiting, read_position
from app.service.status import Status, describe
from app.waiting.rooms import Topic

# Rows of the log read at a time.
PAGE = 2000


def list_statuses(service: Service) -> list[Status]:
    """The status of every chart, by name."""
    with snapshot(service.database) as connection:
        now = service.now(store.read_now(connection))
        values = store.list_values(connection)
        charts = [(row, service.definitions.get(connection, row)) for row in store.list_charts(connection)]
        slotted = [row.id for row, chart in charts if chart.states[row.state].slots is not None]
        slots, reported = store.list_slots(connection, slotted), store.count_reports(connection, slotted)
        waiting = store.list_slot_waiters(connection, slotted, now)
        found = []
        for row, chart in charts:
            position = store.build_position(row, values.get(row.id, {}))
            position = replace(position, slots=slots.get(row.id, {}), reported=reported.get(row.id, 0))
            found.append(describe(chart, row, position, now, waiting.get(row.id, ())))
        return found


def get_status(service: Service, name: str) -> Status:
    """A chart's status. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        row = store.get_chart(connection, name)
        chart = service.definitions.get(connection, row)
        position, now = read_position(service, connection, row, chart)
        return describe(
            chart,
            row,
            position,
            now,
            list_waiting(connection, row, chart, now),
            list_missing(connection, row, chart),
        )


def export_chart(service: Service, name: str) -> str:
    """The chart file with its live values and current state. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        row = store.get_chart(connection, name)
        chart = service.definitions.get(connection, row)
        values = store.read_values(connection, row.id)
    return chart_file.dump(chart, state=row.state, values=values)


def list_versions(service: Service, name: str) -> list[store.Version]:
    """Every version of a chart, oldest first. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        return store.list_versions(connection, store.get_chart(connection, name).id)


def get_version(service: Service, name: str, version: int) -> store.Version:
    """One version of a chart. Raises ChartNotFoundError, VersionNotFoundError."""
    with snapshot(service.database) as connection:
        return store.get_version(connection, store.get_chart(connection, name).id, version)


def iterate_history(service: Service, name: str, wanted: store.HistoryFilter) -> Iterator[store.HashedRow]:
    """The rows of a chart's log, oldest first, read a page at a time: memory stays flat and no transaction is held.

    An archived chart's log is read as well: archiving ends a chart, not its history. Raises ChartNotFoundError.
    """
    with asking(service.database) as connection:
        store.get_chart_even_archived(connection, name)
    return _iterate_pages(service, name, wanted)


def _iterate_pages(service: Service, name: str, wanted: store.HistoryFilter) -> Iterator[store.HashedRow]:
    left = wanted.limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        with asking(service.database) as connection:
            rows = store.list_history(connection, name, replace(wanted, limit=size))
        yield from rows
        if len(rows) < size:
            return
        wanted = replace(wanted, after=rows[-1].row.seq)
        left = None if left is None else left - size


def wait_for_history(service: Service, name: str, wanted: store.HistoryFilter, seconds: float) -> None:
    """Return once the log has a row that `wanted` lets through, at the latest after `seconds`.

    Raises ChartNotFoundError, TooManyWaitersError.
    """
    if seconds == 0 or _has_rows(service, name, wanted):
        return
    deadline = time.monotonic() + seconds
    with service.hub.waiting(Topic(name, rows=True)) as waiter:
        while not _has_rows(service, name, wanted):
            if not waiter.sleep(deadline - time.monotonic()):
                return


def _has_rows(service: Service, name: str, wanted: store.HistoryFilter) -> bool:
    return any(True for _ in iterate_history(service, name, replace(wanted, limit=1)))
