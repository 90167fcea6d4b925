"""The service on a migrated database, and its two doors on the same database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from app.service.context import Service
from tests.service.support import Clock, opened_service
from tests.support.apps import opened_app
from tests.support.commands import Commands
from tests.support.roles import as_owner


@pytest.fixture
def time_source() -> Clock | None:
    """The time that the service goes by: it stands still until a test advances it. A module may define another one."""
    return Clock()


@pytest.fixture
def service(database_url: str, time_source: Clock | None) -> Iterator[Service]:
    with opened_service(database_url) as opened:
        opened.database.clock = time_source
        yield opened


@pytest.fixture
def clock(service: Service) -> Clock:
    """The time that the service goes by, if it stands still."""
    assert isinstance(service.database.clock, Clock)
    return service.database.clock


@pytest.fixture
def other(database_url: str) -> Iterator[Service]:
    """The service of another process: connections, locks and batches of its own, on the same database."""
    with opened_service(database_url) as opened:
        yield opened


@pytest.fixture
def client(database_url: str) -> Iterator[FlaskClient]:
    """A client of the HTTP interface on the same database."""
    for app in opened_app(database_url):
        yield app.test_client()


@pytest.fixture
def run(database_url: str) -> Commands:
    """Runs commands on the same database, in this process."""
    return Commands(database_url)


@pytest.fixture
def run_as_owner(database_url: str) -> Commands:
    """Runs commands as the role that owns the tables."""
    return Commands(as_owner(database_url))
