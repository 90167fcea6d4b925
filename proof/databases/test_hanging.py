"""PostgreSQL that hangs and says nothing: everybody is answered in time, and all is well once it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import make_url
from werkzeug.test import TestResponse

from app import db, serving
from app.core.errors import DatabaseUnavailableError
from app.db import asking, snapshot
from app.db.postgresql import PatientConnection
from app.wiring import service_of
from tests.support.apps import import_text, opened_app
from tests.support.faults import (
    ANSWER_SECONDS,
    COUNTING,
    HEAL_SECONDS,
    PATH,
    assert_heals,
    put_often,
    timed,
)
from tests.support.hanging import Network, network_to, stop_all, stopped
from tests.support.hanging import continue_all as go_on
from tests.support.processes import until

CROWD = 60
# As long as the service waits for a connection that nobody accepts.
CONNECT_SECONDS = 3
SLOTS = """
chart: slots
current_state: work
states:
  - {name: work, func: increment, slots: 2, current: {key: count, value: 0}, target: {name: end, when: {key: count, value: 9}}}
  - {name: end}
"""  # noqa: E501  a chart
CLOCK = """
chart: clock
current_state: work
states:
  - {name: work, func: time, target: {name: end, when: {key: elapsed, value: 2s}}}
  - {name: end}
"""
QUESTIONS = [
    ("GET", PATH),
    ("PUT", PATH),
    ("GET", "/state?state=work"),
    ("PUT", "/state?state=work"),
    ("GET", "/charts/counting/reached?state=end"),
    ("PUT", "/charts/slots/slot?state=work&machine=m"),
    ("DELETE", "/charts/slots/slot?state=work&machine=m"),
    ("GET", "/charts"),
    ("GET", "/readyz"),
]


@pytest.fixture
def app(own_url: str) -> Iterator[Flask]:
    for app in opened_app(own_url, default_chart="counting"):
        import_text(app, COUNTING)
        import_text(app, SLOTS)
        yield app


@pytest.fixture
def network(own_server: Any) -> Iterator[Network]:
    with network_to(own_server) as network:
        yield network


@contextmanager
def at_work(app: Flask) -> Iterator[None]:
    """Have the sweeper and the listener run beside the requests while the block lasts."""
    serving.start(app)
    try:
        yield
    finally:
        serving.stop(app)


def ask_in_crowd(app: Flask, crowd: ThreadPoolExecutor, count: int = CROWD) -> list[Future[TestResponse]]:
    """Begin every question again and again, all at once."""
    questions = [QUESTIONS[number % len(QUESTIONS)] for number in range(count)]
    return [crowd.submit(timed, app.test_client(), method, path) for method, path in questions]


def test_everybody_in_a_crowd_is_told_in_time_when_the_server_hangs(own_server: Any, app: Flask) -> None:
    put_often(app.test_client(), 1)
    with ThreadPoolExecutor(CROWD) as crowd:
        # So that there are as many connections as there may be.
        assert {answer.result().status_code for answer in ask_in_crowd(app, crowd)} <= {200, 406}
        taken = app.test_client().get("/charts/counting").get_json()["values"]["count"]
        with stopped(own_server):
            asked = ask_in_crowd(app, crowd)
            assert timed(app.test_client(), "GET", "/healthz").status_code == 200
            assert {answer.result().status_code for answer in asked} == {500, 503}
            # Now there is none, and each must be opened.
            asked = ask_in_crowd(app, crowd)
            assert {answer.result().status_code for answer in asked} == {500, 503}
        assert_heals(app, taken)


def test_everybody_is_told_when_the_network_swallows_all(app: Flask, network: Network, own_url: str) -> None:
    url = make_url(own_url).set(host="127.0.0.1", port=network.port, query={}).render_as_string(hide_password=False)
    for remote in opened_app(url, default_chart="counting"):
        is_told_through(network, remote, app)


def is_told_through(network: Network, remote: Flask, other: Flask) -> None:
    hub = service_of(remote).hub
    with at_work(remote), ThreadPoolExecutor(len(QUESTIONS) + 1) as crowd:
        taken = put_often(remote.test_client(), 3)
        waiting = crowd.submit(remote.test_client().get, "/charts/slots/state?state=end&wait=30")
        until(lambda: hub.waiters == 1, "one waits")
        with network.swallowing():
            asked = ask_in_crowd(remote, crowd, len(QUESTIONS))
            assert {answer.result().status_code for answer in asked} == {500, 503}
        assert_heals(remote, taken)
        # The listener's connection is forgotten, too, and perhaps its attempt at another one: another process moves the
        # chart, and the waiter hears of it.
        end(other, "slots")
        assert waiting.result(CONNECT_SECONDS + HEAL_SECONDS).status_code == 200


def end(app: Flask, chart: str) -> None:
    """Take a chart to its end."""
    acted = app.test_client().post(f"/charts/{chart}/goto", json={"state": "end", "reason": "test"})
    assert acted.status_code == 200, acted.text


@pytest.mark.parametrize("moment", ["begin", "commit"])
def test_put_says_what_is_known_when_the_server_hangs_at(own_server: Any, app: Flask, moment: str) -> None:
    client = app.test_client()
    taken = put_often(client, 3)
    with hanging_from(own_server, moment):
        answer = timed(client, "PUT", f"{PATH}&machine=m")
    expected = "unknown" if moment == "commit" else "not_applied"
    assert (answer.status_code, answer.get_json()["outcome"]) == (503, expected)
    assert "has not answered" in answer.get_json()["detail"]
    # Sent again it is done once, whatever came of the first.
    until(lambda: client.put(f"{PATH}&machine=m").status_code == 200, "it is counted", HEAL_SECONDS)
    assert_heals(app, taken + 1)


@contextmanager
def hanging_from(server: Any, moment: str) -> Iterator[None]:
    """Have the server hang from a transaction's `moment` on, until the block ends."""
    name = f"_{moment}"
    original = getattr(db, name)

    def hang(*arguments: object) -> None:
        stop_all(server)
        original(*arguments)

    setattr(db, name, hang)
    try:
        yield
    finally:
        go_on(server)
        setattr(db, name, original)


