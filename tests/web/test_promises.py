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


# By a roster: 5 % of 20 machines are one at a time, of 101 they are six.
ROSTERED = KEPT.replace("expect: 20", "expect: {roster: web}").replace("slots: 4", 'slots: "5%"')


def lines(machines: int) -> str:
    return "".join(f"web-{number:03}\n" for number in range(machines))


def test_promise_of_a_chart_by_a_roster_is_held_to_at_import_and_when_the_roster_changes(client: FlaskClient) -> None:
    assert client.put("/rosters/web", data=lines(20)).status_code == 201
    answer = client.put("/charts/web", data=ROSTERED)
    assert (answer.status_code, answer.get_json()["warnings"]) == (201, [])
    # 101 machines have six slots: two have failed and five are at work when it stops.
    answer = client.put("/rosters/web", data=lines(101))
    (problem,) = answer.get_json()["problems"]
    assert answer.status_code == 422
    assert problem["message"] == "chart 'web', 5:8: never down >5 at stop can be broken: 7 machines can be down"
    assert problem["story"].startswith("chart: web.yaml\nstory:\n  - name: 7 machines are down\n")
    assert len(client.get("/rosters/web/versions").get_json()) == 1
    assert client.get("/charts/web").get_json()["expect"] == 20
    assert client.put("/rosters/web", data=lines(80)).status_code == 200
    assert client.get("/charts/web").get_json()["expect"] == 80


def test_import_of_a_chart_that_can_break_its_promise_by_the_roster_is_422(client: FlaskClient) -> None:
    assert client.put("/rosters/web", data=lines(101)).status_code == 201
    answer = client.put("/charts/web", data=ROSTERED)
    (problem,) = answer.get_json()["problems"]
    assert (answer.status_code, problem["line"]) == (422, 5)
    assert problem["message"] == "never down >5 at stop can be broken: 7 machines can be down"
    assert client.get("/charts/web").status_code == 404


def test_promise_in_percent_is_of_the_roster(client: FlaskClient) -> None:
    assert client.put("/rosters/web", data=lines(20)).status_code == 201
    text = ROSTERED.replace('down: ">5"', 'down: ">10%"')
    assert client.put("/charts/web", data=text).status_code == 201
    assert client.put("/rosters/web", data=lines(25)).status_code == 422
