"""The seed's page, line by line, with the real curl on the real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.conftest import curl, running_seed, serving, status_and_body
from tests.support.servers import Server, run_curl

# What is sent, and what comes back: status and body.
EXAMPLE = [
    ("GET", "green_state", 200, "green_state"),
    ("GET", "red_state", 406, ""),
    ("GET", "blue_state", 406, ""),
    ("PUT", "red_state", 406, ""),
    ("PUT", "green_state", 200, "green_state"),
    ("GET", "green_state", 406, ""),
    ("GET", "red_state", 200, "red_state"),
    ("PUT", "green_state", 406, ""),
    ("PUT", "red_state", 200, "red_state"),
    ("GET", "red_state", 406, ""),
    ("GET", "blue_state", 200, "blue_state"),
    ("PUT", "blue_state", 406, ""),
    ("GET", "blue_state", 200, "blue_state"),
    ("GET", "no_such_state", 406, ""),
]


@pytest.fixture(scope="module")
def started(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_seed(sqlite_template, tmp_path_factory.mktemp("seed")) as server:
        yield server


@pytest.fixture
def server(started: Server) -> Server:
    """The server that the tests here share; the chart is in its first state."""
    started.act("states", "reset")
    return started


def test_seed_example_holds_line_by_line(database_url: str, tmp_path: Path, seed: Path) -> None:
    with serving(database_url, tmp_path, "--chart", seed) as server:
        for number, (method, state, status, body) in enumerate(EXAMPLE, 1):
            found = status_and_body(curl(server, f"/state?state={state}", "-X", method))
            assert found == (status, body), f"line {number}: {method} {state}"


def test_grep_finds_a_status_only_where_it_is_the_status(server: Server) -> None:
    for path in ("/state?state=green_state", "/charts/states/state?state=green_state"):
        assert "200" in curl(server, path)
        for state in ("red_state", "nowhere", "blue_state"):
            for method in ("GET", "PUT", "HEAD"):
                options = ("-I",) if method == "HEAD" else ("-X", method)
                response = curl(server, path.replace("green_state", state), *options)
                assert response.startswith("HTTP/1.1 406 ")
                assert "200" not in response
                assert "500" not in response
    assert "200" not in curl(server, "/state")


def test_status_of_a_yes_is_the_only_digits_of_their_kind(server: Server) -> None:
    for options in ((), ("-H", "Accept: application/json")):
        status_line, _, rest = curl(server, "/state?state=green_state", *options).partition("\n")
        assert status_line == "HTTP/1.1 200 OK"
        headers = rest.partition("\n\n")[0]
        assert not any(digits in headers for digits in ("200", "406", "500")), headers


def test_other_methods_are_405_with_allow(server: Server) -> None:
    response = curl(server, "/state?state=green_state", "-X", "POST", "-d", "x=1")
    assert response.startswith("HTTP/1.1 405 ")
    assert "\nAllow: " in response


def test_json_is_there_for_the_asking(server: Server) -> None:
    response = curl(server, "/state?state=green_state", "-H", "Accept: application/json")
    assert response.startswith("HTTP/1.1 200 ")
    assert '"reason": "current"' in response


def test_curl_encodes_what_it_is_told(server: Server) -> None:
    done = run_curl("-sG", "--data-urlencode", "state=green_state", f"{server.url}/state")
    assert done.stdout == "green_state"


def test_raw_bytes_are_refused_and_break_nothing(server: Server) -> None:
    assert curl(server, "/state?state=green%0astate").startswith("HTTP/1.1 500 ")
    assert curl(server, "/charts/states/state?state=%ff").startswith("HTTP/1.1 400 ")
    assert curl(server, "/state?state=green_state").startswith("HTTP/1.1 200 ")


def test_machine_header_of_curl_is_utf8(server: Server) -> None:
    for status in ("200", "200"):
        response = curl(server, "/state?state=green_state", "-X", "PUT", "-H", "X-Machine: büro-01")
        assert response.startswith(f"HTTP/1.1 {status} ")


def test_body_of_any_size_is_ignored(server: Server, tmp_path: Path) -> None:
    body = tmp_path / "body"
    for state, size in (("green_state", 1024), ("red_state", 2 * 1024 * 1024)):
        body.write_bytes(b"x" * size)
        response = curl(server, f"/state?state={state}", "-X", "PUT", "-H", "Expect:", "--data-binary", f"@{body}")
        assert status_and_body(response) == (200, state)
