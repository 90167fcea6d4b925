"""The service, its HTTP interface and its command line on one migrated database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.service.context import Service
from app.wiring import service_of
from tests.admin.support import Commands
from tests.support.apps import opened_app


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    yield from opened_app(database_url)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def service(app: Flask) -> Service:
    return service_of(app)


@pytest.fixture
def run(database_url: str) -> Commands:
    """Runs commands in this process."""
    return Commands(database_url)
