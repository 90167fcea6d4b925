from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.service.context import Service
from tests.service.support import Clock, opened_service


@pytest.fixture
def service(database_url: str) -> Iterator[Service]:
    """The service, by which the tests put rows there; its time stands still."""
    with opened_service(database_url) as opened:
        opened.database.clock = Clock()
        yield opened
