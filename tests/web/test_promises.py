"""Promises over HTTP: a chart that can break one is refused with the story, at import and at upgrade."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from flask.testing import FlaskClient

from app.core.chart import NO_PROMISES
from app.service.context import Service
from app.service.reading import get_definition

KEPT = """chart: web
current_state: go
expect: 20
require_machine: true
never: {down: ">5", at: stop}
always: {ends: [stop, done, late], within: 2d}
states:
  - name: go
    func: increment
    slots: 4
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: stop, when: {key: failed, value: 2}}
      - {name: done, when: {key: count, value: "95%"}}
      - {name: late, when: {key: elapsed, value: 1d}}
  - name: stop
  - name: done
  - name: late
"""
BROKEN = KEPT.replace("slots: 4", "slots: 5")


@pytest.fixture
def charts() -> Sequence[str]:
    return []


def test_chart_that_can_break_its_promise_is_422_with_the_story(client: FlaskClient) -> None:
    answer = client.put("/charts/web", data=BROKEN)
    (problem,) = answer.get_json()["problems"]
    assert (answer.status_code, problem["line"]) == (422, 5)
    assert problem["message"] == "never down >5 at stop can be broken: 6 machines can be down"
    assert problem["story"].startswith("chart: web.yaml\nstory:\n  - name: 6 machines are down\n")
    assert client.get("/charts/web").status_code == 404


def test_upgrade_that_can_break_a_promise_changes_nothing(client: FlaskClient) -> None:
    assert client.put("/charts/web", data=KEPT).status_code == 201
    assert client.put("/charts/web", data=BROKEN).status_code == 422
    assert client.get("/charts/web").get_json()["version"] == 1


def test_promises_are_kept_with_the_version_and_exported(client: FlaskClient, service: Service) -> None:
    client.put("/charts/web", data=KEPT)
    promises = get_definition(service, "web").promises
    assert promises != NO_PROMISES
    exported = client.get("/charts/web", headers={"Accept": "application/yaml"}).get_data(as_text=True)
    assert client.put("/charts/copy", data=exported.replace("chart: web", "chart: copy")).status_code == 201
    assert get_definition(service, "copy").promises == promises
