"""The application and a client on a migrated database. A module may name other charts and another clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.service.context import Service
from app.wiring import service_of
from tests.service.support import Clock
from tests.support.apps import SEED, import_text, opened_app


@pytest.fixture
def charts() -> Sequence[str]:
    """The texts of the charts that the application starts with; a module that wants others defines this fixture."""
    return [SEED]


@pytest.fixture
def time_source() -> Clock | None:
    """The time that the service goes by, or None for the database's; a module may define this fixture, too."""
    return None


@pytest.fixture
def app(database_url: str, charts: Sequence[str], time_source: Clock | None) -> Iterator[Flask]:
    for app in opened_app(database_url):
        service_of(app).database.clock = time_source
        for text in charts:
            import_text(app, text)
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def service(app: Flask) -> Service:
    """The service that the application calls."""
    return service_of(app)


@pytest.fixture
def clock(service: Service) -> Clock:
    """The time that the service goes by, if it stands still."""
    assert isinstance(service.database.clock, Clock)
    return service.database.clock
