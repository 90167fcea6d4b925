"""A PostgreSQL server of this suite's own, with its durability: what a killed server had confirmed must be there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proof.stand import Database, postgresql_database, postgresql_server, sqlite_database
from tests.support.databases import DATABASES, FOLDER


@pytest.fixture(scope="session")
def own_server() -> Iterator[Any]:
    with postgresql_server(Path(tempfile.mkdtemp(dir=os.environ[FOLDER]))) as server:
        yield server


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database that may be broken."""
    yield from opened(request, request.param)


def opened(request: pytest.FixtureRequest, which: str) -> Iterator[Database]:
    """Yield a migrated database of the kind `which`."""
    if which == "sqlite":
        with sqlite_database(request.getfixturevalue("tmp_path")) as file:
            yield file
        return
    with postgresql_database(request.getfixturevalue("own_server")) as database:
        yield database


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder as slow."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.slow)
