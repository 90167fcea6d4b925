"""What becomes of a request before the application sees it: headers said twice, and a target that is far too long."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.serving.conftest import history, running_seed
from tests.support.servers import Server

PATH = "/charts/states/state?state=green_state"


@pytest.fixture(scope="module")
def server(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_seed(sqlite_template, tmp_path_factory.mktemp("requests")) as opened:
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
    found, body = send(server, "GET", path + "x" * 60_000, [])
    assert (found, "state is longer than 128 characters" in body) == (status, True)


def test_longest_note_and_machine_fit_into_the_query(server: Server) -> None:
    said = {"machine": "\U0001f427" * 255, "note": "\U0001f525" * 1000}
    status, _ = send(server, "PUT", f"{PATH}&{urlencode(said)}", [])
    assert status == 200
    row = history(server, "states")[-1]
    assert {name: row[name] for name in said} == said


# What gunicorn refuses by itself.
REFUSED = {
    "a target without an end": (b"GET {}?state=" + b"x" * 70_000 + b" HTTP/1.1\r\n", 414),
    "a header without an end": (b"GET {}?state=green_state HTTP/1.1\r\nX-Machine: " + b"m" * 10_000 + b"\r\n", 431),
    "too many headers": (b"PUT {}?state=green_state HTTP/1.1\r\n" + b"A: b\r\n" * 101, 431),
    "no length": (b"PUT {}?state=green_state HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400),
}


@pytest.mark.parametrize("path", ["/state", "/reached/", "/turn", "/charts/states/state"])
@pytest.mark.parametrize(("request_", "status"), REFUSED.values(), ids=REFUSED)
def test_what_the_server_refuses_by_itself_is_500_on_the_default_path(
    server: Server, path: str, request_: bytes, status: int
) -> None:
    line, *headers = server.send_raw(request_.replace(b"{}", path.encode())).partition(b"\r\n\r\n")[0].splitlines()
    expected = status if path.startswith("/charts") else 500
    assert line.startswith(f"HTTP/1.1 {expected} ".encode())
    assert not [header for header in headers for digits in (b"200", b"406", b"500") if digits in header]


def test_utf_8_in_an_address_that_is_not_encoded_is_read(server: Server) -> None:
    address = "/charts/states/reached?state=green_state&machine=caf\u00e9".encode()
    reply = server.send_raw(b"GET " + address + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 200 ")
    reply = server.send_raw(b"GET " + address + b"\xff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert b"the query is not UTF-8" in reply
