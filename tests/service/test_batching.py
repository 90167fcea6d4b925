"""Requests share batches: none waits for its own turn, none answers for another, and none outlives its caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from app.core.errors import BadRequestError, DatabaseUnavailableError, StateServiceError
from app.service.machines import Batcher, ThreadPool


class Worked:
    """Works on batches as the database would: records each, and holds the first one until it is let go."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[str]]] = []
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        # Whether what gathers during the first batch joins it.
        self.joins = False
        self.pool = ThreadPool(2)
        self.batcher: Batcher[str, str] = Batcher(self.run, lambda key: self.pool, limit=3)

    def run(self, key: str, batch: Sequence[str], join: Callable[[], None]) -> list[str | StateServiceError]:
        place = len(self.batches)
        self.batches.append((key, list(batch)))
        if place == 0:
            self.has_begun.set()
            assert self.may_end.wait(20)
            if self.joins:
                join()
                self.batches[place] = (key, list(batch))
        if "away" in batch:
            raise DatabaseUnavailableError("away", "unknown")
        if "broken" in batch:
            raise RuntimeError("broken")
        return [BadRequestError(asked) if asked == "bad" else asked.upper() for asked in batch]

    async def begun(self) -> None:
        while not self.has_begun.is_set():
            await asyncio.sleep(0.005)

    async def ask_during_first(self, *asked: str, key: str = "k") -> list[str | BaseException]:
        """Ask "first"; ask the others while that is worked on; return the answers of the others."""
        first = asyncio.create_task(self.batcher.ask(key, "first"))
        await self.begun()
        others = [asyncio.create_task(self.batcher.ask(key, one)) for one in asked]
        await asyncio.sleep(0.02)
        self.may_end.set()
        found = await asyncio.gather(*others, return_exceptions=True)
        await asyncio.gather(first, return_exceptions=True)
        return found


@pytest.fixture
def worked() -> Iterator[Worked]:
    work = Worked()
    yield work
    work.may_end.set()
    work.pool.shutdown()


def test_requests_that_arrive_during_a_batch_share_the_next_one(worked: Worked) -> None:
    assert asyncio.run(worked.ask_during_first("a", "b")) == ["A", "B"]
    assert worked.batches == [("k", ["first"]), ("k", ["a", "b"])]


def test_batch_has_at_most_the_limit(worked: Worked) -> None:
    assert asyncio.run(worked.ask_during_first("a", "b", "c", "d")) == ["A", "B", "C", "D"]
    assert [batch for _, batch in worked.batches] == [["first"], ["a", "b", "c"], ["d"]]


def test_requests_that_join_a_batch_are_answered_with_it_up_to_the_limit(worked: Worked) -> None:
    worked.joins = True
    assert asyncio.run(worked.ask_during_first("a", "b", "c")) == ["A", "B", "C"]
    assert [batch for _, batch in worked.batches] == [["first", "a", "b"], ["c"]]


def test_batch_that_a_joined_request_breaks_is_run_again_one_by_one(worked: Worked) -> None:
    worked.joins = True
    a, broken = asyncio.run(worked.ask_during_first("a", "broken"))
    assert (a, str(broken)) == ("A", "broken")
    assert [batch for _, batch in worked.batches] == [["first", "a", "broken"], ["first"], ["a"], ["broken"]]


def test_joined_requests_fail_with_the_batch_that_the_database_failed(worked: Worked) -> None:
    worked.joins = True
    found = asyncio.run(worked.ask_during_first("a", "away"))
    assert [error.outcome for error in found if isinstance(error, DatabaseUnavailableError)] == ["unknown", "unknown"]
    assert len(worked.batches) == 1


def test_other_keys_do_not_wait(worked: Worked) -> None:
    async def ask() -> None:
        first = asyncio.create_task(worked.batcher.ask("k", "first"))
        await worked.begun()
        assert await worked.batcher.ask("other", "b") == "B"
        assert not first.done()
        worked.may_end.set()
        assert await first == "FIRST"
        assert not worked.batcher.is_busy("k")

    asyncio.run(ask())


def test_error_of_one_request_is_its_own(worked: Worked) -> None:
    good, bad = asyncio.run(worked.ask_during_first("a", "bad"))
    assert good == "A"
    assert isinstance(bad, BadRequestError)


def test_batch_that_one_request_breaks_is_run_again_one_by_one(worked: Worked) -> None:
    a, broken, b = asyncio.run(worked.ask_during_first("a", "broken", "b"))
    assert (a, b) == ("A", "B")
    assert isinstance(broken, RuntimeError)


def test_requests_that_waited_fail_with_the_batch_that_the_database_failed(worked: Worked) -> None:
    # "d" is beyond the limit: it was never begun.
    found = asyncio.run(worked.ask_during_first("a", "away", "b", "d"))
    assert [error.outcome for error in found if isinstance(error, DatabaseUnavailableError)] == [
        "unknown",
        "unknown",
        "unknown",
        "not_applied",
    ]
    assert len(worked.batches) == 2


@pytest.mark.parametrize("joins", [False, True])
def test_request_whose_caller_is_gone_is_not_begun(worked: Worked, joins: bool) -> None:
    worked.joins = joins

    async def ask() -> None:
        first = asyncio.create_task(worked.batcher.ask("k", "first"))
        await worked.begun()
        gone = asyncio.create_task(worked.batcher.ask("k", "gone"))
        stays = asyncio.create_task(worked.batcher.ask("k", "stays"))
        await asyncio.sleep(0.01)
        gone.cancel()
        worked.may_end.set()
        assert await stays == "STAYS"
        await first

    asyncio.run(ask())
    assert [asked for _, batch in worked.batches for asked in batch] == ["first", "stays"]


def test_pool_that_gets_no_further_thread_works_with_those_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPool(2) as pool:
        assert pool.submit(lambda: 1).result() == 1
        held = threading.Event()
        busy = pool.submit(held.wait, 20)
        monkeypatch.setattr(threading.Thread, "start", _no_thread)
        queued = pool.submit(lambda: 2)
        held.set()
        assert busy.result()
        assert queued.result() == 2


def test_pool_without_any_thread_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", _no_thread)
    pool = ThreadPool(1)
    with pytest.raises(DatabaseUnavailableError, match="no thread"):
        pool.submit(lambda: 1)


def _no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
