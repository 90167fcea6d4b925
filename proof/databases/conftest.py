"""A PostgreSQL server of these tests' own, which may be stopped and whose doors may be locked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.pool import NullPool

from app.db.engine import normalize_url
from tests.support.databases import FOLDER, database_on, migrate, start_postgresql


@pytest.fixture(scope="session")
def own_server() -> Iterator[Any]:
    # With its durability: what a killed server had confirmed must be there.
    server = start_postgresql(Path(tempfile.mkdtemp(dir=os.environ[FOLDER])))
    try:
        yield server
    finally:
        server.cleanup()


@pytest.fixture(scope="session")
def own_admin(own_server: Any) -> Iterator[Engine]:
    """An engine on the own server, for the superuser; it keeps no session, which a restart would end."""
    engine = create_engine(normalize_url(own_server.get_uri()), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def own_template(own_admin: Engine) -> Iterator[str]:
    """The name of a migrated database on the own server."""
    for url in database_on(own_admin):
        migrate(url)
        yield str(make_url(url).database)


@pytest.fixture
def own_url(own_admin: Engine, own_template: str) -> Iterator[str]:
    """A migrated database on the own server."""
    yield from database_on(own_admin, f"TEMPLATE {own_template}")
