"""What every use case needs: the database, the cache of definitions, and whom to tell of a change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from app import store
from app.core.chart import Chart
from app.core.errors import NoDefaultChartError
from app.core.position import Position, Step
from app.db import Connection, Database, asking
from app.waiting.hub import Hub

# The SQLite file (None on PostgreSQL), the chart's id and birth, the version.
DefinitionKey = tuple[tuple[int, int] | None, int, datetime, int]


class Definitions:
    """Charts by file, chart id and version, which never change; past `max_states` states the least lately used go."""

    def __init__(self, max_states: int = 200_000) -> None:
        self._max_states = max_states
        self._states = 0
        self._charts: OrderedDict[DefinitionKey, Chart] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, connection: Connection, row: store.charts.ChartRow) -> Chart:
        """Return the definition of the chart's current version."""
        return self.get_version(connection, row, row.version)

    def get_version(self, connection: Connection, row: store.charts.ChartRow, version: int) -> Chart:
        """Return one of the chart's definitions. Raises VersionNotFoundError."""
        # A database put in this one's place numbers its charts on its own.
        key = (connection.info.get("identity"), row.id, row.created_at, version)
        with self._lock:
            chart = self._charts.get(key)
            if chart is not None:
                self._charts.move_to_end(key)
                return chart
        chart = store.definitions.load_chart(connection, row.id, row.name, version)
        self._put(key, chart)
        return chart

    def _put(self, key: DefinitionKey, chart: Chart) -> None:
        with self._lock:
            if key in self._charts:
                return
            self._charts[key] = chart
            self._states += len(chart.states)
            while self._states > self._max_states and len(self._charts) > 1:
                _, dropped = self._charts.popitem(last=False)
                self._states -= len(dropped.states)


@dataclass(slots=True)
class Service:
    """The service at work, and the waiting rooms of this process, which hear of every commit that moved a chart."""

    database: Database
    hub: Hub
    definitions: Definitions = field(default_factory=Definitions)
    default_chart: str | None = None

    def tell(self, chart: str, step: Step) -> None:
        """Wake whoever waits for `chart` in this process, after the commit of `step`."""
        if step.moves:
            self.hub.tell(chart)
        elif step.entries:
            self.hub.tell_rows(chart)

    def now(self, read: datetime) -> datetime:
        """The database's time `read`, or the tests' clock in its place."""
        return read if self.database.clock is None else self.database.clock()


def find_default_chart(service: Service) -> str:
    """Return the name of the default chart: the one configured, else the only one there is.

    Raises NoDefaultChartError.
    """
    if service.default_chart is not None:
        return service.default_chart
    with asking(service.database) as connection:
        names = store.charts.list_chart_names(connection, limit=2)
    if len(names) != 1:
        found = "there is none" if not names else "there are several"
        raise NoDefaultChartError(f"no default chart is set, and {found} to choose from")
    return names[0]


def read_position(
    service: Service, connection: Connection, row: store.charts.ChartRow, chart: Chart
) -> tuple[Position, datetime]:
    """Return where the chart stands, and the time at which it is judged."""
    ((position,), now) = read_positions(service, connection, [row], [chart])
    return position, now


def read_positions(
    service: Service, connection: Connection, rows: Sequence[store.charts.ChartRow], charts: Sequence[Chart]
) -> tuple[list[Position], datetime]:
    """As `read_position`, of several charts at one time."""
    values, read = store.charts.read_values_and_now(connection, [row.id for row in rows])
    positions = [
        _build_position(connection, row, chart, values[row.id]) for row, chart in zip(rows, charts, strict=True)
    ]
    return positions, service.now(read)


def _build_position(
    connection: Connection, row: store.charts.ChartRow, chart: Chart, values: Mapping[str, int]
) -> Position:
    position = store.charts.build_position(row, values)
    if chart.states[row.state].slots is None:
        return position
    held, reported, holder_reports = store.machines.read_slots(connection, row)
    return replace(position, slots=held, reported=reported, holder_reports=holder_reports)


def list_missing(connection: Connection, row: store.charts.ChartRow, chart: Chart) -> Sequence[str]:
    """The machines of the roster that have not reported in this visit; none where there is no roster."""
    if chart.roster is None or not chart.states[row.state].attributes:
        return ()
    reported = store.machines.read_reports(connection, row)
    return [machine for machine in chart.roster if machine not in reported]


def list_waiting(service: Service, row: store.charts.ChartRow, chart: Chart) -> list[str]:
    """Return the machines that wait for a slot of the chart in this process, longest first."""
    return [] if chart.states[row.state].slots is None else service.hub.list_slot_waiters(row.name)
