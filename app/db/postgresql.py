"""PostgreSQL's sessions: how one is opened and set up, and how long this service waits for a server that is silent.

PostgreSQL's own time limits hold only while the server runs. A server whose process is stopped, or a network that
drops packets, does not even report that a limit has passed. So the client side has limits of its own.
"""

from __future__ import annotations

import math
import os
import select
import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout  # psycopg's waits raise it, and psycopg itself catches it there
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DisconnectionError

# The name of this service's sessions in pg_stat_activity.
APPLICATION_NAME = "stateservice"

# How long a new connection may take. With several hosts it is the limit per host; 2 s is the minimum libpq accepts.
CONNECT_SECONDS = 3
CONNECT_SECONDS_A_HOST = 2
# PostgreSQL applies this limit twice to a wait for a row: to the wait for a place in the row's queue, and to the wait
# for the row itself.
LOCK_SECONDS = 1.5
STATEMENT_SECONDS = 30.0

# A request must be done with its connection within this time; the wait for a connection from the pool counts, too.
ANSWER_SECONDS = 4.0
# Minimum timeout, even if the deadline has passed: a process that is busy must not give up a database that answers.
LEAST_SECONDS = 0.5
# Limit for each statement of reports and imports. It is longer than the server's own statement_timeout.
LONG_SECONDS = 35.0
# A session that says that the database is read-only is replaced at this age. A younger one is kept, so that the service
# does not open a new session for every request while the database stays read-only.
READ_ONLY_SECONDS = 0.5
RV = TypeVar("RV")

# What this service's answers depend on, whatever the role, the database or libpq's environment says. UTC: in some other
# time zones, an instant of the year 1 or 9999 falls into a year that Python cannot read. Of the messages that are no
# errors, the service needs one, a warning (see _is_unconfirmed).
SETTINGS = {
    "DateStyle": "ISO",
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",
    "client_min_messages": "warning",
}
# A session keeps the plans of its statements. PostgreSQL takes a table for small that is new, or where most charts have
# few rows; a plan from such a moment reads the whole table, or all rows of a chart, however many they have become. With
# these settings a plan takes an index, and for ORDER BY the index of this order. Before PostgreSQL 18 they make a plan
# without such an index look so expensive that `jit` would compile it.
PLANNING = {"enable_seqscan": "off", "enable_sort": "off", "jit": "off"}
# The settings among them that a server reports to its client. A pooler in transaction mode keeps their values apart for
# each of its clients.
REPORTED = ("DateStyle", "TimeZone", "standard_conforming_strings")
# A pooler may give each transaction to another session, so this setting goes with the transaction.
SET_IN_TRANSACTION = f"; SET LOCAL client_min_messages = {SETTINGS['client_min_messages']}"


def connect_arguments(url: URL, *, pooler: bool, lock_seconds: float) -> dict[str, Any]:
    """Return what psycopg needs to open a session of this service; `lock_seconds` limits the wait for a lock.

    A `pooler` in transaction mode takes neither prepared statements nor `options`, so it gets none. The URL's own
    `connect_timeout` and `application_name` stay; so do its `options`, or else those of the variable PGOPTIONS.
    """
    seconds = CONNECT_SECONDS_A_HOST if _has_several_hosts(url) else CONNECT_SECONDS
    defaults = {"application_name": APPLICATION_NAME, "connect_timeout": seconds}
    arguments = {name: value for name, value in defaults.items() if name not in url.query}
    arguments["client_encoding"] = "UTF8"
    if pooler:
        return {**arguments, "prepare_threshold": None}
    limits = {
        "lock_timeout": min(lock_seconds, LOCK_SECONDS),
        "statement_timeout": STATEMENT_SECONDS,
        "idle_in_transaction_session_timeout": STATEMENT_SECONDS,
    }
    settings = SETTINGS | PLANNING | {key: str(int(value * 1000)) for key, value in limits.items()}
    # PostgreSQL takes the last value of a setting that is given twice.
    parts = [*_given_options(url), *(f"-c {key}={value}" for key, value in settings.items())]
    return {**arguments, "options": " ".join(parts)}


def _given_options(url: URL) -> tuple[str, ...]:
    given = url.query.get("options", os.environ.get("PGOPTIONS", ""))
    return (given,) if isinstance(given, str) else given


def _has_several_hosts(url: URL) -> bool:
    hosts = url.query.get("host", ())
    return "," in hosts or (not isinstance(hosts, str) and len(hosts) > 1)


