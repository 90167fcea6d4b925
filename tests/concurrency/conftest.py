from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.service.context import Service
from tests.service.support import opened_service


@pytest.fixture
def service(database_url: str) -> Iterator[Service]:
    with opened_service(database_url) as opened:
        yield opened


@pytest.fixture
def other(database_url: str) -> Iterator[Service]:
    """Another process's service, as it were: connections, locks and turns of its own on the same database."""
    with opened_service(database_url) as opened:
        yield opened
