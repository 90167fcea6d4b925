"""A machine says "I did", and time passes: the two ways a chart moves on by itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from functools import partial
from typing import Any

from app import store
from app.core.chart import Chart
from app.core.errors import ChartNotFoundError, ConflictError
from app.core.log import Author
from app.core.position import CLOCK_KINDS, LoggedUpdate, Reason, Report, Step, Tick, Update, Verdict
from app.db import Connection, asking, retrying, transaction
from app.service.batching import Ticket
from app.service.context import Service
from app.service.locked import Held, hold, hold_rows, record, record_all
from app.service.metrics import lock_is_held


@dataclass(frozen=True, slots=True)
class SlotCount:
    """How many slots the state has, how many are held, and the fencing number of the one asked about, if held."""

    slots: int
    held: int
    fence: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Yes or no, and everything there is to say about it.

    `run` and `visit` are those in which the question was judged; `seq` is the chart's last log row that the answer
    reflects, for an accepted PUT its own row.
    """

    chart: str
    run: int
    visit: int
    seq: int
    state: str
    current_state: str
    is_yes: bool
    reason: Reason
    key: str | None = None
    value: int | None = None
    slots: SlotCount | None = None

    def as_json(self) -> dict[str, Any]:
        """The answer as the HTTP interface gives it to whoever accepts JSON."""
        fields = asdict(self)
        is_yes, slots = fields.pop("is_yes"), fields.pop("slots")
        return {**fields, **(slots or {}), "answer": "yes" if is_yes else "no", "replay": self.reason is Reason.REPLAY}


def answer_step(chart: str, seq: int, state: str, step: Step) -> Answer:
    """The answer that a decided PUT comes to, `seq` being the chart's last log row before it."""
    here = step.position
    run, visit, last_seq = here.run, here.visit, seq + len(step.entries)
    if step.reason in (Reason.UPDATED, Reason.TRANSITIONED):
        offset, entry = next(item for item in enumerate(step.entries, 1) if item[1].kind not in CLOCK_KINDS)
        run, visit, last_seq = entry.run, entry.visit, seq + offset
    is_yes = step.verdict is Verdict.ACCEPTED
    return Answer(chart, run, visit, last_seq, state, here.state, is_yes, step.reason, step.key, step.value)


@dataclass(frozen=True, slots=True)
class Put:
    """What a machine says it did."""

    state: str
    machine: str | None = None
    key: str | None = None
    idempotency_key: str | None = None


class Standing:
    """Read once for all PUTs of a transaction, under the chart's lock, and kept up with each step decided."""

    def __init__(
        self, service: Service, connection: Connection, row: store.charts.ChartRow, puts: Sequence[Put]
    ) -> None:
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
        return Update(
            state=put.state,
            machine=put.machine,
            key=put.key,
            report=report,
            was_entered=visit is not None,
            repeats=repeats,
        )

    def note(self, chart: Chart, put: Put, step: Step) -> None:
        """Take in what `step` decided on `put`, for those that come after it."""
        self._visits.update((visit.state, visit.visit) for visit in step.visits)
        self._reports.update(((report.visit, report.machine), report) for report in step.reports)
        if put.idempotency_key is not None and step.reason in (Reason.UPDATED, Reason.TRANSITIONED):
            entry = next(item for item in step.entries if item.kind not in CLOCK_KINDS)
            default_key = chart.states[entry.from_state].default_key
            self._keys[put.idempotency_key] = LoggedUpdate(entry.from_state, entry.machine, entry.key, default_key)

    def _read_reports(self, connection: Connection, row: store.charts.ChartRow, puts: Sequence[Put]) -> None:
        named = [put for put in puts if put.machine is not None]
        if not named:
            return
        others = {put.state for put in named} - {row.state}
        if others:
            self._visits.update(store.machines.list_latest_visits(connection, row, others))
        machines = {put.machine for put in named if put.machine is not None}
        for report in store.machines.find_reports(connection, row, set(self._visits.values()), machines):
            self._reports[report.visit, report.machine] = report

    def _read_keys(
        self, service: Service, connection: Connection, row: store.charts.ChartRow, puts: Sequence[Put]
    ) -> None:
        keys = {put.idempotency_key for put in puts if put.idempotency_key is not None}
        if not keys:
            return
        for logged in store.log.list_logged_keys(connection, row.name, keys):
            # What a PUT without `key` meant is what the version of that time made of it.
            chart = service.definitions.get_version(connection, row, logged.version)
            default_key = chart.states[logged.from_state].default_key
            update = LoggedUpdate(logged.from_state, logged.machine, logged.key, default_key)
            self._keys[str(logged.idempotency_key)] = update


