"""PostgreSQL as deploy/roles.sql divides it: the owner's role has migrated, and the service has a role of its own.

`TEST_ROLE=serving` gives each test that asks for a migrated PostgreSQL database one that it uses as the serving role.
`TEST_ROLE=serving make test ARGS="tests/service tests/web"` runs the tests of the service and of the pages so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.pool import NullPool

from app.db.engine import normalize_url
from tests.support.databases import database_on, url_text

SQL = (Path(__file__).parents[2] / "deploy" / "roles.sql").read_text()


@dataclass(frozen=True, slots=True)
class Roles:
    """The names of the two roles; other tests on the same server have others."""

    owner: str
    serving: str


@pytest.fixture(scope="session")
def roles(postgresql_server: Engine) -> Iterator[Roles]:
    suffix = uuid4().hex[:8]
    found = Roles(f"stateservice_owner_{suffix}", f"stateservice_{suffix}")
    yield found
    with postgresql_server.connect() as connection:
        connection.exec_driver_sql(f"DROP ROLE IF EXISTS {found.owner}, {found.serving}")


@pytest.fixture(scope="session")
def divided_template(postgresql_server: Engine, postgresql_template: str, roles: Roles) -> Iterator[str]:
    """The name of a migrated database on which deploy/roles.sql has run."""
    for url in database_on(postgresql_server, f"TEMPLATE {postgresql_template}"):
        # It may be run again.
        for _ in range(2):
            divide(url, roles)
        yield str(make_url(url).database)


def divide(url: str, roles: Roles) -> None:
    """Run deploy/roles.sql on a database, with the names `roles`."""
    sql = SQL.replace("stateservice_owner", "@").replace("stateservice", roles.serving).replace("@", roles.owner)
    engine = create_engine(normalize_url(url), poolclass=NullPool)
    with engine.begin() as connection:
        connection.connection.driver_connection.execute(sql)  # type: ignore[union-attr]


@pytest.fixture
def serving_url(postgresql_server: Engine, divided_template: str, roles: Roles) -> Iterator[str]:
    """A migrated, empty PostgreSQL database, as the role that serves."""
    for url in database_on(postgresql_server, f"TEMPLATE {divided_template}"):
        yield url_text(make_url(url).set(username=roles.serving, password=None))


@pytest.fixture
def owner_url(serving_url: str, roles: Roles) -> str:
    """The same database, as the role that owns the tables."""
    return url_text(make_url(serving_url).set(username=roles.owner))
