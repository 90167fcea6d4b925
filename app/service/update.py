"""A machine says "I did", and time passes: the two ways a chart moves on by itself."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from app import store
from app.core import machine
from app.core.errors import ChartNotFoundError, ConflictError
from app.core.position import LoggedUpdate, Tick, Update
from app.db import asking, retrying, transaction
from app.service.answers import Answer, answer_step
from app.service.context import Service, read_position

# Charts one pass of the sweeper looks at; the rest follow in the next pass.
SWEEP_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Put:
    """What a machine says it did."""

    state: str
    machine: str | None = None
    key: str | None = None
    idempotency_key: str | None = None


@retrying
def update(service: Service, name: str, put: Put, author: store.Author) -> Answer:
    """Apply a PUT, in one transaction under the chart's row lock.

    Raises ChartNotFoundError, BadRequestError, KeyReusedError, ConflictError, DatabaseUnavailableError.
    """
    with transaction(service.database) as connection:
        row = store.lock_chart(connection, name)
        chart = service.definitions.get(connection, row)
        position, now = read_position(service, connection, row, chart)
        happening = _gather(service, connection, row, put)
        step = machine.step(chart, position, happening, now)
        after = store.record(connection, row, position, step, now, author, service.database.log_key)
    service.tell(name, step)
    return answer_step(row, after, put.state, step)


def _gather(service: Service, connection: Connection, row: store.ChartRow, put: Put) -> Update:
    """Read what the log and the reports already know of this PUT. The chart is locked."""
    was_entered, report = False, None
    if put.machine is not None:
        was_entered, report = store.find_standing_report(connection, row, put.state, put.machine)
    repeats = None
    if put.idempotency_key is not None:
        repeats = _find_repeated(service, connection, row, put.idempotency_key)
    return Update(put.state, put.machine, put.key, report, was_entered, repeats)


def _find_repeated(
    service: Service, connection: Connection, row: store.ChartRow, idempotency_key: str
) -> LoggedUpdate | None:
    logged = store.find_logged_key(connection, row.name, idempotency_key)
    if logged is None:
        return None
    # What a PUT without `key` meant is what the version of that time made of it.
    chart = service.definitions.get_version(connection, row, logged.version)
    return LoggedUpdate(logged.from_state, logged.machine, logged.key, chart.states[logged.from_state].default_key)


@retrying
def tick(service: Service, name: str) -> store.ChartRow:
    """Take the clock transitions of a chart that are due; return its row as it is then."""
    with transaction(service.database) as connection:
        row = store.lock_chart(connection, name)
        chart = service.definitions.get(connection, row)
        position, now = read_position(service, connection, row, chart)
        step = machine.step(chart, position, Tick(), now)
        after = store.record(connection, row, position, step, now, store.Author(), service.database.log_key)
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
