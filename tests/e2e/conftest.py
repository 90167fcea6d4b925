"""One running service for all tests here, each with a chart of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.e2e.stack import CHART, Stack, running_stack


@pytest.fixture(scope="session")
def e2e_database_url(postgresql_server: Engine) -> str:
    """An empty database; it goes with the server."""
    name = f"e2e_{uuid.uuid4().hex[:12]}"
    with postgresql_server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    url = postgresql_server.url.set(database=name, drivername="postgresql")
    return url.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, e2e_database_url: str) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack"), e2e_database_url) as found:
        yield found


@pytest.fixture
def chart(stack: Stack) -> str:
    """The name of a chart made for this test, in green_state."""
    name = f"chart-{uuid.uuid4().hex[:8]}"
    stack.import_chart(name, CHART)
    return name
