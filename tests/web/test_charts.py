"""What charts there are, where each stands, and its definitions."""

from __future__ import annotations

from urllib.parse import quote

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient

from app.core.log import Author
from app.service import operate
from app.wiring import service_of
from tests.support.apps import SEED, import_text
from tests.support.databases import ON_ONE_DATABASE

YAML = {"Accept": "application/yaml"}
PLAIN = {"Accept": "text/plain"}


def test_charts_lists_every_chart_by_name(app: Flask) -> None:
    import_text(app, SEED, name="another")
    response = app.test_client().get("/charts")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert [item["chart"] for item in response.get_json()] == ["another", "states"]


def test_charts_says_where_each_stands(client: FlaskClient) -> None:
    client.put("/state?state=green_state")
    (item,) = client.get("/charts").get_json()
    assert item["current_state"] == "red_state"
    assert item["run"] == 1
    assert item["paused"] is False
    assert item["progress"] == {"key": "count", "value": 0, "needed": 1, "target": "blue_state"}
    assert item["updated_at"].endswith("Z")


def test_charts_is_empty_without_charts(app: Flask) -> None:
    operate.archive(service_of(app), "states", "over", Author(actor="test"))
    assert app.test_client().get("/charts").get_json() == []


@ON_ONE_DATABASE
@pytest.mark.parametrize("path", ["/charts", "/charts/states", "/charts/states/versions", "/charts/states/versions/1"])
def test_head_answers_as_get(client: FlaskClient, path: str) -> None:
    asked, response = client.get(path), client.head(path)
    assert (response.status_code, response.data) == (200, b"")
    assert response.headers["Content-Length"] == asked.headers["Content-Length"]


@ON_ONE_DATABASE
@pytest.mark.parametrize("path", ["/charts", "/charts/states/versions", "/charts/states/versions/1"])
@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_405(client: FlaskClient, path: str, method: str) -> None:
    response = client.open(path, method=method)
    assert (response.status_code, response.mimetype) == (405, "application/problem+json")
    assert "GET" in response.headers["Allow"]


@ON_ONE_DATABASE
@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/html", "nonsense"])
def test_chart_is_json_unless_asked_otherwise(client: FlaskClient, accept: str | None) -> None:
    response = client.get("/charts/states", headers={} if accept is None else {"Accept": accept})
    assert (response.status_code, response.mimetype) == (200, "application/json")
    status = response.get_json()
    assert (status["chart"], status["current_state"], status["version"]) == ("states", "green_state", 1)
    assert status["values"] == {"count": 0}


def test_chart_as_text_says_what_it_waits_for_on_one_line(client: FlaskClient) -> None:
    response = client.get("/charts/states", headers=PLAIN)
    assert (response.status_code, response.mimetype) == (200, "text/plain")
    lines = response.text.splitlines()
    assert lines[0] == "states: green_state"
    assert [line for line in lines if line.startswith("waits for")] == [
        "waits for red_state when count >= 1 (now 0, 1 more)"
    ]


def test_chart_as_text_says_that_it_is_over(client: FlaskClient) -> None:
    client.put("/state?state=green_state")
    client.put("/state?state=red_state")
    text = client.get("/charts/states", headers=PLAIN).text
    assert "blue_state (final)" in text
    assert "waits for nothing: blue_state is final" in text


def test_chart_as_text_says_who_paused_it_and_why(app: Flask) -> None:
    operate.pause(service_of(app), "states", "lunch time", Author(actor="ann"))
    text = app.test_client().get("/charts/states", headers=PLAIN).text
    assert "paused by ann" in text
    assert "lunch time" in text


def test_chart_as_yaml_carries_live_values_and_imports_again(app: Flask) -> None:
    client = app.test_client()
    client.put("/state?state=green_state")
    response = client.get("/charts/states", headers=YAML)
    assert (response.status_code, response.mimetype) == (200, "application/yaml")
    assert yaml.safe_load(response.text)["current_state"] == "red_state"
    assert import_text(app, response.text, name="copy").status.current_state == "red_state"


def test_versions_are_listed_oldest_first(app: Flask) -> None:
    import_text(app, SEED + "    description: the end\n")
    response = app.test_client().get("/charts/states/versions")
    assert [item["version"] for item in response.get_json()] == [1, 2]


def test_version_is_the_text_that_was_imported(app: Flask) -> None:
    second = SEED + "    description: the end  # ü\n"
    import_text(app, second)
    client = app.test_client()
    first = client.get("/charts/states/versions/1")
    assert (first.status_code, first.mimetype, first.text) == (200, "application/yaml", SEED)
    assert client.get("/charts/states/versions/2").text == second


@pytest.mark.parametrize(
    ("version", "status"), [("0", 404), ("2", 404), ("999999999999999999999", 400), ("9223372036854775808", 400)]
)
def test_version_that_is_not_there_is_404_and_a_number_past_64_bits_400(
    client: FlaskClient, version: str, status: int
) -> None:
    response = client.get(f"/charts/states/versions/{version}")
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")


@ON_ONE_DATABASE
@pytest.mark.parametrize("version", ["x", "-1", "1.0", "1x", ""])
def test_version_that_is_no_number_is_404_or_the_list(client: FlaskClient, version: str) -> None:
    assert client.get(f"/charts/states/versions/{version}").status_code == (404 if version else 200)


@pytest.mark.parametrize("tail", ["", "/versions", "/versions/1"])
def test_unknown_chart_is_404(client: FlaskClient, tail: str) -> None:
    for accept in ("application/json", "text/plain", "application/yaml"):
        response = client.get(f"/charts/gone{tail}", headers={"Accept": accept})
        assert (response.status_code, response.mimetype) == (404, "application/problem+json")
        assert response.get_json()["detail"] == "no chart named 'gone'"


@pytest.mark.parametrize("name", ["a", "x" * 128, "kernel-6.12", "team:web", "under_score", "...", "-", "200", "state"])
def test_chart_of_any_name_is_found(app: Flask, name: str) -> None:
    import_text(app, SEED, name=name)
    client = app.test_client()
    for tail in ("", "/versions/1", "/state?state=green_state"):
        assert client.get(f"/charts/{name}{tail}").status_code == 200
        assert client.get(f"/charts/{quote(name, safe='').replace('-', '%2D')}{tail}").status_code == 200


@ON_ONE_DATABASE
@pytest.mark.parametrize(
    "name",
    [
        "states%0a",
        "%0astates",
        "states%00",
        "states%20",
        "a%2Fb",
        "x" * 129,
        "st%C3%A4tes",
        "%ff",
        "states%3Fstate=x",
        "STATES",
        "..%2Fcharts%2Fstates",
        "%25",
        "<script>",
    ],
)
def test_name_that_no_chart_can_have_is_404(client: FlaskClient, name: str) -> None:
    for tail in ("", "/versions", "/state?state=green_state"):
        response = client.get(f"/charts/{name}{tail}")
        assert (response.status_code, response.mimetype) == (404, "application/problem+json")
        assert len(response.get_json()["detail"].splitlines()) == 1


@ON_ONE_DATABASE
@pytest.mark.parametrize("path", ["/nothing", "/chart/states", "/charts/states/nothing", "/states", "/favicon.ico"])
def test_path_that_is_not_there_is_404(client: FlaskClient, path: str) -> None:
    response = client.post(path)
    assert (response.status_code, response.mimetype) == (404, "application/problem+json")
