"""What every use case needs: the database, definitions, whom to tell of a change, and charts under their locks.

What happens to a locked chart is decided step by step, and all of it is written at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from cachetools import LRUCache

from app import store
from app.core import machine
from app.core.arrival import Recalled, regroup
from app.core.chart import Chart
from app.core.decision import MOVES_PER_STEP
from app.core.errors import NoDefaultChartError, StateServiceError
from app.core.expect import Known
from app.core.log import Author
from app.core.position import Claim, Happening, Position, Reason, Step, Tick, Upgrade, is_due
from app.db import Connection, Database, asking, transaction
from app.service.crowds import Knowledge, RosterCache
from app.service.hours import CalendarEvents
from app.service.webhooks import AllowedHosts
from app.waiting.hub import Hub

logger = logging.getLogger("stateservice.service")
machines_logger = logging.getLogger("stateservice.machines")
Item = TypeVar("Item")

# The SQLite file (None on PostgreSQL), the chart's id and birth, the version.
DefinitionKey = tuple[tuple[int, int] | None, int, datetime, int]


class Definitions:
    """A cache of charts by version; threads share it. A version never changes, so no entry ever goes stale.

    The charts used last are kept, up to `max_states` states in all. `rosters` keeps what was looked up in rosters,
    whose versions never change, either.
    """

    def __init__(self, max_states: int = 200_000) -> None:
        # A chart larger than the whole cache counts as `max_states`, so that it is kept too, alone.
        self._charts: LRUCache[DefinitionKey, Chart] = LRUCache(
            max_states, getsizeof=lambda chart: min(len(chart.states), max_states)
        )
        self.rosters = RosterCache()
        # Reading needs the lock as well: an LRUCache changes its order when it is read.
        self._lock = threading.Lock()

    def get(self, connection: Connection, row: store.charts.ChartRow) -> Chart:
        """Return the definition of the chart's current version."""
        return self.get_version(connection, row, row.version)

    def get_all(self, connection: Connection, rows: Sequence[store.charts.ChartRow]) -> list[Chart]:
        """Return the definition of each chart's current version; those that must be read are read together."""
        keys = [self._key(connection, row, row.version) for row in rows]
        with self._lock:
            missing = {
                (row.id, row.version): row.name for row, key in zip(rows, keys, strict=True) if key not in self._charts
            }
        if len(missing) > 1:
            found = store.definitions.load_charts(connection, missing)
            with self._lock:
                for row, key in zip(rows, keys, strict=True):
                    chart = found.get((row.id, row.version))
                    if chart is not None:
                        self._charts.setdefault(key, chart)
        return [self.get(connection, row) for row in rows]

    def get_version(self, connection: Connection, row: store.charts.ChartRow, version: int) -> Chart:
        """Return one of the chart's definitions. Raises VersionNotFoundError."""
        key = self._key(connection, row, version)
        try:
            with self._lock:
                return self._charts[key]
        except KeyError:
            pass
        chart = store.definitions.load_chart(connection, row.id, row.name, version)
        with self._lock:
            # If two threads have read the same definition, both get the first one's.
            return self._charts.setdefault(key, chart)

    @staticmethod
    def _key(connection: Connection, row: store.charts.ChartRow, version: int) -> DefinitionKey:
        # If the database file is replaced by another one, the same chart ids mean other charts.
        return connection.info.get("identity"), row.id, row.created_at, version


# Called with a chart's name and a step that wrote log rows, once the step is committed.
AfterCommit = Callable[[str, Step], None]


@dataclass(slots=True, kw_only=True)
class Service:
    """The service at work, and the waiting requests of this process, which hear of every commit that moved a chart.

    `after_commit` is what a use case calls after its commit; waking the waiters of this process comes first.
    `webhook_hosts` are the receivers that may be sent to.
    """

    database: Database
    hub: Hub
    definitions: Definitions = field(default_factory=Definitions)
    events: CalendarEvents = field(default_factory=CalendarEvents)
    default_chart: str | None = None
    after_commit: tuple[AfterCommit, ...] = ()
    webhook_hosts: AllowedHosts = field(default_factory=AllowedHosts)

    def __post_init__(self) -> None:
        self.after_commit = (self._wake_waiters, *self.after_commit)

    def tell(self, chart: str, step: Step) -> None:
        """Call each of `after_commit` if `step` wrote log rows. The caller has committed the step.

        An error of one of them is logged: the step is committed, so the client gets its answer in any case.
        """
        if not step.entries:
            return
        for notify in self.after_commit:
            try:
                notify(chart, step)
            except Exception:
                logger.exception("after a commit on chart %r: %r failed", chart, notify)

    def _wake_waiters(self, chart: str, step: Step) -> None:
        if step.moves:
            self.hub.tell(chart)
        else:
            self.hub.tell_rows(chart)

    def know(self, connection: Connection, row: store.charts.ChartRow | None) -> Knowledge:
        """Return what is known of a chart's machines, as the caller's transaction sees them."""
        return Knowledge(self.definitions.rosters, connection, row)

    def read_now(self, connection: Connection) -> datetime:
        """Read the time by which a use case judges."""
        return self.now(store.charts.read_now(connection))

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
    now = service.now(read)
    positions = [
        _build_position(service, connection, row, chart, values=values[row.id], now=now)
        for row, chart in zip(rows, charts, strict=True)
    ]
    return positions, now


