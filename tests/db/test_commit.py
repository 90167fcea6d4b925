"""What a COMMIT that failed says of its outcome."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from app import db
from app.core.errors import DatabaseUnavailableError

FAILURES: dict[str, tuple[Exception, bool, str]] = {
    "the connection broke": (psycopg.OperationalError("gone"), True, "unknown"),
    "the server was told to stop": (psycopg.errors.AdminShutdown("ending"), False, "unknown"),
    "the server crashed": (psycopg.errors.CrashShutdown("ending"), False, "unknown"),
    "the disk failed": (sqlite3.OperationalError("disk I/O error"), False, "unknown"),
    "the disk is full": (sqlite3.OperationalError("database or disk is full"), False, "not_applied"),
    "the database is busy": (sqlite3.OperationalError("database is locked"), False, "not_applied"),
    "it cannot be serialized": (psycopg.errors.SerializationFailure("conflict"), False, "not_applied"),
}


@pytest.mark.parametrize(("failure", "is_lost", "outcome"), FAILURES.values(), ids=FAILURES)
def test_outcome_of_a_failed_commit(failure: Exception, is_lost: bool, outcome: str) -> None:
    def commit() -> None:
        raise DBAPIError(None, None, failure, connection_invalidated=is_lost)

    connection: Any = SimpleNamespace(info={})
    with pytest.raises(DatabaseUnavailableError) as raised:
        db._commit(connection, commit)
    assert raised.value.outcome == outcome
