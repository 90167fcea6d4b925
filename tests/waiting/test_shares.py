"""One token holds at most half of the places for waiting requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from app.core.errors import TooManyWaitersError
from app.service.context import Service
from app.waiting.hub import Topic
from app.waiting.places import TOKENS, OwnPlaces, Places, SharedPlaces
from tests.service.support import opened_service


@pytest.fixture
def service(sqlite_url: str) -> Iterator[Service]:
    with opened_service(sqlite_url) as service:
        yield service


def places_of_a_server() -> list[Places]:
    """Two workers, in memory that they share."""
    shared = SharedPlaces()
    return [shared.own(1), shared.own(2)]


@pytest.mark.parametrize("limit", [1, 2, 9, 10])
def test_token_holds_half_of_the_places_of_all_workers(limit: int) -> None:
    half = (limit + 1) // 2
    for first, second in (places_of_a_server(), [OwnPlaces()] * 2):
        taken = [places.take(limit, 7) for _ in range(limit) for places in (first, second)]
        assert taken.count(True) == half
        # Another token, and a request without one, have the rest.
        assert [second.take(limit, 8) for _ in range(limit)].count(True) == limit - half
        assert not first.take(limit)


def test_place_that_is_given_back_is_free_for_its_token() -> None:
    for first, second in (places_of_a_server(), [OwnPlaces()] * 2):
        assert [first.take(4, 7), second.take(4, 7), second.take(4, 7)] == [True, True, False]
        first.give_back(7)
        assert second.take(4, 7)
        assert first.total() == 2


def test_token_of_a_dead_worker_holds_nothing() -> None:
    shared = SharedPlaces()
    dead, alive = shared.own(1), shared.own(2)
    assert [dead.take(4, 7), dead.take(4, 7), alive.take(4, 7)] == [True, True, False]
    dead.clear()
    assert (alive.total(), alive.take(4, 7), alive.take(4, TOKENS + 7), alive.take(4, 7)) == (0, True, True, False)


def test_refusal_says_that_the_token_holds_half(service: Service) -> None:
    async def wait() -> None:
        with ExitStack() as stack:
            for _ in range(1000):
                stack.enter_context(service.hub.waiting(Topic("web"), token=7))
            with pytest.raises(TooManyWaitersError, match="this token holds half"):
                stack.enter_context(service.hub.waiting(Topic("web"), token=7))
            stack.enter_context(service.hub.waiting(Topic("web"), token=8))

    asyncio.run(wait())
