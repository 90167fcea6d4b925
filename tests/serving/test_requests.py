"""What becomes of a request before the application sees it: headers said twice, and a target that is far too long."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest

from tests.serving.conftest import history, serving
from tests.support.apps import SEED
from tests.support.servers import Server

PATH = "/charts/states/state?state=green_state"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("requests")
    (folder / "states.yaml").write_text(SEED)
    with serving(f"sqlite:///{folder / 'state.db'}", folder, "--chart", folder / "states.yaml") as opened:
        yield opened


def send(server: Server, method: str, path: str, headers: list[tuple[str, str]]) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest(method, path)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    found = (response.status, response.read().decode())
    connection.close()
    return found


@pytest.mark.parametrize("name", ["X-Machine", "Idempotency-Key"])
@pytest.mark.parametrize("second", ["b", "a"], ids=["another", "the same"])
def test_header_that_is_sent_twice_is_refused(server: Server, name: str, second: str) -> None:
    headers = [(name, "a"), ("Accept", "application/json"), (name.lower(), second)]
    status, body = send(server, "PUT", PATH, headers)
    assert (status, f"{name} is given more than once" in body) == (400, True)
    assert [row["kind"] for row in history(server, "states")] == ["import"]


def test_header_that_is_sent_twice_is_500_under_state(server: Server) -> None:
    found = send(server, "GET", "/state?state=green_state", [("X-Machine", "a"), ("X-Machine", "b")])
    assert found == (500, "X-Machine is given more than once\n")


@pytest.mark.parametrize(("once", "twice"), [("X-Machine", "Idempotency-Key"), ("Idempotency-Key", "X-Machine")])
def test_header_that_is_sent_once_beside_one_sent_twice_is_not_the_culprit(
    server: Server, once: str, twice: str
) -> None:
    status, body = send(server, "PUT", PATH, [(twice, "a"), (once, "a"), (twice, "b"), ("Accept", "application/json")])
    assert (status, json.loads(body)["detail"]) == (400, f"{twice} is given more than once")


def test_header_that_is_sent_twice_is_refused_by_a_view_of_flask(server: Server) -> None:
    path = "/charts/states/did.curl?state=green_state"
    status, body = send(server, "GET", path, [("X-Machine", "a"), ("X-Machine", "b")])
    assert (status, json.loads(body)["detail"]) == (400, "X-Machine is given more than once")


def test_query_goes_before_a_header_that_is_sent_twice(server: Server) -> None:
    found = send(server, "GET", PATH + "&machine=a", [("X-Machine", "a"), ("X-Machine", "b")])
    assert found == (200, "green_state")


@pytest.mark.parametrize(("path", "status"), [("/state?state=", 500), ("/charts/states/state?state=", 400)])
def test_state_that_is_far_too_long_is_refused_in_the_services_words(server: Server, path: str, status: int) -> None:
    found, body = send(server, "GET", path + "x" * 8000, [])
    assert (found, "state is longer than 128 characters" in body) == (status, True)