class PatientConnection(psycopg.Connection[Any]):
    """A connection that limits every wait for the server, and is closed if a wait reaches its limit."""

    # When the present work must end, on the monotonic clock; None gives each statement LONG_SECONDS.
    deadline: float | None = None
    # When the session was opened, on the monotonic clock.
    opened = 0.0
    # SQL that is sent with each BEGIN.
    after_begin = ""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Run a psycopg operation. Raises OperationalError if the server does not answer in time."""
        limit = self._seconds_left()
        if timeout is not None and timeout < limit:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, None if limit == math.inf else limit)
        except _WaitTimeout:
            # The answer may still come, and the connection would take it for the answer to a later statement.
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the database has not answered for {limit:.1f} s") from None

    def _seconds_left(self) -> float:
        if self.deadline is None:
            return LONG_SECONDS
        return max(self.deadline - time.monotonic(), LEAST_SECONDS)


def connect_patiently(dialect: Any, record: Any, arguments: Any, options: Any) -> PatientConnection:
    """Open a connection, for SQLAlchemy's `do_connect`. SQLAlchemy's own first statements on it are limited, too.

    Raises OperationalError, also if the database's encoding is not UTF8.
    """
    try:
        connection: PatientConnection = PatientConnection.connect(*arguments, **options)
    except psycopg.OperationalError:
        raise
    except (psycopg.Error, OSError, ValueError) as error:
        # An option with a value that libpq cannot read, or a host name that cannot be one.
        raise psycopg.OperationalError(str(error)) from error
    connection.opened = time.monotonic()
    connection.deadline = connection.opened + LEAST_SECONDS
    if options.get("prepare_threshold", 0) is None:
        connection.after_begin = SET_IN_TRANSACTION
    try:
        _require_utf8(connection)
        _correct_settings(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_utf8(connection: PatientConnection) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in (None, "UTF8"):
        raise psycopg.OperationalError(
            f"the database must be UTF8, not {encoding}: create one with ENCODING 'UTF8' TEMPLATE template0"
        )


def _correct_settings(connection: PatientConnection) -> None:
    # PGTZ and PGDATESTYLE win over `options`, and a pooler takes no options.
    is_right = [(connection.info.parameter_status(name) or "").split(",")[0] == SETTINGS[name] for name in REPORTED]
    if not all(is_right):
        connection.autocommit = True
        connection.execute("; ".join(f"SET {name} = '{SETTINGS[name]}'" for name in REPORTED)).close()


def prepare_session(connection: PatientConnection, record: Any) -> None:
    """Set up a new connection, for SQLAlchemy's `connect`; the pool's record keeps its cursor and its notices."""
    # Autocommit: this service sends BEGIN itself, and a single SELECT needs no transaction.
    connection.autocommit = True
    # One cursor for all prepared statements: a new one costs as much as sending a short statement.
    record.info["cursor"] = psycopg.RawCursor(connection)

    def remember(diagnostic: psycopg.errors.Diagnostic) -> None:
        if _is_unconfirmed(diagnostic):
            record.info["notice"] = f"{diagnostic.sqlstate} {diagnostic.message_primary}"

    connection.add_notice_handler(remember)


def _is_unconfirmed(diagnostic: psycopg.errors.Diagnostic) -> bool:
    """True for the warning that the wait for the synchronous standby was cancelled; false for every other message."""
    # A server may translate the text (lc_messages), but not the name of the function that sends the warning.
    is_sender = diagnostic.source_function == "SyncRepWaitForLSN"
    has_text = "canceling wait for synchronous replication" in (diagnostic.message_primary or "")
    return diagnostic.sqlstate == "01000" and (is_sender or has_text)


def check_session(connection: PatientConnection, record: Any, proxy: Any) -> None:
    """Make the pool drop a connection that the server has closed, for SQLAlchemy's `checkout`.

    Raises DisconnectionError.
    """
    # Readable data on an idle connection means that the server has closed it, for a restart or by
    # pg_terminate_backend. This check needs no round trip.
    if connection.closed or _has_input(connection.fileno()):
        raise DisconnectionError("the database ended the session")
    connection.deadline = None


def is_stale(error: Any, driver: Any) -> bool:
    """True if an error says that no session as old as `driver` can be used any longer, though the server answers.

    A session may stay read-only for its whole life after the database is writable again: after a failover it is
    connected to the old primary, and the default of the database holds from the start of a session. A session's
    prepared statements are broken after the type of a column was changed.
    """
    if not isinstance(driver, PatientConnection):
        return False
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return time.monotonic() - driver.opened >= READ_ONLY_SECONDS
    return _is_broken_plan(error)


def _is_broken_plan(error: Any) -> bool:
    # Only the text and the function in the server tell this error from others of its SQLSTATE. A server may translate
    # the text.
    if not isinstance(error, psycopg.errors.FeatureNotSupported):
        return False
    return error.diag.source_function == "RevalidateCachedQuery" or "cached plan must not change result" in str(error)


def drop_stale(context: ExceptionContext) -> None:
    """Make the pool drop every session that is open if the error says so, for SQLAlchemy's `handle_error`."""
    connection = context.connection
    if connection is None or connection.closed or connection.invalidated:
        return
    if is_stale(context.original_exception, connection.connection.driver_connection):
        context.is_disconnect = True


def refuse_read_only(connection: PatientConnection) -> None:
    """Raise ReadOnlySqlTransaction, as a write would, if transactions of this session are read-only."""
    if connection.execute("SHOW transaction_read_only").fetchone() == ("on",):
        raise psycopg.errors.ReadOnlySqlTransaction("the database is read-only")


def _has_input(socket: int) -> bool:
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def set_deadline(driver: Any, deadline: float | None) -> None:
    """Set when the work on a driver's connection must end, on the monotonic clock.

    None gives each statement LONG_SECONDS, and `math.inf` sets no limit. On a connection to SQLite, which never hangs,
    this does nothing.
    """
    if isinstance(driver, PatientConnection):
        driver.deadline = deadline
