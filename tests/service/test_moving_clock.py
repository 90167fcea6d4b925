"""A transaction that asks for the time twice is told two times: what one transaction writes must go by one of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from app.service import operate
from app.service.context import Service
from app.service.put import tick
from app.service.upkeep import verify
from tests.service.support import ANN, CANARY, NOBODY, REBOOT, SEED, Clock, import_text, put, query
from tests.support import requests


class MovingClock(Clock):
    """A second later each time it is read."""

    def __call__(self) -> datetime:
        self.advance(1)
        return self.now


def archive_and_import(text: str) -> Callable[[Service], object]:
    def act(service: Service) -> object:
        operate.archive(service, "web", "over", ANN)
        return import_text(service, text)

    return act


def claim_and_release(service: Service) -> None:
    operate.archive(service, "web", "over", ANN)
    import_text(service, REBOOT)
    requests.claim(service, "web", "reboot", "m1", NOBODY)
    requests.release(service, "web", "reboot", "m1", NOBODY)


def pause_and_resume(service: Service) -> None:
    operate.pause(service, "web", "look", ANN)
    operate.resume(service, "web", "on", ANN)


WRITERS: dict[str, Callable[[Service], object]] = {
    "import": lambda service: None,
    "upgrade": lambda service: import_text(service, CANARY.replace("60s", "90s")),
    "archive": lambda service: operate.archive(service, "web", "over", ANN),
    "import after an archive": archive_and_import(CANARY),
    "import of another chart after an archive": archive_and_import(SEED),
    "import after an archive while paused": lambda service: (
        operate.pause(service, "web", "look", ANN),
        archive_and_import(CANARY)(service),
    ),
    "put": lambda service: put(service, "canary", "m1"),
    "puts that move": lambda service: [put(service, "canary") for _ in range(2)],
    "pause and resume": pause_and_resume,
    "reset": lambda service: operate.reset(service, "web", "again", ANN),
    "goto": lambda service: operate.goto(service, "web", "soak", "there", ANN),
    "tick": lambda service: tick(service, "web"),
    "claim and release": claim_and_release,
}


UNLOGGED = """
SELECT count(*) FROM {table} WHERE {column} IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM transition_log WHERE transition_log.at = {table}.{column})
"""
INSTANTS = [("charts", "entered_at"), ("charts", "updated_at"), ("visits", "entered_at"), ("visits", "left_at")]


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_written_goes_by_the_time_of_its_log_row(service: Service, kind: str) -> None:
    service.database.clock = MovingClock()
    import_text(service, CANARY)
    WRITERS[kind](service)
    assert verify(service, "web").differences == ()
    for table, column in INSTANTS:
        assert query(service, UNLOGGED.format(table=table, column=column)) == [(0,)], (table, column)
