"""Notes over HTTP: `note=` or the body of a PUT, and where they are shown. The service's tests have what is kept."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import pytest
from flask.testing import FlaskClient

from tests.service.support import CANARY
from tests.support.databases import ON_ONE_DATABASE

pytestmark = ON_ONE_DATABASE
URL = "/charts/web/state?state=canary&machine=m1"
JSON = {"Accept": "application/json"}


@pytest.fixture
def charts() -> Sequence[str]:
    return [CANARY]


def note_of(client: FlaskClient) -> str | None:
    (found,) = client.get("/charts/web/machines?state=canary", headers=JSON).get_json()["machines"]
    note: str | None = found["note"]
    return note


BODIES = {
    "text": (b"disk full", "disk full"),
    "lines and tabs": (b"a\tb\nc\n", "a\tb\nc\n"),
    "control characters": (b"\x1b[31mred\x00\r\n", "\ufffd[31mred\ufffd\ufffd\n"),
    "what is not UTF-8": (b"caf\xe9", "caf\ufffd"),
    "the last 8 KiB": (b"x" * 10000 + b"y" * 8192, "y" * 8192),
    "a character that is cut": ("é".encode() * 5000 + b"z", "é" * 4095 + "z"),
    "a form": (b"note=hello&x=%20", "note=hello&x=%20"),
    "nothing": (b"", None),
}


@pytest.mark.parametrize(("body", "note"), BODIES.values(), ids=BODIES)
def test_body_of_a_put_is_its_note(client: FlaskClient, body: bytes, note: str | None) -> None:
    answer = client.put(URL, data=body, content_type="application/x-www-form-urlencoded")
    assert (answer.status_code, answer.text) == (200, "canary")
    assert note_of(client) == note


def test_note_of_the_query_takes_the_place_of_the_body(client: FlaskClient) -> None:
    assert client.put(f"{URL}&note=a%0Ab%1B", data=b"body").status_code == 200
    assert note_of(client) == "a\nb\ufffd"


@pytest.mark.parametrize("query", ["note=", f"note={'x' * 1001}", "note=a&note=b"], ids=["empty", "long", "two"])
def test_bad_note_is_400_and_counts_nothing(client: FlaskClient, query: str) -> None:
    answer = client.put(f"{URL}&{query}")
    assert (answer.status_code, "note" in answer.get_json()["detail"]) == (400, True)
    assert client.get("/charts/web").get_json()["values"]["count"] == 0


def test_note_of_1000_characters_is_taken(client: FlaskClient) -> None:
    client.put(f"{URL}&note={'%C3%A9' * 1000}")
    assert note_of(client) == "é" * 1000


def test_body_over_the_limit_is_413_and_counts_nothing(client: FlaskClient) -> None:
    assert client.put(URL, data=b"x" * (3 * 1024 * 1024)).status_code == 413
    assert client.get("/charts/web").get_json()["values"]["count"] == 0


def test_note_is_in_every_form_of_the_history(client: FlaskClient) -> None:
    client.put(URL, data="two\nlines")
    history = "/charts/web/history?kind=update&format="
    assert client.get(f"{history}json").get_json()[0]["note"] == "two\nlines"
    assert json.loads(client.get(f"{history}ndjson").text)["note"] == "two\nlines"
    (row,) = csv.DictReader(io.StringIO(client.get(f"{history}csv").text))
    assert row["note"] == "two\nlines"


def test_note_is_in_no_header(client: FlaskClient) -> None:
    for method in ("PUT", "GET"):
        assert "secret" not in str(client.open(f"{URL}&note=secret", method=method).headers)
