"""A chart under its lock: what happens to it is decided step by step, and written at once."""

from __future__ import annotations

from app import store
from app.core import machine
from app.core.position import Happening, Step
from app.db import Connection
from app.service.context import Service, read_position

# Who causes what the clock does.
NOBODY = store.Author()


class Held:
    """A chart whose row the caller's transaction has locked; `position` and `seq` follow each step decided."""

    def __init__(self, service: Service, connection: Connection, row: store.ChartRow) -> None:
        self.row = row
        self.chart = service.definitions.get(connection, row)
        self.position, self.now = read_position(service, connection, row, self.chart)
        self.seq = row.seq
        self._before = self.position
        self._decisions: list[store.Decision] = []
        self._connection = connection
        self._log_key = service.database.log_key

    @property
    def steps(self) -> list[Step]:
        """What was decided, in order."""
        return [decision.step for decision in self._decisions]

    def decide(self, happening: Happening, author: store.Author = NOBODY) -> Step:
        """Decide what `happening` does to the chart as it is after the steps before.

        Raises BadRequestError, KeyReusedError or ConflictError; then `happening` did nothing.
        """
        step = machine.step(self.chart, self.position, happening, self.now)
        self.take(step, author)
        return step

    def take(self, step: Step, author: store.Author) -> None:
        """Take a step that was decided elsewhere."""
        self._decisions.append(store.Decision(step, author))
        self.position = step.position
        self.seq += len(step.entries)

    def record(self) -> store.ChartRow:
        """Write every step, once; return the chart's row as it is then."""
        return store.record_all(self._connection, self.row, self._before, self._decisions, self.now, self._log_key)


def hold(service: Service, connection: Connection, name: str) -> Held:
    """Lock a chart. Raises ChartNotFoundError."""
    return Held(service, connection, store.lock_chart(connection, name))
