"""The one place that commits: the end of the block commits, an error rolls back, readers see one moment."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import insert, text

from app.core.errors import DatabaseUnavailableError
from app.db import asking, retrying, snapshot, transaction
from app.models import tokens
from app.service.context import Service
from tests.core.support import NOON
from tests.service.support import query


def add(service: Service, name: str) -> None:
    with transaction(service.database) as connection:
        insert_token(connection, name)


def insert_token(connection: object, name: str) -> None:
    row = {"name": name, "sha256": name, "role": "reader", "pattern": "*", "created_at": NOON}
    connection.execute(insert(tokens), row)  # type: ignore[attr-defined]


def add_and_raise(service: Service, error: type[BaseException]) -> None:
    with transaction(service.database) as connection:
        insert_token(connection, "a")
        raise error("why")


def names(service: Service) -> list[str]:
    return [name for (name,) in query(service, "SELECT name FROM tokens ORDER BY name")]


def test_end_of_the_block_commits(service: Service) -> None:
    add(service, "a")
    assert names(service) == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, DatabaseUnavailableError])
def test_error_rolls_back_and_goes_on(service: Service, error: type[BaseException]) -> None:
    with pytest.raises(error):
        add_and_raise(service, error)
    assert names(service) == []
    add(service, "b")
    assert names(service) == ["b"]


def test_nobody_sees_what_is_not_committed(service: Service) -> None:
    with transaction(service.database) as connection:
        insert_token(connection, "a")
        seen: list[list[str]] = []
        reader = threading.Thread(target=lambda: seen.append(names(service)))
        reader.start()
        reader.join()
    assert (seen, names(service)) == ([[]], ["a"])


def test_snapshot_sees_one_moment(service: Service) -> None:
    with snapshot(service.database) as connection:
        count = text("SELECT count(*) FROM tokens")
        before = connection.execute(count).scalar_one()
        add(service, "a")
        assert (before, connection.execute(count).scalar_one()) == (0, 0)
    assert names(service) == ["a"]


def test_asking_sees_every_commit_and_holds_no_lock(service: Service) -> None:
    with asking(service.database) as connection:
        count = text("SELECT count(*) FROM tokens")
        assert connection.execute(count).scalar_one() == 0
        add(service, "a")
        assert connection.execute(count).scalar_one() == 1


def test_unique_violation_may_be_tried_again(service: Service) -> None:
    """Two who create the same thing: the second finds it there when it looks again."""
    tries: list[int] = []

    @retrying
    def create() -> None:
        tries.append(1)
        if len(tries) == 1:
            add(service, "a")
            add(service, "a")

    create()
    assert len(tries) == 2


def test_other_errors_are_not_tried_again(service: Service) -> None:
    tries: list[int] = []

    @retrying
    def fail() -> None:
        tries.append(1)
        raise DatabaseUnavailableError("away")

    with pytest.raises(DatabaseUnavailableError, match="away"):
        fail()
    assert len(tries) == 1
