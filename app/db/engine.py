"""Engines for both databases: their URLs, their time limits, and what each new connection needs."""

from __future__ import annotations

import select
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection as CoreConnection
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError

from app.core.errors import SettingError
from app.db.postgresql import connect_patiently
from app.db.sqlite import BUSY_SECONDS, check_file, drop_spoilt, note_file, open_sqlite, require_sqlite

# Names this service's PostgreSQL sessions to whoever looks at pg_stat_activity.
APPLICATION_NAME = "stateservice"
# Where a database's URL comes from, for whoever gave a wrong one.
URL_SETTING = "the database URL (STATE_SERVICE_DATABASE_URL or --database)"

# How long one waits for a connection of the pool.
POOL_SECONDS = 1.0
# How long a new connection may take; each of several hosts is tried for as long as psycopg lets one choose at least.
CONNECT_SECONDS = 3
CONNECT_SECONDS_A_HOST = 2
# Who waits for a row on PostgreSQL waits twice, for a place in its queue and then for the row.
LOCK_SECONDS = 1.5
STATEMENT_SECONDS = 30.0

# SQLite has one lock for all charts, taken here; on PostgreSQL a chart's row is locked when it is read.
BEGIN_WRITING = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "BEGIN"}
BEGIN_SNAPSHOT = {"sqlite": "BEGIN", "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ"}


def normalize_url(url: str) -> URL:
    """Return `url` as this service uses it: PostgreSQL through psycopg 3, SQLite as an absolute file path."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingError(f"{URL_SETTING} cannot be read: {error}") from None
    except ValueError:
        # Not the error's text: what stands where the port should may be a part of the password.
        raise SettingError(f"{URL_SETTING} cannot be read: its port is no number") from None
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if not parsed.database or parsed.database == ":memory:":
            raise SettingError(f"{URL_SETTING} must name a file: sqlite:///path/to/state_service.db")
        # Every start and every command comes here before it touches the file.
        require_sqlite()
        return parsed.set(drivername="sqlite", database=str(Path(parsed.database).absolute()))
    raise SettingError(f"{URL_SETTING} must be sqlite or postgresql, not {parsed.drivername!r}")


def open_engine(
    url: str | URL,
    *,
    create: bool = False,
    pool_size: int = 10,
    pooler: bool = False,
    busy_seconds: float = BUSY_SECONDS,
) -> Engine:
    """Return an engine that has not connected yet.

    `create` lets SQLite make the file and its folder. `pooler` says that a transaction-mode pooler such as
    pgbouncer stands in between: no prepared statements and no session settings are sent, so the time limits must
    be set on the database role. `busy_seconds` is how long a statement waits for a lock.
    """
    options = engine_options(url, create=create, pool_size=pool_size, pooler=pooler, busy_seconds=busy_seconds)
    engine = create_engine(normalize_url(str_url(url)), **options)
    prepare_engine(engine)
    return engine


def str_url(url: str | URL) -> str:
    return url if isinstance(url, str) else url.render_as_string(hide_password=False)


def engine_options(
    url: str | URL,
    *,
    create: bool = False,
    pool_size: int = 10,
    pooler: bool = False,
    busy_seconds: float = BUSY_SECONDS,
) -> dict[str, Any]:
    """Return the keyword arguments that `create_engine` needs for `url`."""
    parsed = normalize_url(str_url(url))
    options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": POOL_SECONDS}
    if parsed.drivername == "sqlite":
        options["creator"] = partial(open_sqlite, parsed, create, busy_seconds)
        return options
    timeout = CONNECT_SECONDS_A_HOST if _has_several_hosts(parsed) else CONNECT_SECONDS
    options["connect_args"] = {"application_name": APPLICATION_NAME, "connect_timeout": timeout}
    if pooler:
        options["connect_args"]["prepare_threshold"] = None
    else:
        limits = {
            "lock_timeout": min(busy_seconds, LOCK_SECONDS),
            "statement_timeout": STATEMENT_SECONDS,
            "idle_in_transaction_session_timeout": STATEMENT_SECONDS,
        }
        # In UTC: an instant of the year 9999, or 1, has no year in some other time zone that Python could read.
        settings = {"timezone": "UTC"} | {key: str(int(value * 1000)) for key, value in limits.items()}
        options["connect_args"]["options"] = " ".join(f"-c {key}={value}" for key, value in settings.items())
    return options


def _has_several_hosts(url: URL) -> bool:
    hosts = url.query.get("host", ())
    return "," in hosts or (not isinstance(hosts, str) and len(hosts) > 1)


def prepare_engine(engine: Engine) -> None:
    """Attach what each connection needs to an engine made with `engine_options`."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "begin", _begin_core)
        event.listen(engine, "connect", note_file)
        event.listen(engine, "checkout", check_file)
        event.listen(engine, "handle_error", drop_spoilt)
    else:
        event.listen(engine, "do_connect", connect_patiently)
        event.listen(engine, "begin", _begin_core)
        event.listen(engine, "connect", _prepare_session)
        event.listen(engine, "checkout", _check_session)


def _begin_core(connection: CoreConnection) -> None:
    """Begin for whoever uses the engine in SQLAlchemy's way, as migrations do; "" as `begin` option begins nothing."""
    options = connection.get_execution_options()
    raw: Any = connection.connection.driver_connection
    is_sqlite = connection.dialect.name == "sqlite"
    begin = options.get("begin", BEGIN_WRITING[connection.dialect.name])
    # After a migration's own use of AUTOCOMMIT, psycopg begins by itself.
    if begin and (is_sqlite or (raw.autocommit and options.get("isolation_level") != "AUTOCOMMIT")):
        raw.execute(begin).close()


def _check_session(connection: Any, record: Any, proxy: Any) -> None:
    # An idle session has nothing to say but that it was ended, by a restart of the server or by pg_terminate_backend:
    # seen without a round trip.
    if connection.closed or _has_input(connection.fileno()):
        raise DisconnectionError("the database ended the session")
    connection.deadline = None


def _has_input(socket: int) -> bool:
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def _prepare_session(connection: Any, record: Any) -> None:
    # BEGIN is ours to say: a question needs none.
    connection.autocommit = True
    # One for all prepared statements: to make one costs as much as to send a short statement.
    record.info["cursor"] = psycopg.RawCursor(connection)

    def remember(diagnostic: Any) -> None:
        record.info["notice"] = f"{diagnostic.sqlstate} {diagnostic.message_primary}"

    connection.add_notice_handler(remember)
