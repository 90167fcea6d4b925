"""Engines for both databases: a URL becomes an engine whose connections are set up as this service needs them."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from psycopg.pq import Conninfo
from sqlalchemy import Connection as CoreConnection
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.core.errors import SettingError
from app.db import driver
from app.db.postgresql import check_session, connect_arguments, connect_patiently, drop_stale, prepare_session
from app.db.sqlite import BUSY_SECONDS, check_file, drop_unusable, note_file, open_sqlite, require_sqlite

# Names the setting in the messages about a wrong database URL.
URL_SETTING = "the database URL (STATE_SERVICE_DATABASE_URL or --database)"

# How long a request waits for a connection from the pool.
POOL_SECONDS = 1.0

# SQLite has one lock for all charts, and a writer takes it at BEGIN; on PostgreSQL reading a chart's row locks it.
BEGIN_WRITING = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "BEGIN ISOLATION LEVEL READ COMMITTED"}
BEGIN_SNAPSHOT = {"sqlite": "BEGIN", "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ"}


def normalize_url(url: str) -> URL:
    """Return `url` as this service uses it: PostgreSQL with psycopg 3, SQLite with an absolute file path.

    Raises SettingError.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingError(f"{URL_SETTING} cannot be read: {error}") from None
    except ValueError:
        # The error's own text is left out: what it quotes as the port may be a part of the password.
        raise SettingError(
            f"{URL_SETTING} cannot be read: its port is not a number, or its host has a bracket too many"
        ) from None
    if any("\0" in str(part) for part in (parsed.username, parsed.password, parsed.host, parsed.database)):
        raise SettingError(f"{URL_SETTING} cannot be read: it has a %00")
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        if driver.MISSING is not None:
            raise SettingError(
                f"{URL_SETTING} is PostgreSQL's, whose client library libpq cannot be loaded ({driver.MISSING});"
                " install it (Debian: libpq5), or the package stateservice with pip, which brings its own"
            )
        return _normalize_postgresql(url, parsed.set(drivername="postgresql+psycopg"))
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if not parsed.database or parsed.database == ":memory:":
            raise SettingError(f"{URL_SETTING} must name a file: sqlite:///path/to/state_service.db")
        if parsed.query:
            raise SettingError(f"{URL_SETTING}: sqlite takes no options; write a ? in the path as %3F")
        # Every start and every command comes here before it touches the file.
        require_sqlite()
        return parsed.set(drivername="sqlite", database=str(Path(parsed.database).absolute()))
    raise SettingError(f"{URL_SETTING} must be sqlite or postgresql, not {parsed.drivername!r}")


def _normalize_postgresql(url: str, parsed: URL) -> URL:
    # No message quotes a part of the URL that may be a piece of the password.
    if url.count("@") > (parsed.username is not None):
        raise SettingError(f"{URL_SETTING} has an @ too many: in a user name or a password write @ as %40 and / as %2F")
    unknown = sorted(parsed.query.keys() - _libpq_options())
    if unknown:
        named = "" if "password" in parsed.query else f": {', '.join(unknown)}"
        raise SettingError(f"{URL_SETTING} has options that PostgreSQL's library does not know{named}")
    if parsed.host is None or "%" not in parsed.host:
        return parsed
    # libpq's form for the folder of a Unix socket. SQLAlchemy neither decodes nor encodes a host, except in the query.
    port = {} if parsed.port is None else {"port": str(parsed.port)}
    return parsed._replace(host=None, port=None).update_query_dict({"host": unquote(parsed.host), **port})


@cache
def _libpq_options() -> frozenset[str]:
    return frozenset(option.keyword.decode() for option in Conninfo.get_defaults())


def str_url(url: str | URL) -> str:
    """Return a URL as text, with its password."""
    return url if isinstance(url, str) else url.render_as_string(hide_password=False)


def open_engine(
    url: str | URL,
    *,
    create: bool = False,
    pool_size: int = 10,
    pooler: bool = False,
    busy_seconds: float = BUSY_SECONDS,
) -> Engine:
    """Return an engine that has not connected yet. Raises SettingError.

    `create` lets SQLite make the file and its folder. `pooler` says that a pooler in transaction mode, such as
    pgbouncer, stands before the server: no prepared statements and no `options` are sent, so the time limits must be
    set on the database role. `busy_seconds` is how long a statement waits for a lock.
    """
    options = engine_options(url, create=create, pool_size=pool_size, pooler=pooler, busy_seconds=busy_seconds)
    engine = create_engine(normalize_url(str_url(url)), **options)
    prepare_engine(engine)
    return engine


def engine_options(
    url: str | URL,
    *,
    create: bool = False,
    pool_size: int = 10,
    pooler: bool = False,
    busy_seconds: float = BUSY_SECONDS,
) -> dict[str, Any]:
    """Return the keyword arguments that `create_engine` needs for `url`; for the parameters see `open_engine`."""
    parsed = normalize_url(str_url(url))
    options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": POOL_SECONDS}
    if parsed.drivername == "sqlite":
        options["creator"] = partial(open_sqlite, parsed, create, busy_seconds)
    else:
        options["connect_args"] = connect_arguments(parsed, pooler=pooler, lock_seconds=busy_seconds)
    return options


def prepare_engine(engine: Engine) -> None:
    """Attach the listeners that set up and check each connection to an engine made with `engine_options`."""
    event.listen(engine, "begin", _begin_core)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", note_file)
        event.listen(engine, "checkout", check_file)
        event.listen(engine, "handle_error", drop_unusable)
    else:
        event.listen(engine, "do_connect", connect_patiently)
        event.listen(engine, "connect", prepare_session)
        event.listen(engine, "checkout", check_session)
        event.listen(engine, "handle_error", drop_stale)


def _begin_core(connection: CoreConnection) -> None:
    """Send BEGIN for code that uses the engine in SQLAlchemy's own way, as migrations do.

    If the connection's option `begin` is the empty text, nothing is sent.
    """
    options = connection.get_execution_options()
    raw: Any = connection.connection.driver_connection
    is_sqlite = connection.dialect.name == "sqlite"
    begin = options.get("begin", BEGIN_WRITING[connection.dialect.name])
    # If a migration has switched AUTOCOMMIT on and off again, psycopg sends BEGIN by itself.
    if begin and (is_sqlite or (raw.autocommit and options.get("isolation_level") != "AUTOCOMMIT")):
        raw.execute(begin).close()