def _build_position(
    service: Service,
    connection: Connection,
    row: store.charts.ChartRow,
    chart: Chart,
    *,
    values: Mapping[str, int],
    now: datetime,
) -> Position:
    position = store.charts.build_position(row, values)
    if position.hours.calendars:
        hours = service.events.fill(connection, position.hours, position.entered_at, now)
        position = replace(position, hours=hours)
    state = chart.states[row.state]
    if state.slots is None:
        return position
    held = store.machines.read_held_slots(connection, row)
    succeeded, holder_reports = store.machines.read_slot_reports(connection, row, state.default_key)
    position = replace(position, slots=held, succeeded=succeeded, holder_reports=holder_reports)
    if not state.slots.per:
        return position
    failed = frozenset(store.machines.list_failed(connection, row))
    return regroup(chart, replace(position, failed=failed), service.know(connection, row))


# So many charts are read together: a statement takes a limited number of parameters.
TOGETHER = 500


def list_positions(
    service: Service, connection: Connection, names: Collection[str] | None = None
) -> tuple[list[tuple[store.charts.ChartRow, Chart, Position]], datetime]:
    """Return every chart that is not archived, with its definition and where it stands, by name; and the time.

    With `names` only those of them. The positions have no `holder_reports`, which only a decision needs.
    """
    now = service.read_now(connection)
    if names is None:
        rows = store.charts.list_charts(connection)
    else:
        rows = [row for some in _parts(sorted(names)) for row in store.charts.list_charts(connection, some)]
    return [item for some in _parts(rows) for item in _build_positions(service, connection, some, now)], now


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for first in range(0, len(items), TOGETHER):
        yield items[first : first + TOGETHER]


def _build_positions(
    service: Service, connection: Connection, rows: Sequence[store.charts.ChartRow], now: datetime
) -> list[tuple[store.charts.ChartRow, Chart, Position]]:
    charts = list(zip(rows, service.definitions.get_all(connection, rows), strict=True))
    values = store.charts.list_values(connection, [row.id for row in rows])
    states = {row.id: chart.states[row.state] for row, chart in charts}
    slotted = {chart_id: state.default_key for chart_id, state in states.items() if state.slots is not None}
    slots = store.machines.list_slots(connection, slotted)
    succeeded = store.machines.count_successes_of_charts(connection, slotted)
    found = []
    for row, chart in charts:
        position = store.charts.build_position(row, values.get(row.id, {}))
        hours = service.events.fill(connection, position.hours, position.entered_at, now)
        position = replace(position, slots=slots.get(row.id, {}), succeeded=succeeded.get(row.id, 0), hours=hours)
        found.append((row, chart, position))
    return found


def list_waiting(service: Service, row: store.charts.ChartRow, chart: Chart) -> list[str]:
    """Return the machines that wait for a slot of the chart in this process, the longest wait first.

    The list is empty in a state without slots.
    """
    if chart.states[row.state].slots is None:
        return []
    return service.hub.list_slot_waiters(row.name)


# Charts under their locks

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
        rule = self.chart.states[self.position.state].slots
        self.knowledge = self.knowledge.about(machines, [limit.label for limit in rule.per] if rule else [])

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


def locked_chart(
    service: Service, connection: Connection, row: store.charts.ChartRow, budget: Budget | None = None
) -> LockedChart:
    """Read what a decision on the chart with a locked `row` must know.

    `budget` is what the transaction has left, if it has held other charts before.
    """
    (held,) = locked_charts(service, connection, [row], budget)
    return held


def locked_charts(
    service: Service, connection: Connection, rows: Sequence[store.charts.ChartRow], budget: Budget | None = None
) -> list[LockedChart]:
    """As `locked_chart`, for several charts; each is judged at the same time."""
    charts = service.definitions.get_all(connection, rows)
    positions, now = read_positions(service, connection, rows, charts)
    budget = budget or Budget()
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


class ClaimAddresses:
    """From which addresses the slots of one chart are claimed, in one transaction."""

    def __init__(self, connection: Connection, chart: LockedChart) -> None:
        self._connection = connection
        self._chart = chart
        self._held = chart.position.slots
        # What this transaction has decided, which the log does not have yet.
        self._claimed: dict[str, str | None] = {}

    def find_other(self, claim: Claim, step: Step, address: str | None) -> str | None:
        """Return the address from which the machine claimed the slot that it now asked for from `address`, and log it.

        None if that is the same address, or is not known, or if the slot is a new one.
        """
        before = None
        if step.reason is Reason.REPLAY and address is not None:
            before = self._find(claim.machine)
        if step.reason in (Reason.UPDATED, Reason.REPLAY) and step.entries:
            self._claimed[claim.machine] = address
        if before is None or before == address:
            return None
        slot = f"chart {self._chart.row.name}: machine {claim.machine!r} has a slot of {claim.state}"
        machines_logger.warning(
            "%s, claimed from %s, and asks for it from %s: do two machines have this id?", slot, before, address
        )
        return before

    def _find(self, machine: str) -> str | None:
        if machine in self._claimed:
            return self._claimed[machine]
        slot = self._held.get(machine)
        return None if slot is None else store.log.find_claim_address(self._connection, self._chart.row, slot)
