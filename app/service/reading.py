"""What people and programs read: charts, definitions, history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app import chart_file, store
from app.db import snapshot
from app.service.context import Service, read_position
from app.service.status import Status, describe


def list_statuses(service: Service) -> list[Status]:
    """The status of every chart, by name."""
    with snapshot(service.database) as connection:
        now = service.now(store.read_now(connection))
        values = store.list_values(connection)
        found = []
        for row in store.list_charts(connection):
            position = store.build_position(row, values.get(row.id, {}))
            found.append(describe(service.definitions.get(connection, row), row, position, now))
        return found


def get_status(service: Service, name: str) -> Status:
    """A chart's status. Raises ChartNotFoundError."""
    with snapshot(service.database) as connection:
        row = store.get_chart(connection, name)
        chart = service.definitions.get(connection, row)
        position, now = read_position(service, connection, row, chart)
        return describe(chart, row, position, now)


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


@contextmanager
def history(service: Service, name: str, wanted: store.HistoryFilter) -> Iterator[Iterator[store.HashedRow]]:
    """Yield the rows of a chart's log, oldest first, streamed while the block lasts. Raises ChartNotFoundError.

    An archived chart's log is read as well: archiving ends a chart, not its history.
    """
    with snapshot(service.database) as connection:
        store.get_chart_even_archived(connection, name)
        yield store.list_history(connection, name, wanted)
