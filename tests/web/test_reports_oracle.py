"""Random reports of random machines, retried at random, against an oracle that is nothing but a few dictionaries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.service.upkeep import verify
from app.wiring import service_of
from tests.support.apps import import_text, opened_app
from tests.support.examples import examples

CHART = """
current_state: work
states:
  - name: work
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: stop, when: {key: failed, value: 3}}, {name: check, when: {key: count, value: 3}}]
  - name: check
    func: decrement
    current: [{key: left, value: 2}]
    target: {name: work, when: {key: left, value: 0}}
  - {name: stop}
"""
VALUES = {"work": {"count": 0, "failed": 0}, "check": {"left": 2}, "stop": {}}
SIGN = {"work": 1, "check": -1}

MACHINES = [None, "m1", "m2", "m3", "5"]
ASKED = [("work", None), ("work", "count"), ("work", "failed"), ("check", None), ("check", "left"), ("stop", None)]
PUTS = st.tuples(st.sampled_from(ASKED), st.sampled_from(MACHINES), st.integers(1, 3))
STEPS = st.lists(st.one_of(PUTS, PUTS, PUTS, PUTS, PUTS, st.none()), min_size=5, max_size=30)

names = itertools.count()


@dataclass
class Oracle:
    """Where the chart should be. `None` as a step is a reset."""

    state: str = "work"
    visit: int = 1
    values: dict[str, int] = field(default_factory=lambda: dict(VALUES["work"]))
    latest: dict[str, int] = field(default_factory=lambda: {"work": 1})
    reports: dict[tuple[int, str], str] = field(default_factory=dict)

    def put(self, state: str, key: str | None, machine: str | None) -> bool:
        wanted = key or next(iter(VALUES[state]), "")
        before = None if machine is None else self.reports.get((self.latest.get(state, 0), machine))
        if before is not None and before == wanted:
            return True
        if before is not None and machine is not None and state != self.state:
            # It was counted, and says more after the chart has moved on.
            self.reports[self.latest[state], machine] = wanted
            return True
        if state != self.state or state == "stop":
            return False
        if before is not None:
            self.values[before] -= SIGN[state]
        self.values[wanted] += SIGN[state]
        if machine is not None:
            self.reports[self.visit, machine] = wanted
        self._move()
        return True

    def _move(self) -> None:
        if self.state == "work" and self.values["failed"] >= 3:
            self._enter("stop")
        elif self.state == "work" and self.values["count"] >= 3:
            self._enter("check")
        elif self.state == "check" and self.values["left"] <= 0:
            self._enter("work")

    def _enter(self, state: str) -> None:
        self.state, self.visit, self.values = state, self.visit + 1, dict(VALUES[state])
        self.latest[state] = self.visit


@pytest.fixture(scope="module")
def app(shared_url: str) -> Iterator[Flask]:
    yield from opened_app(shared_url)


def check(client: FlaskClient, chart: str, oracle: Oracle) -> None:
    status = client.get(f"/charts/{chart}").get_json()
    assert (status["current_state"], status["visit"], status["values"]) == (oracle.state, oracle.visit, oracle.values)
    for state in VALUES:
        answer = client.get(f"/charts/{chart}/state?state={state}")
        assert (answer.status_code, answer.text) == ((200, state) if state == oracle.state else (406, ""))
        reached = client.get(f"/charts/{chart}/reached?state={state}")
        assert reached.status_code == (200 if state in oracle.latest else 406)


@given(steps=STEPS)
@settings(max_examples=examples(20, few=5), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reports_agree_with_the_oracle(
    app: Flask, steps: list[tuple[tuple[str, str | None], str | None, int] | None]
) -> None:
    chart, client, oracle = f"oracle-{next(names)}", app.test_client(), Oracle()
    import_text(app, CHART, chart)
    for step in steps:
        if step is None:
            assert client.post(f"/charts/{chart}/reset", json={"reason": "again"}).status_code == 200
            oracle = Oracle()
        else:
            (state, key), machine, times = step
            query = {"state": state, "key": key, "machine": machine}
            sent = {name: value for name, value in query.items() if value is not None}
            for _ in range(times):
                answer = client.put(f"/charts/{chart}/state", query_string=sent)
                expected = (200, state) if oracle.put(state, key, machine) else (406, "")
                assert (answer.status_code, answer.text) == expected
        check(client, chart, oracle)
    assert verify(service_of(app), chart).differences == ()
