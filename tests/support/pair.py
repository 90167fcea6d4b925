"""Two servers on one database, shared by the tests of a module; each test has charts of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import DATABASES
from tests.support.servers import Server, running, shared_database, wait_for_listeners

WORKERS = 2


@pytest.fixture(scope="module", params=DATABASES)
def shared_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database that the tests of a module share; they run once on SQLite and once on PostgreSQL."""
    with shared_database(request, request.param) as url:
        yield url


@pytest.fixture(scope="module")
def server(shared_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two workers, that hears of every change."""
    folder: Path = tmp_path_factory.mktemp("server")
    with running(shared_url, folder, workers=str(WORKERS)) as server:
        wait_for_listeners(server, WORKERS)
        yield server


@pytest.fixture(scope="module")
def other(shared_url: str, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another server on the same database: what it commits, `server` can only hear of through the database."""
    with running(shared_url, tmp_path_factory.mktemp("other"), workers="1") as other:
        yield other


@pytest.fixture
def chart(request: pytest.FixtureRequest) -> str:
    """A name for a chart of this test alone."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[-100:]
