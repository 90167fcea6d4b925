"""`GET /charts/C?at=`, `GET /charts/C/runs`, and the page of runs."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from flask.testing import FlaskClient

from tests.support.apps import SEED


@pytest.fixture
def moved(client: FlaskClient) -> str:
    """A chart that has moved since the instant that this returns."""
    client.put("/charts/states", data=SEED)
    status = client.get("/charts/states").get_json()
    client.put("/charts/states/state?state=green_state")
    client.post("/charts/states/reset", json={"reason": "again"})
    return str(status["read_at"])


def test_status_at_an_instant_is_what_was_answered_then(client: FlaskClient, moved: str) -> None:
    then = client.get("/charts/states", query_string={"at": moved})
    now = client.get("/charts/states").get_json()
    assert then.status_code == 200, then.text
    assert (then.get_json()["seq"], then.get_json()["run"], then.get_json()["read_at"]) == (1, 1, moved)
    assert (now["seq"], now["run"]) == (3, 2)
    assert then.get_json().keys() == now.keys()
    text = client.get("/charts/states", query_string={"at": moved}, headers={"Accept": "text/plain"}).text
    assert text.startswith("states: green_state\nversion 1, run 1, visit 1")


def test_instant_without_a_status_is_an_error(client: FlaskClient, moved: str) -> None:
    def at(text: str, accept: str = "application/json") -> int:
        return client.get("/charts/states", query_string={"at": text}, headers={"Accept": accept}).status_code

    assert at((datetime.fromisoformat(moved) - timedelta(days=1)).isoformat()) == 404
    assert at((datetime.fromisoformat(moved) + timedelta(days=1)).isoformat()) == 400
    assert at("yesterday") == 400
    assert at(moved, "application/yaml") == 400


def test_runs_are_listed(client: FlaskClient, moved: str) -> None:
    first, second = client.get("/charts/states/runs").get_json()
    assert [(stay["state"], stay["reports"]) for stay in first["states"]] == [("green_state", 1), ("red_state", 0)]
    assert (first["ending"], first["current"], second["current"], second["ended_at"]) == (None, False, True, None)
    assert [run["run"] for run in client.get("/charts/states/runs?limit=1").get_json()] == [2]
    assert [run["run"] for run in client.get("/charts/states/runs?before=2").get_json()] == [1]
    assert client.get("/charts/states/runs?limit=0").status_code == 400
    assert client.get("/charts/none/runs").status_code == 404


def test_page_puts_runs_side_by_side(client: FlaskClient, moved: str) -> None:
    page = client.get("/ui/charts/states/runs").text
    assert "broken off in red_state" in page
    assert "in green_state" in page
    assert 'href="/ui/charts/states/runs"' in client.get("/ui/charts/states").text
