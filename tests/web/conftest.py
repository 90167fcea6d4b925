"""The application and a client on a migrated database, with the seed's chart imported as `states`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.apps import SEED, import_text, opened_app


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    for app in opened_app(database_url):
        import_text(app, SEED)
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
