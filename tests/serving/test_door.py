"""The door: what a worker does with clients that hang up, send too much, or come too many at once."""

from __future__ import annotations

import http.client
import json
import resource
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.apps import SEED
from tests.support.processes import PATIENCE, free_port, until
from tests.support.servers import GUNICORN, Server, chart_path, running, shared_database

ONE_SLOT = """\
chart: {name}
current_state: reboot
states:
- name: reboot
  func: increment
  slots: 1
  current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
  target: {{name: done, when: {{key: count, value: 20}}}}
- name: done
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("door")
    with shared_database(request, request.param) as url, running(url, folder, max_waiters="5") as served:
        yield served


@pytest.fixture
def chart(server: Server, request: pytest.FixtureRequest) -> str:
    name = f"c{abs(hash(request.node.name)) % 10**8}"
    reply = server.ask("PUT", f"/charts/{name}", ONE_SLOT.format(name=name))
    assert reply.status == 201, reply.body
    return name


def send(server: Server, request: str, body: bytes = b"") -> socket.socket:
    """Send a request by hand and leave its connection open."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.sendall(request.encode().replace(b"\n", b"\r\n") + body)
    return connection


def hang_up_while_waiting(server: Server, method: str, path: str) -> None:
    """Begin a request that waits, and hang up once it does."""
    connection = send(server, f"{method} {path} HTTP/1.1\nHost: localhost\n\n")
    server.until_waiting(1)
    connection.close()


def test_caller_that_hung_up_is_given_no_slot(server: Server, chart: str) -> None:
    assert server.ask("PUT", chart_path(chart, "slot", state="reboot", machine="a")).status == 200
    hang_up_while_waiting(server, "PUT", chart_path(chart, "slot", state="reboot", machine="b", wait="30"))
    until(lambda: server.waiters() == 0, "its place is free")
    assert server.ask("DELETE", chart_path(chart, "slot", state="reboot", machine="a")).status == 200
    assert server.ask("PUT", chart_path(chart, "slot", state="reboot", machine="c")).status == 200
    assert [row["machine"] for row in server.history(chart) if row["kind"] == "claim"] == ["a", "c"]


