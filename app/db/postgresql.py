"""How long a database that says nothing is waited for.

PostgreSQL's own time limits hold only while it runs: a server that was stopped in its tracks, or a network that
swallows what is sent, does not even say that time is up.
"""

from __future__ import annotations

import math
import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout  # what psycopg's waits raise, and what it catches from them itself

# What is done with a connection for one request has this long, with the wait for a connection in it.
ANSWER_SECONDS = 4.0
# A statement that begins late still gets a moment: a busy process is no reason to give up a database that answers.
LEAST_SECONDS = 0.5
# Reports and imports: a statement may take this long, and more than the server's own statement_timeout.
LONG_SECONDS = 35.0
RV = TypeVar("RV")


class PatientConnection(psycopg.Connection[Any]):
    """A connection whose every wait for the server ends; one at whose end nothing had come is closed."""

    # On the monotonic clock, when what is being done must have ended; without one each statement has LONG_SECONDS.
    deadline: float | None = None

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Run a psycopg operation. Raises OperationalError where the server does not answer in time."""
        limit = self._patience()
        if timeout is not None and timeout < limit:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, None if limit == math.inf else limit)
        except _WaitTimeout:
            # Its answer may come yet, and would be taken for the answer to something else.
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the database has not answered for {limit:.1f} s") from None

    def _patience(self) -> float:
        if self.deadline is None:
            return LONG_SECONDS
        return max(self.deadline - time.monotonic(), LEAST_SECONDS)


def connect_patiently(dialect: Any, record: Any, arguments: Any, options: Any) -> PatientConnection:
    """Return a new connection, for SQLAlchemy's `do_connect`; what SQLAlchemy first asks of it has a limit, too."""
    connection: PatientConnection = PatientConnection.connect(*arguments, **options)
    connection.deadline = time.monotonic() + LEAST_SECONDS
    return connection


def set_deadline(driver: Any, deadline: float | None) -> None:
    """Have what is done with a driver's connection from now on end by `deadline`, on the monotonic clock.

    None gives each statement LONG_SECONDS, and `math.inf` sets no limit. SQLite never hangs, and is left alone.
    """
    if isinstance(driver, PatientConnection):
        driver.deadline = deadline
