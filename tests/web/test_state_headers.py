"""People `grep 200` a whole response: no header of a state answer, of any kind, holds a status's digits."""

from __future__ import annotations

import json
from itertools import product

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from app.web.replies import json_reply, plain_reply
from tests.support.apps import SEED, import_text

DIGITS = ("200", "406", "500")
PATHS = ("/state", "/charts/states/state")
# What can be UTF-8.
TEXT = st.characters(exclude_categories=["Cs"])
METHODS = ("GET", "PUT", "HEAD", "POST", "DELETE", "OPTIONS")
QUERIES = {
    "yes": "?state=green_state",
    "no": "?state=blue_state",
    "unknown": "?state=nowhere",
    "digits": "?state=200&machine=500",
    "missing": "",
    "repeated": "?state=green_state&state=green_state",
    "over-long": "?state=" + "x" * 500,
    "over-long with digits": "?state=" + "200406500" * 60,
    "key unknown": "?state=green_state&key=nothing",
    "no UTF-8": "?state=%ff",
}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database: the subject is what an answer looks like."""
    return sqlite_url


def headers_with_digits(response: TestResponse) -> list[str]:
    # The client's own test header aside, what is here is what goes out; the server adds Date and Server.
    return [f"{name}: {value}" for name, value in response.headers if any(d in f"{name}: {value}" for d in DIGITS)]


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
@pytest.mark.parametrize("path", [*PATHS, "/charts/gone/state"])
def test_no_header_has_a_status_in_it(client: FlaskClient, path: str, query: str) -> None:
    for method, accept in product(METHODS, ("*/*", "application/json", "text/html")):
        response = client.open(path + query, method=method, headers={"Accept": accept})
        assert headers_with_digits(response) == [], (method, response.status)
        assert "Location" not in response.headers


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_plain_answer_is_short(client: FlaskClient, query: str) -> None:
    for method in METHODS:
        response = client.open(f"/state{query}", method=method)
        assert int(response.headers["Content-Length"]) <= 128


def test_no_header_has_a_status_in_it_for_a_name_of_any_length() -> None:
    for length in range(1, 129):
        response = plain_reply("s" * length, 200).as_response()
        assert response.headers["Content-Length"] == str(length)
        assert headers_with_digits(response) == []


@given(text=st.text(TEXT, max_size=700), status=st.sampled_from([200, 406, 500, 400, 503]))
def test_json_body_of_any_length_is_padded_past_the_digits(text: str, status: int) -> None:
    response = json_reply({"detail": text}, status).as_response()
    assert headers_with_digits(response) == []
    assert json.loads(response.get_data()) == {"detail": text}
    assert int(response.headers["Content-Length"]) == len(response.get_data())


def test_json_body_is_padded_at_every_length() -> None:
    for length in (*range(150, 520), 1990, 2000, 4060, 5000, 14060, 20000):
        response = json_reply({"d": "x" * (length - len('{"d": ""}'))}, 200).as_response()
        assert headers_with_digits(response) == []
        assert length <= len(response.get_data()) <= length + 1200


@given(text=st.text(TEXT, max_size=300))
def test_plain_error_is_short_text_whatever_it_says(text: str) -> None:
    response = plain_reply(text, 500).as_response()
    assert len(response.get_data()) <= 128
    assert text.startswith(response.get_data().decode())


@pytest.mark.parametrize("name", ["chart-200", "406", "a500b"])
def test_chart_named_with_digits_shows_them_in_no_header(app: Flask, name: str) -> None:
    import_text(app, SEED, name=name)
    for method, accept in product(METHODS, ("*/*", "application/json")):
        path = f"/charts/{name}/state?state=green_state"
        response = app.test_client().open(path, method=method, headers={"Accept": accept})
        assert headers_with_digits(response) == []