def test_places_of_callers_that_hung_up_are_free(server: Server, chart: str) -> None:
    path = chart_path(chart, state="done", wait="30")
    connections = [send(server, f"GET {path} HTTP/1.1\nHost: localhost\n\n") for _ in range(5)]
    server.until_waiting(5)
    assert server.ask("GET", path).status == 503
    for connection in connections:
        connection.close()
    until(lambda: server.waiters() == 0, "their places are free")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_body_that_is_too_large_is_413_and_counts_nothing(server: Server, chart: str, framing: str) -> None:
    assert server.ask("PUT", chart_path(chart, "slot", state="reboot", machine="a")).status == 200
    body = b"x" * 2_500_000
    path = chart_path(chart, state="reboot", machine="a")
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        if framing == "length":
            connection.request("PUT", path, body)
        else:
            connection.request("PUT", path, iter([body]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        assert connection.getresponse().status == 413
    assert server.ask("PUT", chart_path(chart, state="reboot", machine="a")).status == 200
    assert [row["kind"] for row in server.history(chart)] == ["import", "claim", "update"]


def test_body_of_a_report_is_read_and_the_report_counts_once(server: Server, chart: str) -> None:
    assert server.ask("PUT", chart_path(chart, "slot", state="reboot", machine="a")).status == 200
    assert server.ask("PUT", chart_path(chart, state="reboot", machine="a"), "all is well\n" * 1000).status == 200
    # The connection is clean: the next request on it is understood.
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        for _ in range(2):
            connection.request("PUT", chart_path(chart, state="reboot", machine="a"), b"more")
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"reboot")
    assert server.status(chart)["values"] == {"count": 1, "failed": 0}


# Routes that read a body and routes that read none. Each is sent more than any of them takes.
BODIED = [
    ("PUT", "/charts/{}/state?state=reboot&machine=a", "/charts/<chart:name>/state"),
    ("PUT", "/charts/{}/slot?state=reboot&machine=a", "/charts/<chart:name>/slot"),
    ("DELETE", "/charts/{}/slot?state=reboot&machine=a", "/charts/<chart:name>/slot"),
    ("PUT", "/charts/{}", "/charts/<chart:name>"),
    ("POST", "/charts/{}/pause", "/charts/<chart:name>/pause"),
    ("POST", "/v1/pre-reboot", "/v1/pre-reboot"),
    ("PUT", "/calendars/{}", "/calendars/<chart:calendar>"),
    ("PUT", "/subscriptions/{}", "/subscriptions/<string:subscription>"),
    ("PUT", "/tokens/{}", "/tokens/<string:token>"),
    ("DELETE", "/tokens/{}", "/tokens/<string:token>"),
    ("POST", "/enrol?machine={}", "/enrol"),
]


@pytest.mark.parametrize(("method", "path", "route"), BODIED, ids=[f"{m}-{route}" for m, _, route in BODIED])
def test_large_body_is_413_before_anything_is_done(
    server: Server, chart: str, method: str, path: str, route: str
) -> None:
    before = server.history(chart)
    counted = _count(server, method, route, 413)
    for size in (3_000_000, 30_000_000):
        # The real curl asks before it sends a large body (Expect: 100-continue). This client does not.
        assert server.ask(method, path.format(chart), "x" * size).status == 413
    assert server.history(chart) == before
    assert _count(server, method, route, 413) == counted + 2
    until(lambda: [line["status"] for line in _logged(server, path.format(chart))][-1:] == [413], "it is logged")


def _count(server: Server, method: str, route: str, status: int) -> float:
    series = f'stateservice_requests_total{{method="{method}",route="{route}",status="{status}"}} '
    lines = server.ask("GET", "/metrics").body.splitlines()
    return sum(float(line.removeprefix(series)) for line in lines if line.startswith(series))


def _logged(server: Server, path: str) -> list[dict[str, object]]:
    """The lines of the access log about a path."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if '"request_id"' in line]
    return [line for line in lines if line["path"] == path.partition("?")[0]]


@pytest.mark.parametrize("sent", ["Content-Length: 1000\n\n{}", "Transfer-Encoding: chunked\n\n{size:x}\n{}\n"])
@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/rosters/cut", "web-01 zone=a\nweb-0"),
        ("/charts/cut", "current_state: over\nstates: [{name: over}]\n"),
        ("/charts/{}/state?state=reboot&machine=a", "half of a no"),
    ],
    ids=["roster", "chart", "report"],
)
def test_upload_that_was_cut_off_is_not_taken_for_the_whole(
    server: Server, chart: str, path: str, part: str, sent: str
) -> None:
    path = path.format(chart)
    before, lines = server.history(chart), len(_logged(server, path))
    crossed = part.replace("\n", "\r\n")
    head = f"PUT {path} HTTP/1.1\nHost: localhost\n" + sent.format(part, size=len(crossed))
    send(server, head).close()
    until(lambda: len(_logged(server, path)) > lines, "it is logged")
    assert _logged(server, path)[-1]["outcome"] != "done"
    assert server.history(chart) == before
    if "cut" in path:
        assert server.ask("GET", path).status == 404


def test_error_that_ends_a_wait_is_counted_and_logged(server: Server, chart: str) -> None:
    path = chart_path(chart, state="done", wait="30")
    connections = [send(server, f"GET {path} HTTP/1.1\nHost: localhost\n\n") for _ in range(5)]
    server.until_waiting(5)
    reply = server.ask("GET", f"/charts/{chart}/history?after=1&wait=30", X_Request_Id="mine")
    assert (reply.status, reply.headers["X-Request-Id"]) == (503, "mine")
    for connection in connections:
        connection.close()
    until(lambda: server.waiters() == 0, "their places are free")
    until(lambda: [line["status"] for line in _logged(server, f"/charts/{chart}/history")] == [503], "it is logged")
    assert _count(server, "GET", "/charts/<chart:name>/history", 503) >= 1


@pytest.mark.parametrize("rest", ["state?state=done&wait=30", "history?after=1&wait=30"])
def test_caller_that_hung_up_is_logged_once(server: Server, chart: str, rest: str) -> None:
    hang_up_while_waiting(server, "GET", f"/charts/{chart}/{rest}")
    until(lambda: _logged(server, f"/charts/{chart}/{rest}"), "it is logged")
    assert [line["status"] for line in _logged(server, f"/charts/{chart}/{rest}")] == [499]


def test_refused_upload_is_counted_and_logged(sqlite_url: str, tmp_path: Path) -> None:
    with running(sqlite_url, tmp_path, workers="1", auth="tokens", secret_key="k" * 32) as server:
        reply = server.ask("PUT", "/rosters/web", "web-01\n")
        assert (reply.status, reply.json()["title"]) == (401, "Token required")
        until(lambda: [line["status"] for line in _logged(server, "/rosters/web")] == [401], "it is logged")


@pytest.mark.parametrize("path", ["/charts/{}/state?state=reboot&machin=a", "/charts/{}/state?state=reboot&Machine=a"])
def test_misspelt_parameter_is_400_and_counts_nothing(server: Server, chart: str, path: str) -> None:
    reply = server.ask("PUT", path.format(chart))
    assert reply.status == 400
    assert "did you mean 'machine'?" in reply.body


@pytest.mark.parametrize("rest", ["", "/machines", "/versions"])
def test_unknown_parameter_of_an_administration_route_is_400(server: Server, chart: str, rest: str) -> None:
    reply = server.ask("GET", f"/charts/{chart}{rest}?stat=reboot")
    assert reply.status == 400
    assert "unknown parameter 'stat'" in reply.body


def test_history_is_waited_for_without_a_thread(server: Server, chart: str) -> None:
    """More requests wait for rows than one worker has threads for Flask."""
    held = [
        server.callers.submit(server.ask, "GET", f"/charts/{chart}/history?after=1&wait=30", None) for _ in range(5)
    ]
    server.until_waiting(5)
    server.ask("PUT", chart_path(chart, "slot", state="reboot", machine="a"))
    assert [[row["kind"] for row in one.result(30).json()] for one in held] == [["claim"]] * 5


def test_hosts_are_compared_without_case_and_final_dot(sqlite_url: str, tmp_path: Path) -> None:
    with running(sqlite_url, tmp_path, workers="1", trusted_hosts="state.example,127.0.0.1") as server:
        for host in ("STATE.EXAMPLE", "state.example.", "State.Example.:80"):
            assert server.ask("GET", "/charts", Host=host).status == 200
            assert server.ask("GET", "/charts/none/state?state=a", Host=host).status == 404
        assert server.ask("GET", "/charts/none/state?state=a", Host="other.example").status == 400


def test_connections_beyond_the_limit_are_told_503_and_the_others_served(sqlite_url: str, tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    command = ["prlimit", f"--nofile=300:{min(hard, 300)}", *GUNICORN]
    with running(sqlite_url, tmp_path, command, workers="1", max_waiters="10") as server:
        with ExitStack() as idle:
            for _ in range(400):
                idle.enter_context(closing(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)))
            until(lambda: server.ask("GET", "/healthz").status == 503, "it is full")
        until(lambda: server.ask("GET", "/healthz").status == 200, "it serves again")
        assert len(server.workers()) == 1
        assert "too few open files" in server.log.read_text()


def test_abandoned_folder_of_metrics_is_removed_by_the_next_start(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running(sqlite_url, tmp_path, GUNICORN, workers="1") as server:
        (left,) = tmp_path.glob("stateservice-metrics-*")
        server.kill()
    assert left.is_dir()
    with running(sqlite_url, tmp_path, GUNICORN, workers="1"):
        (new,) = tmp_path.glob("stateservice-metrics-*")
        assert new != left
    assert not list(tmp_path.glob("stateservice-metrics-*"))


def test_folder_of_metrics_that_a_server_in_another_container_uses_is_kept(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running(sqlite_url, tmp_path, GUNICORN, workers="1"):
        (used,) = tmp_path.glob("stateservice-metrics-*")
        # The number of a process that cannot run here, as that of another container may be.
        foreign = used.rename(tmp_path / "stateservice-metrics-99999999-x")
        with running(sqlite_url, tmp_path, GUNICORN, workers="1"):
            assert foreign.is_dir()


def test_put_is_answered_after_the_folder_of_metrics_is_gone(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running(sqlite_url, tmp_path, GUNICORN, workers="1") as server:
        server.import_chart("web", SEED)
        (folder,) = tmp_path.glob("stateservice-metrics-*")
        # Before the worker has counted its first PUT, for which it would open a file.
        shutil.rmtree(folder)
        assert server.put("web", "green_state").status == 200
        assert server.ask("GET", "/metrics").status == 200


def test_any_wsgi_server_answers_everything(sqlite_url: str, tmp_path: Path) -> None:
    """Without gunicorn.conf.py there is no event loop of ours; the same functions answer."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", "/dev/null", "-k", "gthread", "--threads", "8", "wsgi:app"]
    with running(sqlite_url, tmp_path, [*command, "-b", f"127.0.0.1:{port}"], port, workers="1") as server:
        assert server.ask("PUT", "/charts/web", ONE_SLOT.format(name="web")).status == 201
        assert server.ask("PUT", chart_path("web", "slot", state="reboot", machine="a")).answer == (200, "reboot")
        held = server.callers.submit(
            server.ask, "PUT", chart_path("web", "slot", state="reboot", machine="b", wait="20")
        )
        following = server.callers.submit(server.ask, "GET", "/charts/web/history?after=2&wait=20")
        assert server.put("web", "reboot", machine="a").answer == (200, "reboot")
        assert held.result(30).answer == (200, "reboot")
        assert following.result(30).json()[0]["kind"] == "update"
        assert server.get("web", "reboot").answer == (200, "reboot")
        assert server.get("web", "done", "reached").answer == (406, "")
        assert server.ask("POST", chart_path("web", state="reboot")).status == 405
        assert server.ask("GET", "/").status == 200
