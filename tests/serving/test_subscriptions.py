"""A receiver that fails, hangs, and is away hears every row of its kinds in order, also if the server is killed."""

from __future__ import annotations

import json
import threading
from itertools import count
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from tests.service.support import CANARY
from tests.support.processes import free_port, until
from tests.support.receiver import Received, Receiver, receiver
from tests.support.servers import Server, running

CHARTS = ("web", "db", "lb", "dns")
KINDS = ("import", "update", "transition", "pause", "resume", "reset")
ACTS = 2
SECONDS = 200


class Unreliable:
    """What the receiver answers: 3 of 10 webhooks fail, and 1 of 20 hangs until the sender has given up."""

    def __init__(self) -> None:
        self.heard: list[Received] = []
        self.hung = threading.Event()
        self._numbers = count(1)
        self._lock = threading.Lock()

    def __call__(self, received: Received) -> int:
        with self._lock:
            number = next(self._numbers)
        if number % 20 == 9:
            self.hung.wait(11)
            return 503
        if number % 10 in (2, 5, 6):
            return 503
        with self._lock:
            self.heard.append(received)
        return 204


def heard_of(answer: Unreliable, chart: str) -> list[str]:
    """The ids of a chart's webhooks in the order in which each came first."""
    ids = (received.id for received in list(answer.heard))
    return list(dict.fromkeys(one for one in ids if one.startswith(f"{chart}/")))


def rows_of(server: Server, chart: str) -> list[str]:
    return [f"{chart}/{row['seq']}" for row in server.history(chart) if row["kind"] in KINDS]


def act(server: Server, chart: str) -> None:
    for number in range(ACTS):
        assert server.act(chart, "resume" if number % 2 else "pause", reason=f"act {number}").status == 200


def subscribe(server: Server, hook: Receiver) -> str:
    body = {"url": hook.url, "kinds": list(KINDS)}
    reply = server.ask("PUT", "/subscriptions/pager", json.dumps(body), Content_Type="application/json")
    assert reply.status == 201, reply
    secret: str = reply.json()["secret"]
    return secret


@pytest.mark.slow
def test_unreliable_receiver_hears_every_row_in_order(database_url: str, tmp_path: Path) -> None:
    answer, port = Unreliable(), free_port()
    settings = {"webhook_hosts": "127.0.0.1"}
    with receiver(port) as hook:
        hook.answer = answer
        with running(database_url, tmp_path, **settings) as server:
            secret = subscribe(server, hook)
            for chart in CHARTS:
                server.import_chart(chart, CANARY.replace("chart: web", f"chart: {chart}"))
                act(server, chart)
            until(lambda: len(answer.heard) >= 5, "the receiver has heard some rows", SECONDS)
            server.kill()
    # The receiver is away for a while; the rows of that time come later.
    with running(database_url, tmp_path, **settings) as server:
        for chart in CHARTS:
            act(server, chart)
        with receiver(port) as hook:
            hook.answer = answer
            rows = {chart: rows_of(server, chart) for chart in CHARTS}
            until(
                lambda: all(heard_of(answer, chart)[-1:] == rows[chart][-1:] for chart in CHARTS),
                "the receiver has heard the last rows",
                SECONDS,
            )
            answer.hung.set()

    assert {chart: heard_of(answer, chart) for chart in CHARTS} == rows
    for received in answer.heard:
        event = Webhook(secret).verify(received.body, received.headers)
        assert f"{event['data']['chart']}/{event['data']['seq']}" == received.id
