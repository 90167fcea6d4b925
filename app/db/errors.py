"""What a database's errors mean to a caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.core.errors import DatabaseUnavailableError
from app.db.sqlite import is_spoilt

# A failed transaction that may simply be tried again: serialization failure, deadlock, unique violation (two
# imports of one new chart), and the server's own shutdowns.
_RETRYABLE = {"40001", "40P01", "23505", "57P01", "57P02", "57P03"}
# A schema that is not there: the database was never migrated, or is being migrated.
_NOT_MIGRATED = {"42P01", "42703"}
# A lock was not free within lock_timeout.
_LOCKED = "55P03"
# A role that may not: `db prune` wants the owner of the tables.
_NOT_ALLOWED = {"42501"}


class RetryableError(DatabaseUnavailableError):
    """The transaction certainly did nothing and may be tried again at once."""


def wrap(engine: Engine, error: Any, driver: Any) -> DBAPIError:
    """Return a driver's error as SQLAlchemy raises it; it says whether the connection `driver` is of no more use."""
    dialect = engine.dialect
    is_lost = dialect.is_disconnect(error, driver, None) or is_spoilt(error)
    base = dialect.loaded_dbapi.Error
    wrapped = DBAPIError.instance(None, None, error, base, connection_invalidated=is_lost, dialect=dialect)
    assert isinstance(wrapped, DBAPIError)  # it was given a driver's error
    return wrapped


@contextmanager
def errors_translated() -> Iterator[None]:
    """Raise the driver's errors as this service's own (see `translate`)."""
    try:
        yield
    except PoolTimeoutError:
        raise DatabaseUnavailableError("every database connection is in use") from None
    except DBAPIError as error:
        raise translate(error) from error


def translate(error: DBAPIError) -> Exception:
    """Return what `error` means to a caller; an error that is this service's own fault is returned as it is."""
    state = getattr(error.orig, "sqlstate", None)
    message = first_line(error)
    if error.connection_invalidated or state in _RETRYABLE or "UNIQUE constraint failed" in message:
        return RetryableError(message)
    if isinstance(error, IntegrityError) or (
        isinstance(error, ProgrammingError) and state not in _NOT_MIGRATED | _NOT_ALLOWED
    ):
        return error
    if state == _LOCKED:
        message = f"somebody else holds a lock for too long: {message}"
    return DatabaseUnavailableError(message)


def first_line(error: DBAPIError) -> str:
    """Return what the database said, without the lines that follow."""
    return (str(error.orig).strip().splitlines() or ["the database failed"])[0]
