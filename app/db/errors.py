"""Turns the databases' errors into this service's own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.core.errors import DatabaseUnavailableError
from app.db.postgresql import is_stale
from app.db.sqlite import is_unusable, name_file

# After these errors the transaction may be tried again: serialization failure, deadlock, unique violation (two imports
# of the same new chart), a shutdown of the server, and a session that is read-only, since another may not be.
_RETRYABLE = {"40001", "40P01", "23505", "57P01", "57P02", "57P03", "25006"}
# A table or a column is missing: the database was never migrated, or is being migrated.
_NOT_MIGRATED = {"42P01", "42703"}
# A lock was not free within lock_timeout.
_LOCKED = "55P03"
# The database role may not do this: `db prune` needs the owner of the tables.
_NOT_ALLOWED = {"42501"}
# What `translate` turns into this service's errors.
TRANSLATED = (DBAPIError, PoolTimeoutError)


def library_errors() -> tuple[type[Exception], ...]:
    """Return what the databases' libraries and the system raise beside the errors that this module translates."""
    # Alembic takes a tenth of a second to import, and few processes migrate.
    from alembic.util import CommandError

    return SQLAlchemyError, CommandError, psycopg.Error, sqlite3.Error, OSError


def in_one_line(error: Exception) -> str:
    """Return what an error of a library or of the system says, as one line that names the file, if there is one."""
    if isinstance(error, DBAPIError):
        return first_line(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class RetryableError(DatabaseUnavailableError):
    """The transaction has certainly changed nothing, and may be tried again at once."""


def wrap(engine: Engine, error: Any, driver: Any) -> DBAPIError:
    """Return a driver's error in the form in which SQLAlchemy raises it.

    Its `connection_invalidated` says whether the connection `driver` cannot be used any longer.
    """
    dialect = engine.dialect
    name_file(error, engine.url.database)
    is_lost = dialect.is_disconnect(error, driver, None) or is_unusable(error) or is_stale(error, driver)
    base = dialect.loaded_dbapi.Error
    wrapped = DBAPIError.instance(None, None, error, base, connection_invalidated=is_lost, dialect=dialect)
    assert isinstance(wrapped, DBAPIError)  # as for every error of the driver
    return wrapped


@contextmanager
def errors_translated() -> Iterator[None]:
    """Raise the database's errors inside the block as this service's own (see `translate`)."""
    try:
        yield
    except TRANSLATED as error:
        raise translate(error) from error


def translate(error: DBAPIError | PoolTimeoutError) -> Exception:
    """Return this service's error for `error`; an error that a fault in the code causes is returned unchanged."""
    if isinstance(error, PoolTimeoutError):
        return DatabaseUnavailableError("every database connection is in use")
    state = getattr(error.orig, "sqlstate", None)
    message = first_line(error)
    if error.connection_invalidated or state in _RETRYABLE or "UNIQUE constraint failed" in message:
        return RetryableError(message)
    if isinstance(error, IntegrityError) or (
        isinstance(error, ProgrammingError) and state not in _NOT_MIGRATED | _NOT_ALLOWED
    ):
        return error
    if state == _LOCKED:
        message = f"another session holds a lock for too long: {message}"
    return DatabaseUnavailableError(message)


def first_line(error: DBAPIError) -> str:
    """Return the first line of the database's message."""
    return (str(error.orig).strip().splitlines() or ["the database failed"])[0]
