"""GET /charts/C/diagram."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from flask import Flask

from tests.web.ui.browser import make_token

PATH = "/charts/rollout/diagram"


@pytest.mark.parametrize(
    ("query", "mimetype", "start"),
    [
        ("", "image/svg+xml", "<svg "),
        ("?format=svg", "image/svg+xml", "<svg "),
        ("?format=svg&theme=dark", "image/svg+xml", "<svg "),
        ("?format=dot", "text/vnd.graphviz", "digraph "),
        ("?format=mermaid", "text/plain", "stateDiagram-v2"),
    ],
)
def test_diagram_has_the_requested_format(app: Flask, query: str, mimetype: str, start: str) -> None:
    response = app.test_client().get(PATH + query)
    assert response.status_code == 200
    assert response.mimetype == mimetype
    assert response.text.startswith(start)


@pytest.mark.parametrize("query", ["?format=png", "?format=", "?format=svg&format=dot", "?theme=blue"])
def test_unknown_format_or_theme_is_refused(app: Flask, query: str) -> None:
    assert app.test_client().get(PATH + query).status_code == 400


def test_diagram_marks_where_the_chart_is_now(app: Flask) -> None:
    client = app.test_client()
    for number in range(5):
        client.put(f"/charts/rollout/state?state=canary&machine=m{number}")
    title = ET.fromstring(client.get(PATH).text).findtext("{http://www.w3.org/2000/svg}title")
    assert title == "Chart rollout, now in fleet"
    assert "5 / 5" in client.get(PATH).text


def test_diagram_of_an_unknown_chart_is_404(app: Flask) -> None:
    assert app.test_client().get("/charts/none/diagram").status_code == 404


def test_diagram_needs_a_reader(guarded: Flask) -> None:
    client = guarded.test_client()
    assert client.get(PATH).status_code == 401
    headers = {"Authorization": f"Bearer {make_token(guarded, 'reader', pattern='x*')}"}
    assert client.get(PATH, headers=headers).status_code == 403


def test_picture_may_run_and_load_nothing(app: Flask) -> None:
    assert app.test_client().get(PATH).headers["Content-Security-Policy"] == "default-src 'none'"
