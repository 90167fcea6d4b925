"""A machine says "I did", and time passes: the two ways a chart moves on by itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from app import store
from app.core.errors import ChartNotFoundError, ConflictError
from app.core.position import Step, Tick
from app.db import Connection, asking, retrying, transaction
from app.service.answers import Answer, answer_step
from app.service.context import Service
from app.service.held import Held, hold
from app.service.metrics import lock_is_held
from app.service.standing import Put, Standing
from app.service.turns import Ticket

__all__ = ["Put", "sweep", "tick", "update"]

# Charts one pass of the sweeper looks at; the rest follow in the next pass.
SWEEP_LIMIT = 500


@dataclass(frozen=True, slots=True)
class _Sent:
    """A PUT, to which chart, and from whom."""

    chart: str
    put: Put
    author: store.Author


def update(service: Service, name: str, put: Put, author: store.Author) -> Answer:
    """Apply a PUT under the chart's row lock, in one transaction with whatever else waits for that lock here.

    Each PUT is judged alone, in the order in which they came, and has its own log row and answer.
    Raises ChartNotFoundError, BadRequestError, KeyReusedError, ConflictError, DatabaseUnavailableError.
    """
    # SQLite has one lock for all charts.
    lock = "" if service.database.is_sqlite else name
    answer: Answer = service.turns.request(lock, _Sent(name, put, author), partial(apply_all, service))
    return answer


@retrying
def apply_all(service: Service, tickets: Sequence[Ticket[_Sent, Answer]]) -> None:
    """Answer every ticket, in one transaction."""
    asked_at = time.perf_counter()
    with transaction(service.database) as connection:
        decided = {
            name: _apply(service, connection, name, found, asked_at) for name, found in _by_chart(tickets).items()
        }
    for name, steps in decided.items():
        for step in steps:
            service.tell(name, step)


def _by_chart(tickets: Sequence[Ticket[_Sent, Answer]]) -> dict[str, list[Ticket[_Sent, Answer]]]:
    # In the order of their names, as whoever takes several row locks must.
    found: dict[str, list[Ticket[_Sent, Answer]]] = {}
    for ticket in sorted(tickets, key=lambda item: item.asked.chart):
        found.setdefault(ticket.asked.chart, []).append(ticket)
    return found


def _apply(
    service: Service, connection: Connection, name: str, tickets: Sequence[Ticket[_Sent, Answer]], asked_at: float
) -> list[Step]:
    try:
        row = store.lock_chart(connection, name)
        lock_is_held(asked_at)
    except ChartNotFoundError as error:
        for ticket in tickets:
            ticket.error = error
        return []
    held = Held(service, connection, row)
    standing = Standing(service, connection, row, [ticket.asked.put for ticket in tickets])
    for ticket in tickets:
        ticket.settle(partial(_judge, held, standing))
    held.record()
    return held.steps


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
        after = held.record()
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
