"""What an operator does to a chart, each with a reason that the log keeps."""

from __future__ import annotations

from app import store
from app.core.errors import BadRequestError, ReasonRequiredError
from app.core.position import Archive, Evict, Goto, Happening, Pause, Reset, Resume
from app.db import retrying, transaction
from app.service.context import Service, list_missing, list_waiting
from app.service.held import hold, record
from app.service.status import Status, describe


@retrying
def act(service: Service, name: str, happening: Happening, author: store.Author) -> Status:
    """Do an operator's act in one transaction under the chart's row lock; return the chart's status after it.

    Raises ChartNotFoundError, BadRequestError, ConflictError.
    """
    with transaction(service.database) as connection:
        held = hold(service, connection, name)
        chart, now = held.chart, held.now
        step = held.decide(happening, author)
        after = record(service, connection, held)
        match happening:
            case Pause():
                after = store.set_pause(connection, after, author.actor or author.remote_addr, happening.reason)
            case Resume():
                after = store.set_pause(connection, after, None, None)
            case Archive():
                after = store.set_archived(connection, after, now)
        status = describe(
            chart,
            after,
            step.position,
            now,
            list_waiting(connection, after, chart, now),
            list_missing(connection, after, chart),
        )
    service.tell(name, step)
    return status


def pause(service: Service, name: str, reason: str, author: store.Author) -> Status:
    """Hold the chart: every question is answered no, and its clock stands still."""
    return act(service, name, Pause(_given(reason)), author)


def resume(service: Service, name: str, reason: str, author: store.Author) -> Status:
    """Let a paused chart go on, and judge its guards again."""
    return act(service, name, Resume(_given(reason)), author)


def reset(service: Service, name: str, reason: str, author: store.Author) -> Status:
    """Begin the next run, in the initial state."""
    return act(service, name, Reset(_given(reason)), author)


def goto(service: Service, name: str, state: str, reason: str, author: store.Author) -> Status:
    """Begin a visit of `state`, whatever the guards say."""
    return act(service, name, Goto(state, _given(reason)), author)


def archive(service: Service, name: str, reason: str, author: store.Author) -> Status:
    """Put the chart away: it answers no more, its log stays."""
    return act(service, name, Archive(_given(reason)), author)


def evict(service: Service, name: str, machine_id: str, reason: str, author: store.Author) -> Status:
    """Take a machine's slot away."""
    return act(service, name, Evict(machine_id, _given(reason)), author)


def _given(reason: str) -> str:
    text = reason.strip()
    if not text:
        raise ReasonRequiredError("a reason is required: the log keeps it")
    if not text.isprintable():
        # It is shown on terminals, as a line among others.
        raise BadRequestError("reason has characters that cannot be printed")
    return text
