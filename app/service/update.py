"""A machine says "I did", and time passes: the two ways a chart moves on by itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

from app import store
from app.core.errors import ChartNotFoundError, ConflictError
from app.core.position import Tick
from app.db import Connection, asking, retrying, transaction
from app.service.answers import Answer, answer_step
from app.service.context import Service
from app.service.held import Held, hold, hold_rows, record, record_all
from app.service.metrics import lock_is_held
from app.service.standing import Put, Standing
from app.service.turns import Ticket

__all__ = ["Put", "sweep", "tick", "update"]

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
    author: store.Author


class _Elsewhere(Enum):
    """What a PUT comes to that is to be answered in another transaction."""

    LOCKED = "somebody else has locked its chart"


_Ticket = Ticket[_Sent, Answer | _Elsewhere]


def update(service: Service, name: str, put: Put, author: store.Author) -> Answer:
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


def _lock(connection: Connection, found: Mapping[str, Sequence[_Ticket]], skip_locked: bool) -> list[store.ChartRow]:
    """Lock the charts that can be had, and answer the tickets of the others."""
    lock = store.lock_free_charts if skip_locked else store.lock_charts
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
def tick(service: Service, name: str) -> store.ChartRow:
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
        due = store.list_due_charts(connection, service.now(store.read_now(connection)), SWEEP_LIMIT)
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