def test_sweeper_and_waiters_outlive_a_server_that_hung(own_server: Any, app: Flask) -> None:
    import_text(app, CLOCK)
    with at_work(app), ThreadPoolExecutor(2) as crowd:
        waiting = crowd.submit(app.test_client().get, "/charts/clock/state?state=end&wait=30")
        patient = crowd.submit(app.test_client().get, "/charts/slots/state?state=end&wait=30")
        until(lambda: service_of(app).hub.waiters == 2, "they wait")
        with stopped(own_server):
            time.sleep(ANSWER_SECONDS)  # what hangs is given up within it
        assert waiting.result(HEAL_SECONDS).status_code in (200, 503)
        until(
            lambda: app.test_client().get("/charts/clock/state?state=end").status_code == 200, "it moved", HEAL_SECONDS
        )
        end(app, "slots")
        assert patient.result(HEAL_SECONDS).status_code == 200


# What may take long


def test_statement_of_a_report_may_take_longer_than_a_request(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.db.ANSWER_SECONDS", 0.1)
    with snapshot(service_of(app).database) as connection:
        connection.exec_driver_sql("SELECT pg_sleep(1)")


def test_statement_of_a_request_may_not(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.db.ANSWER_SECONDS", 0.1)
    with pytest.raises(DatabaseUnavailableError), asking(service_of(app).database) as connection:
        connection.exec_driver_sql("SELECT pg_sleep(1)")


def test_connection_is_of_no_more_use_when_its_time_was_up(own_url: str) -> None:
    with PatientConnection.connect(str(make_url(own_url).set(drivername="postgresql"))) as connection:
        connection.deadline = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match=r"has not answered for 0\.5 s"):
            connection.execute("SELECT pg_sleep(60)")
        assert connection.broken
