"""What a decision may ask about machines, held in memory: for stories, simulations and proofs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from app.core.expect import Book, Labels, PastReport, Where
from app.core.position import Report, Step

# Rosters by name, each with the labels of its machines.
Lists = Mapping[str, Mapping[str, Labels]]


class Memory(Book):
    """What a decision may ask about machines: the rosters in their versions, and the reports of the run so far."""

    def __init__(self, rosters: Lists) -> None:
        versions: dict[str, dict[int, Mapping[str, Labels]]] = {name: {1: lines} for name, lines in rosters.items()}
        super().__init__(versions)
        self._versions = versions
        self._counted: dict[tuple[str, int, Where, str | None], Mapping[str, int]] = {}
        self.run = 1
        # The state of each visit of the run, and the reports in it.
        self.states: dict[int, str] = {}
        self.reports: dict[int, dict[str, Report]] = {}

    def add(self, roster: str, lines: Mapping[str, Labels]) -> int:
        """Keep the lines as the roster's next version; return its number."""
        versions = self._versions.setdefault(roster, {})
        versions[len(versions) + 1] = lines
        return len(versions)

    @property
    def newest(self) -> dict[str, int]:
        """The newest version of each roster."""
        return {name: len(versions) for name, versions in self._versions.items()}

    def count_machines(self, roster: str, version: int, where: Where) -> int:
        """Return how many machines of the roster have the labels `where`."""
        key = (roster, version, where, None)
        if key not in self._counted:
            self._counted[key] = {"": super().count_machines(roster, version, where)}
        return self._counted[key][""]

    def count_groups(self, roster: str, version: int, where: Where, label: str) -> Mapping[str, int]:
        """Return how many of these machines have each value of `label`."""
        key = (roster, version, where, label)
        if key not in self._counted:
            self._counted[key] = super().count_groups(roster, version, where, label)
        return self._counted[key]

    def take(self, step: Step) -> None:
        """Keep what was decided: the visits that began, and the reports that stand."""
        self.run = step.position.run
        for report in step.withdrawn:
            self.reports.get(report.visit, {}).pop(report.machine, None)
        for report in step.reports:
            self.reports.setdefault(report.visit, {})[report.machine] = report
        for visit in step.visits:
            self.states[visit.visit] = visit.state

    def list_reports(
        self, run: int, states: Collection[str], machines: Collection[str] | None = None
    ) -> Sequence[PastReport]:
        """Return the standing reports in the run's visits of `states`, the earliest visit first."""
        if run != self.run:
            return ()
        return [
            PastReport(visit, self.states[visit], name, reports[name].key)
            for visit, reports in sorted(self.reports.items())
            if self.states[visit] in states
            for name in (reports if machines is None else machines)
            if name in reports
        ]