# Charts one pass of the sweeper looks at; the rest follow in the next pass.
SWEEP_LIMIT = 500
# For so long after a chart was found locked, PUTs on it do not try to share a transaction with those on others.
CROWDED_SECONDS = 0.25
# The turn of PUTs on whichever chart; no chart has this name.
_ANY_CHART = ""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A PUT, to which chart, and from whom."""

    chart: str
    put: Put
    author: Author


class _Elsewhere(Enum):
    """What a PUT comes to that is to be answered in another transaction."""

    LOCKED = "somebody else has locked its chart"


_Ticket = Ticket[_Sent, Answer | _Elsewhere]


def update(service: Service, name: str, put: Put, author: Author) -> Answer:
    """Apply a PUT under the chart's row lock, in one transaction with others that came meanwhile.

    Each PUT is judged alone, in the order in which they came, and has its own log row and answer. A transaction for
    several charts waits for none of their locks; who must wait does it with others for the same chart.
    Raises ChartNotFoundError, BadRequestError, KeyReusedError, ConflictError, DatabaseUnavailableError.
    """
    sent = _Sent(name, put, author)
    if service.database.is_sqlite:
        # One lock for all charts, which the transaction begins with.
        return _request(service, _ANY_CHART, sent)
    if service.turns.is_asked(name) or _is_crowded(service, name):
        return _request(service, name, sent)
    shared: Answer | _Elsewhere = service.turns.request(_ANY_CHART, sent, partial(apply_all, service, skip_locked=True))
    if shared is not _Elsewhere.LOCKED:
        return shared
    answer = _request(service, name, sent)
    service.crowded[name] = time.monotonic()
    return answer


def _is_crowded(service: Service, name: str) -> bool:
    """True where other workers' PUTs on the chart are likely to have it locked."""
    since = service.crowded.get(name)
    if since is None or time.monotonic() - since < CROWDED_SECONDS:
        return since is not None
    service.crowded.pop(name, None)
    return False


def _request(service: Service, key: str, sent: _Sent) -> Answer:
    answer: Answer = service.turns.request(key, sent, partial(apply_all, service))
    return answer


@retrying
def apply_all(service: Service, tickets: Sequence[_Ticket], *, skip_locked: bool = False) -> None:
    """Answer every ticket, in one transaction; with `skip_locked` only those whose chart's lock is free."""
    asked_at = time.perf_counter()
    found = _by_chart(tickets)
    with transaction(service.database) as connection:
        rows = _lock(connection, found, skip_locked)
        if not rows:
            return
        lock_is_held(asked_at)
        helds = hold_rows(service, connection, rows)
        for held in helds:
            _judge_all(service, connection, held, found[held.row.name])
        record_all(service, connection, helds)
    for held in helds:
        for step in held.steps:
            service.tell(held.row.name, step)


def _by_chart(tickets: Sequence[_Ticket]) -> dict[str, list[_Ticket]]:
    found: dict[str, list[_Ticket]] = {}
    for ticket in tickets:
        found.setdefault(ticket.asked.chart, []).append(ticket)
    return found


def _lock(
    connection: Connection, found: Mapping[str, Sequence[_Ticket]], skip_locked: bool
) -> list[store.charts.ChartRow]:
    """Lock the charts that can be had, and answer the tickets of the others."""
    lock = store.charts.lock_free_charts if skip_locked else store.charts.lock_charts
    rows = lock(connection, found)
    for name in found.keys() - {row.name for row in rows}:
        for ticket in found[name]:
            ticket.settle(_send_elsewhere if skip_locked else _raise_not_found)
    return rows


def _send_elsewhere(sent: _Sent) -> _Elsewhere:
    return _Elsewhere.LOCKED


def _raise_not_found(sent: _Sent) -> Answer:
    raise ChartNotFoundError(sent.chart)


def _judge_all(service: Service, connection: Connection, held: Held, tickets: Sequence[_Ticket]) -> None:
    standing = Standing(service, connection, held.row, [ticket.asked.put for ticket in tickets])
    for ticket in tickets:
        ticket.settle(partial(_judge, held, standing))


def _judge(held: Held, standing: Standing, sent: _Sent) -> Answer:
    seq = held.seq
    step = held.decide(standing.gather(sent.put), sent.author)
    standing.note(held.chart, sent.put, step)
    return answer_step(sent.chart, seq, sent.put.state, step)


@retrying
def tick(service: Service, name: str) -> store.charts.ChartRow:
    """Take the clock transitions of a chart that are due; return its row as it is then."""
    with transaction(service.database) as connection:
        held = hold(service, connection, name)
        step = held.decide(Tick())
        after = record(service, connection, held)
    service.tell(name, step)
    return after


def sweep(service: Service) -> int:
    """Move on every chart whose clock has something to do; return how many there were.

    A chart that cannot be moved keeps no other from its turn: its error is raised after the last.
    """
    failures: list[ConflictError] = []
    with asking(service.database) as connection:
        due = store.charts.list_due_charts(connection, service.now(store.charts.read_now(connection)), SWEEP_LIMIT)
    for name in due:
        try:
            tick(service, name)
        except ChartNotFoundError:
            pass  # archived since
        except ConflictError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return len(due)
