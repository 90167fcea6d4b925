"""A fleet that reports all at once, every machine several times: each counts once, and everybody gets a yes."""

from __future__ import annotations

import random
import time
from collections import Counter
from urllib.parse import quote

from tests.support.senders import Clients, Put, Sent, deal
from tests.support.servers import Server, chart_path

PROCESSES = 8
SENDS = 3


def chart_of(count: int) -> str:
    """A chart that ends when `count` have reported."""
    return f"""
current_state: work
states:
  - name: work
    func: increment
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target: {{name: done, when: {{key: count, value: {count}}}}}
  - name: done
"""


def rush_of_machines(server: Server, chart: str, machines: int, seed: int) -> float:
    """Have every machine send its report three times at once, in random order; return the seconds it took."""
    server.import_chart(chart, chart_of(machines))
    puts = [Put(chart_path(chart, state="work", machine=f"web-{number:05}")) for number in range(machines)]
    random.Random(seed).shuffle(puts)
    clients = Clients(server.port, deal(puts, PROCESSES), SENDS)
    started = time.monotonic()
    answers = clients.run()
    took = time.monotonic() - started
    _check_answers(answers, machines * SENDS)
    kinds = count_kinds(server, chart)
    assert kinds == {"import": 1, "update": machines - 1, "transition": 1}, kinds
    status = server.status(chart)
    assert (status["current_state"], status["visit"], status["seq"]) == ("done", 2, machines + 1), status
    _check_reports(server, chart, machines)
    return took


def rush_of_keys(server: Server, chart: str, keys: int, threads: int, seed: int) -> float:
    """Have every Idempotency-Key sent by all threads of all processes at once; return the seconds it took."""
    server.import_chart(chart, chart_of(keys))
    path = chart_path(chart, state="work")
    puts = [Put(path, {"Idempotency-Key": f"key {number}"}) for number in range(keys)]
    random.Random(seed).shuffle(puts)
    clients = Clients(server.port, [puts] * PROCESSES, threads, is_one_volley=True)
    started = time.monotonic()
    answers = clients.run()
    took = time.monotonic() - started
    _check_answers(answers, keys * PROCESSES * threads)
    kinds = count_kinds(server, chart)
    assert kinds == {"import": 1, "update": keys - 1, "transition": 1}, kinds
    with server.beside() as connection:
        query = f"SELECT count(DISTINCT idempotency_key) FROM transition_log WHERE chart = '{chart}'"
        assert connection.exec_driver_sql(query).scalar_one() == keys
    return took


def _check_answers(answers: list[Sent], expected: int) -> None:
    found = Counter((sent.status, sent.body) for sent in answers)
    assert found == {(200, "work"): expected}, found


def _check_reports(server: Server, chart: str, machines: int) -> None:
    with server.beside() as connection:
        query = f"SELECT count(*), count(DISTINCT machine) FROM v_machine_reports WHERE chart = '{chart}'"
        assert tuple(connection.exec_driver_sql(query).one()) == (machines, machines)
    reply = server.ask("GET", f"/charts/{chart}/machines?state={quote('work')}", Accept="text/plain")
    assert reply.body.split() == [f"web-{number:05}" for number in range(machines)]


def count_kinds(server: Server, chart: str) -> dict[str, int]:
    """How many rows of each kind a chart's log has."""
    with server.beside() as connection:
        query = f"SELECT kind, count(*) FROM transition_log WHERE chart = '{chart}' GROUP BY kind"
        return dict(connection.exec_driver_sql(query).all())
