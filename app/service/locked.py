"""Charts under their locks: what happens to each is decided step by step, and all of it written at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from app import store
from app.core import machine
from app.core.arrival import Recalled
from app.core.chart import Chart
from app.core.decision import MOVES_PER_STEP
from app.core.errors import StateServiceError
from app.core.expect import Known
from app.core.log import Author
from app.core.position import Happening, Position, Step, Tick, Upgrade, is_due
from app.db import Connection, transaction
from app.service.context import Service, read_positions
from app.service.crowds import Knowledge

# Who causes what the clock does.
NOBODY = Author()


class Budget:
    """How many clock transitions a transaction may still take; all charts that it holds share it."""

    def __init__(self) -> None:
        self.left = MOVES_PER_STEP

    @property
    def is_whole(self) -> bool:
        """Whether no transition was taken yet."""
        return self.left == MOVES_PER_STEP


class LockedChart:
    """A chart whose row the caller's transaction has locked; `position` and `seq` follow each step decided."""

    def __init__(
        self,
        row: store.charts.ChartRow,
        chart: Chart,
        position: Position,
        now: datetime,
        *,
        known: Knowledge,
        budget: Budget,
    ) -> None:
        self.row = row
        self.knowledge = known
        self.budget = budget
        self.chart = chart
        self.position = position
        self.now = now
        self.seq = row.seq
        self._before = position
        self._decisions: list[store.record.DecidedStep] = []

    @property
    def steps(self) -> list[Step]:
        """What was decided, in order."""
        return [decision.step for decision in self._decisions]

    @property
    def known(self) -> Known:
        """What is known of machines, with the reports of the steps so far, which the database does not have yet."""
        reports = [report for step in self.steps for report in step.reports]
        if not reports:
            return self.knowledge
        visits = {
            self.row.visit: self.row.state,
            **{one.visit: one.state for step in self.steps for one in step.visits},
        }
        return Recalled(self.knowledge, self.row.run, visits, reports)

    def known_by(self, known: Knowledge) -> None:
        """Ask `known` about machines from here on."""
        self.knowledge = known

    def expect_from(self, machines: Collection[str]) -> None:
        """Say which machines the transaction is about, so that they are looked up together."""
        self.knowledge = self.knowledge.about(machines)

    @property
    def change(self) -> store.record.Change:
        """What is to be written."""
        return store.record.Change(self.row, self._before, self._decisions)

    def decide(self, happening: Happening, author: Author = NOBODY) -> Step:
        """Decide what `happening` does to the chart as it is after the steps before.

        Raises BadRequestError, KeyReusedError or ConflictError; then `happening` did nothing.
        """
        step = self._try(happening)
        self._accept(step, author)
        return step

    def _try(self, happening: Happening) -> Step:
        known = self._known_for(happening)
        return machine.step(self.chart, self.position, happening, self.now, known, moves=self.budget.left)

    def _accept(self, step: Step, author: Author) -> None:
        self.budget.left -= step.clock_moves
        self.take(step, author)

    def _known_for(self, happening: Happening) -> Known:
        return self.known if self.chart.looks_up or isinstance(happening, Upgrade) else self.knowledge

    def run_clock(self) -> bool:
        """Let the clock do what is due, unless the chart must wait; return whether it had its turn.

        Raises ConflictError; then the clock did nothing.
        """
        step = self._try(Tick())
        if is_due(self.chart, step.position, self.now) and self.must_wait():
            return False
        self._accept(step, NOBODY)
        return True

    def must_wait(self) -> bool:
        """Return True if this transaction can take too few clock transitions for the chart, and the next one enough.

        A cycle of clock guards never has enough: it takes what is left.
        """
        if self.budget.is_whole or not is_due(self.chart, self.position, self.now):
            return False
        try:
            step = machine.step(self.chart, self.position, Tick(), self.now, self._known_for(Tick()))
        except StateServiceError:
            return False
        return step.clock_moves > self.budget.left and not is_due(self.chart, step.position, self.now)

    def take(self, step: Step, author: Author) -> None:
        """Take a step that was decided elsewhere."""
        self._decisions.append(store.record.DecidedStep(step, author))
        self.position = step.position
        self.seq += len(step.entries)


@contextmanager
def locked(service: Service, name: str) -> Iterator[LockedChart]:
    """Yield a chart under its row lock; write what the block decides, commit, and tell the waiters.

    After the block, `row` is the chart's row as it was committed. Raises ChartNotFoundError.
    """
    with transaction(service.database) as connection:
        chart = lock(service, connection, name)
        yield chart
        chart.row = record(service, connection, chart)
    for step in chart.steps:
        service.tell(name, step)


def lock(service: Service, connection: Connection, name: str) -> LockedChart:
    """Lock a chart. Raises ChartNotFoundError."""
    return locked_chart(service, connection, store.charts.lock_chart(connection, name))


def locked_chart(service: Service, connection: Connection, row: store.charts.ChartRow) -> LockedChart:
    """Read what a decision on the chart with a locked `row` must know."""
    (held,) = locked_charts(service, connection, [row])
    return held


def locked_charts(service: Service, connection: Connection, rows: Sequence[store.charts.ChartRow]) -> list[LockedChart]:
    """As `locked_chart`, for several charts; each is judged at the same time."""
    charts = service.definitions.get_all(connection, rows)
    positions, now = read_positions(service, connection, rows, charts)
    budget = Budget()
    return [
        LockedChart(row, chart, position, now, known=service.know(connection, row), budget=budget)
        for row, chart, position in zip(rows, charts, positions, strict=True)
    ]


def record(service: Service, connection: Connection, held: LockedChart) -> store.charts.ChartRow:
    """Write every step decided, once; return the chart's row as it is then."""
    (after,) = record_all(service, connection, [held])
    return after


def record_all(service: Service, connection: Connection, charts: Sequence[LockedChart]) -> list[store.charts.ChartRow]:
    """As `record`, for charts that were held together."""
    changes = [chart.change for chart in charts]
    return store.record.record_all(connection, changes, charts[0].now, service.database.log_key)
