from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.service.context import Service
from app.wiring import service_of
from tests.service.support import Clock
from tests.support.apps import opened_app


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """The application; its time stands still until `clock` is advanced."""
    for app in opened_app(database_url):
        service_of(app).database.clock = Clock()
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def service(app: Flask) -> Service:
    return service_of(app)


@pytest.fixture
def clock(service: Service) -> Clock:
    assert isinstance(service.database.clock, Clock)
    return service.database.clock
