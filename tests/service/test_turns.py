"""PUTs that share a transaction share neither their errors nor an answer that was not committed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from app.core.errors import DatabaseUnavailableError
from app.service.batching import Ticket, Turns
from tests.support.servers import until

Work = Callable[[Sequence[Ticket[str, str]]], None]


def answer_all(tickets: Sequence[Ticket[str, str]]) -> None:
    for ticket in tickets:
        ticket.answer = ticket.asked.upper()


def shared(run: Work, *asked: str) -> list[Future[str]]:
    """Ask all of these in one batch: they gather behind a first one that is held until the others are there."""
    turns: Turns[str, str] = Turns()
    gathered = threading.Event()

    def held(tickets: list[Ticket[str, str]]) -> None:
        if tickets[0].asked == "first":
            gathered.wait(10)
            answer_all(tickets)
        else:
            run(tickets)

    with ThreadPoolExecutor(len(asked) + 1) as callers:
        first = callers.submit(turns.request, "c", "first", held)
        until(lambda: "c" in turns._waiting, "the first leads")
        futures = []
        for number, one in enumerate(asked, 1):
            futures.append(callers.submit(turns.request, "c", one, held))
            until(lambda number=number: len(turns._waiting["c"]) == number, "it waits")  # type: ignore[misc]
        gathered.set()
    assert first.result() == "FIRST"
    return futures


def outcome(future: Future[str]) -> Any:
    error = future.exception()
    if isinstance(error, DatabaseUnavailableError):
        return error.outcome
    return type(error) if error is not None else future.result()


def test_batch_is_answered_in_the_order_in_which_it_came() -> None:
    seen: list[str] = []

    def run(tickets: Sequence[Ticket[str, str]]) -> None:
        seen.extend(ticket.asked for ticket in tickets)
        answer_all(tickets)

    assert [outcome(future) for future in shared(run, "a", "b", "c")] == ["A", "B", "C"]
    assert seen == ["a", "b", "c"]


def test_unknown_commit_is_unknown_to_all_whom_it_held() -> None:
    def run(tickets: Sequence[Ticket[str, str]]) -> None:
        answer_all(tickets)
        raise DatabaseUnavailableError("lost", "unknown")

    assert [outcome(future) for future in shared(run, "a", "b")] == ["unknown"] * 2


def test_fault_of_one_is_its_own() -> None:
    def run(tickets: Sequence[Ticket[str, str]]) -> None:
        if any(ticket.asked == "bad" for ticket in tickets):
            raise ZeroDivisionError
        answer_all(tickets)

    assert [outcome(future) for future in shared(run, "a", "bad", "c")] == ["A", ZeroDivisionError, "C"]


def test_committed_one_keeps_its_answer_when_the_database_fails_for_the_next() -> None:
    def run(tickets: Sequence[Ticket[str, str]]) -> None:
        if len(tickets) > 1:
            raise ZeroDivisionError
        if tickets[0].asked == "lost":
            raise DatabaseUnavailableError("lost", "unknown")
        answer_all(tickets)

    assert [outcome(future) for future in shared(run, "a", "lost", "c")] == ["A", "unknown", "not_applied"]


def test_nobody_hears_a_yes_when_the_leader_is_interrupted_before_the_commit() -> None:
    def run(tickets: Sequence[Ticket[str, str]]) -> None:
        answer_all(tickets)
        raise SystemExit

    leader, *others = [future.exception() for future in shared(run, "a", "b", "c")]
    assert isinstance(leader, SystemExit)
    assert [getattr(error, "outcome", None) for error in others] == ["unknown"] * 2


@pytest.mark.parametrize("count", [1, 65, 200])
def test_all_are_answered_when_there_are_many(count: int) -> None:
    sizes: list[int] = []

    def run(tickets: Sequence[Ticket[str, str]]) -> None:
        sizes.append(len(tickets))
        answer_all(tickets)

    names = [f"m{number}" for number in range(count)]
    assert [outcome(future) for future in shared(run, *names)] == [name.upper() for name in names]
    assert max(sizes) <= 64
    assert sum(sizes) == count
