"""`transaction` commits at the end of its block and rolls back after an error; a snapshot sees one moment."""

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


def test_transaction_commits_at_the_end_of_the_block(service: Service) -> None:
    add(service, "a")
    assert names(service) == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, DatabaseUnavailableError])
def test_error_rolls_back_and_the_next_transaction_works(service: Service, error: type[BaseException]) -> None:
    with pytest.raises(error):
        add_and_raise(service, error)
    assert names(service) == []
    add(service, "b")
    assert names(service) == ["b"]


def test_readers_do_not_see_uncommitted_rows(service: Service) -> None:
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


def test_retrying_runs_again_after_a_unique_violation(service: Service) -> None:
    """If two callers create the same row, the second one finds the row when it is run again."""
    tries: list[int] = []

    @retrying
    def create() -> None:
        tries.append(1)
        if len(tries) == 1:
            add(service, "a")
            add(service, "a")

    create()
    assert len(tries) == 2


def test_retrying_does_not_run_again_after_other_errors(service: Service) -> None:
    tries: list[int] = []

    @retrying
    def fail() -> None:
        tries.append(1)
        raise DatabaseUnavailableError("away")

    with pytest.raises(DatabaseUnavailableError, match="away"):
        fail()
    assert len(tries) == 1
