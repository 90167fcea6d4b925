"""The pages on a migrated database, open and with tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from tests.diagram.support import ROLLOUT
from tests.support.apps import import_text, opened_app
from tests.web.ui.browser import Browser, make_token

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """The service in open mode, with one chart."""
    for app in opened_app(database_url):
        import_text(app, ROLLOUT)
        yield app


@pytest.fixture
def browser(app: Flask) -> Browser:
    """A browser on the open service."""
    return Browser(app)


@pytest.fixture
def guarded(database_url: str) -> Iterator[Flask]:
    """The service with `auth=tokens`, with one chart and no token yet."""
    for app in opened_app(database_url, auth="tokens", secret_key=KEY):
        import_text(app, ROLLOUT)
        yield app


@pytest.fixture
def admin(guarded: Flask) -> Browser:
    """A browser with an administrator's session."""
    return Browser(guarded).signed_in(make_token(guarded, "admin"))
