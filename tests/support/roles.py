"""PostgreSQL as deploy/roles.sql divides it: the owner's role has migrated, and the service has a role of its own.

`TEST_ROLE=serving` runs the tests that use PostgreSQL, and no others. Each uses its migrated database as the role that
serves. A test that prunes, migrates or tampers does this as the owner: through the fixture `owner`, or with `as_owner`.
In the ordinary run the service itself may do all this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from app.db import Database
from app.db.engine import normalize_url, open_engine
from app.service.context import Service
from tests.support.databases import Copies, as_superuser, database_on, is_serving, url_text

SQL = (Path(__file__).parents[2] / "deploy" / "roles.sql").read_text()
SERVING, OWNER = "stateservice_serving_", "stateservice_owner_"


@dataclass(frozen=True, slots=True)
class Roles:
    """The names of the two roles; other tests on the same server have others."""

    owner: str
    serving: str


@pytest.fixture(scope="session")
def roles(postgresql_server: Engine) -> Iterator[Roles]:
    suffix = uuid4().hex[:8]
    found = Roles(OWNER + suffix, SERVING + suffix)
    yield found
    with postgresql_server.connect() as connection:
        connection.exec_driver_sql(f"DROP ROLE IF EXISTS {found.owner}, {found.serving}")


@pytest.fixture(scope="session")
def serving_copies(postgresql_server: Engine, postgresql_template: str, roles: Roles) -> Iterator[Copies]:
    """Copies of a migrated database on which deploy/roles.sql has run, as the role that serves."""
    account = postgresql_server.url.set(username=roles.serving)
    for url in database_on(postgresql_server, f"TEMPLATE {postgresql_template}"):
        # It may be run again.
        for _ in range(2):
            divide(url, roles)
        set_passwords(postgresql_server, roles)
        yield Copies(postgresql_server, str(make_url(url).database), account)


def set_passwords(server: Engine, roles: Roles) -> None:
    """Give both roles the superuser's password, if the server asks for one."""
    if server.url.password is None:
        return
    with server.connect() as connection:
        for role in (roles.owner, roles.serving):
            statement = text(f"SELECT format('ALTER ROLE {role} PASSWORD %L', CAST(:password AS text))")
            parameters = {"password": str(server.url.password)}
            connection.exec_driver_sql(connection.execute(statement, parameters).scalar_one())


def divide(url: str, roles: Roles) -> None:
    """Run deploy/roles.sql on a database, with the names `roles`."""
    sql = SQL.replace("stateservice_owner", "@").replace("stateservice", roles.serving).replace("@", roles.owner)
    engine = create_engine(normalize_url(url), poolclass=NullPool)
    with engine.begin() as connection:
        connection.connection.driver_connection.execute(sql)  # type: ignore[union-attr]


@pytest.fixture
def serving_url(serving_copies: Copies) -> Iterator[str]:
    """A migrated, empty PostgreSQL database, as the role that serves, however the tests are run."""
    yield from serving_copies.make()


# The owner


def as_owner(url: str) -> str:
    """Return the URL of a test's database for the role that owns its tables; the same URL if that role serves."""
    given = make_url(url)
    name = given.username or ""
    return url_text(given.set(username=name.replace(SERVING, OWNER))) if SERVING in name else url


@pytest.fixture
def superuser_url(request: pytest.FixtureRequest, database_url: str) -> str:
    """The test's database, used by a role that may switch the triggers off for a session, as the bench does."""
    if database_url.startswith("sqlite"):
        return database_url
    return as_superuser(request.getfixturevalue("postgresql_server"), database_url)


@pytest.fixture
def owner(service: Service) -> Iterator[Service]:
    """The service as the role that owns the tables, which alone may prune and change the log."""
    url = url_text(service.database.engine.url)
    if as_owner(url) == url:
        yield service
        return
    engine = open_engine(as_owner(url))
    yield Service(database=cast(Database, OwnersDatabase(service.database, engine)), hub=service.hub)
    engine.dispose()


class OwnersDatabase:
    """A service's database through the connections of another role; its time and its log's key are the service's."""

    def __init__(self, database: Database, engine: Engine) -> None:
        self.engine = engine
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


# Which tests run


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that do not use PostgreSQL, if the run is about its roles."""
    if not is_serving():
        return
    left_out = [item for item in items if not uses_postgresql(item)]
    items[:] = [item for item in items if uses_postgresql(item)]
    config.hook.pytest_deselected(items=left_out)


def uses_postgresql(item: pytest.Item) -> bool:
    """True if one of the test's fixtures or parameters is a PostgreSQL database."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    fixtures: list[str] = getattr(item, "fixturenames", [])
    return "postgresql" in parameters or "postgresql_server" in fixtures
