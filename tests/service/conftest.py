from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.service.context import Service
from tests.service.support import Clock, opened_service


@pytest.fixture
def service(database_url: str) -> Iterator[Service]:
    """The service; its time stands still until `clock` is advanced."""
    with opened_service(database_url) as opened:
        opened.database.clock = Clock()
        yield opened


@pytest.fixture
def clock(service: Service) -> Clock:
    """The time that the service goes by."""
    assert isinstance(service.database.clock, Clock)
    return service.database.clock
