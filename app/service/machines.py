"""Who has reported, and who is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app import store
from app.core.errors import BadRequestError
from app.db import snapshot
from app.service.context import Service


@dataclass(frozen=True, slots=True)
class Machines:
    """The machines of a state's latest visit in the current run; `visit` is None where it was not entered yet.

    `missing` lists those of the roster that have not reported; None for a chart without a roster.
    """

    chart: str
    run: int
    visit: int | None
    state: str
    reports: tuple[store.MachineReport, ...]
    missing: tuple[str, ...] | None

    def as_json(self, *, only_missing: bool = False) -> dict[str, Any]:
        """The machines as the HTTP interface gives them: those that reported, or those missing."""
        missing = [{"machine": machine} for machine in self.missing or ()]
        return {
            "chart": self.chart,
            "run": self.run,
            "visit": self.visit,
            "state": self.state,
            "machines": missing if only_missing else [report.as_json() for report in self.reports],
        }

    def as_text(self, *, only_missing: bool = False) -> str:
        """One id a line."""
        names = self.missing or () if only_missing else [report.machine for report in self.reports]
        return "".join(f"{name}\n" for name in names)


def list_machines(service: Service, name: str, state: str | None = None, *, only_missing: bool = False) -> Machines:
    """The machines of the latest visit of `state`, by default the current state.

    Raises ChartNotFoundError, and BadRequestError for a state that the chart does not have, or where the missing
    ones are asked for and it has no roster.
    """
    with snapshot(service.database) as connection:
        row = store.get_chart(connection, name)
        chart = service.definitions.get(connection, row)
        wanted = row.state if state is None else state
        if wanted not in chart.states:
            raise BadRequestError(f"chart {name!r} has no state {wanted!r}")
        if only_missing and chart.roster is None:
            raise BadRequestError(f"chart {name!r} has no roster (expect: a list), so nobody can be missing")
        visit = store.find_latest_visit(connection, row, wanted)
        reports = () if visit is None else tuple(store.list_reports(connection, row, visit))
    missing = None
    if chart.roster is not None:
        reported = {report.machine for report in reports}
        missing = tuple(machine for machine in chart.roster if machine not in reported)
    return Machines(name, row.run, visit, wanted, reports, missing)
