"""What the service promises while its database is at fault, and once it no longer is."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.service.upkeep import verify
from app.wiring import service_of
from tests.support.processes import until

# The service answers within this time, and a busy computer may take BUSY_SECONDS more.
ANSWER_SECONDS = 5.0
BUSY_SECONDS = 10.0
# The service is well again this soon after its database is.
HEAL_SECONDS = 10.0

# A state that many PUTs leave where it is, so that its value says how many were taken.
COUNTING = """
chart: counting
current_state: work
states:
  - {name: work, func: increment, current: {key: count, value: 0}, target: {name: end, when: {key: count, value: 9999}}}
  - {name: end}
"""
PATH = "/charts/counting/state?state=work"


def timed(client: FlaskClient, method: str, path: str) -> TestResponse:
    """Send a request; fail where the answer takes too long."""
    started = time.monotonic()
    response = client.open(path, method=method)
    assert time.monotonic() - started < ANSWER_SECONDS + BUSY_SECONDS, path
    return response


def assert_refuses(client: FlaskClient, *methods: str, outcome: str = "not_applied") -> None:
    """Fail unless questions by these methods are told, in time and in form, that the database is at fault."""
    for method in methods:
        response = timed(client, method, PATH)
        assert (response.status_code, response.mimetype) == (503, "application/problem+json"), response.text
        assert response.get_json()["outcome"] == outcome
        assert 1 <= int(response.headers["Retry-After"]) <= 60
        line = timed(client, method, "/state?state=work")
        assert (line.status_code, line.mimetype) == (500, "text/plain")
        assert len(line.text.splitlines()) == 1


def assert_away(client: FlaskClient) -> None:
    """Fail unless the service says everywhere that its database is away."""
    assert_refuses(client, "GET", "PUT")
    assert timed(client, "GET", "/readyz").status_code == 503
    assert timed(client, "GET", "/charts").status_code == 503
    assert timed(client, "GET", "/healthz").status_code == 200


def assert_still_answers(client: FlaskClient) -> None:
    """Fail unless a question is answered though no PUT is taken."""
    assert timed(client, "GET", PATH).status_code == 200
    assert timed(client, "GET", "/readyz").status_code == 200


def assert_heals(app: Flask, taken: int) -> None:
    """Fail unless the service is well in time, without a restart, and has each of the PUTs that it took."""
    client = app.test_client()
    until(lambda: client.get("/readyz").status_code == 200, "it is ready", HEAL_SECONDS)
    until(lambda: client.get(PATH).status_code == 200, "it answers", HEAL_SECONDS)
    until(lambda: client.put(PATH).status_code == 200, "it counts", HEAL_SECONDS)
    assert client.get("/charts/counting").get_json()["values"] == {"count": taken + 1}
    assert verify(service_of(app), "counting").differences == ()


def put_often(client: FlaskClient, count: int) -> int:
    """Send PUTs that must all be taken; returns how many."""
    assert [client.put(PATH).status_code for _ in range(count)] == [200] * count
    return count


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print("held", flush=True)
sys.stdin.readline()
"""


@contextmanager
def held_by_another_process(path: str, *statements: str) -> Iterator[None]:
    """Keep an SQLite file as these statements leave it, in a process of its own, while the block lasts."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path, *statements], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.stdin.write("\n")
