"""What the log and the reports know of PUTs that are judged one after another in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app import store
from app.core.chart import Chart
from app.core.position import CLOCK_KINDS, LoggedUpdate, Reason, Report, Step, Update
from app.db import Connection
from app.service.context import Service


@dataclass(frozen=True, slots=True)
class Put:
    """What a machine says it did."""

    state: str
    machine: str | None = None
    key: str | None = None
    idempotency_key: str | None = None


class Standing:
    """Read once for all PUTs of a transaction, under the chart's lock, and kept up with each step decided."""

    def __init__(self, service: Service, connection: Connection, row: store.ChartRow, puts: Sequence[Put]) -> None:
        self._visits = {row.state: row.visit}
        self._reports: dict[tuple[int, str], Report] = {}
        self._keys: dict[str, LoggedUpdate] = {}
        self._read_reports(connection, row, puts)
        self._read_keys(service, connection, row, puts)

    def gather(self, put: Put) -> Update:
        """The PUT with what is known of it now."""
        visit = self._visits.get(put.state)
        report = None if visit is None or put.machine is None else self._reports.get((visit, put.machine))
        repeats = None if put.idempotency_key is None else self._keys.get(put.idempotency_key)
        return Update(put.state, put.machine, put.key, report, visit is not None, repeats)

    def note(self, chart: Chart, put: Put, step: Step) -> None:
        """Take in what `step` decided on `put`, for those that come after it."""
        self._visits.update((visit.state, visit.visit) for visit in step.visits)
        self._reports.update(((report.visit, report.machine), report) for report in step.reports)
        if put.idempotency_key is not None and step.reason in (Reason.UPDATED, Reason.TRANSITIONED):
            entry = next(item for item in step.entries if item.kind not in CLOCK_KINDS)
            default_key = chart.states[entry.from_state].default_key
            self._keys[put.idempotency_key] = LoggedUpdate(entry.from_state, entry.machine, entry.key, default_key)

    def _read_reports(self, connection: Connection, row: store.ChartRow, puts: Sequence[Put]) -> None:
        named = [put for put in puts if put.machine is not None]
        if not named:
            return
        others = {put.state for put in named} - {row.state}
        if others:
            self._visits.update(store.list_latest_visits(connection, row, others))
        machines = {put.machine for put in named if put.machine is not None}
        for report in store.find_reports(connection, row, set(self._visits.values()), machines):
            self._reports[report.visit, report.machine] = report

    def _read_keys(self, service: Service, connection: Connection, row: store.ChartRow, puts: Sequence[Put]) -> None:
        keys = {put.idempotency_key for put in puts if put.idempotency_key is not None}
        if not keys:
            return
        for logged in store.list_logged_keys(connection, row.name, keys):
            # What a PUT without `key` meant is what the version of that time made of it.
            chart = service.definitions.get_version(connection, row, logged.version)
            default_key = chart.states[logged.from_state].default_key
            update = LoggedUpdate(logged.from_state, logged.machine, logged.key, default_key)
            self._keys[str(logged.idempotency_key)] = update
