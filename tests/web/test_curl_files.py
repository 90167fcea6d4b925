"""The files for `curl -K`, used by the real curl."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http import ANSWER_SECONDS
from tests.support.processes import until
from tests.support.servers import Server, chart_path, run_curl, running, shared_database

CHART = """
current_state: "do: it now"
require_machine: false
states:
  - name: "do: it now"
    func: increment
    current: [{key: count, value: 0}, {key: went wrong, value: 0}]
    target: [{name: undo, when: {key: went wrong, value: 2}}, {name: all done, when: {key: count, value: 100}}]
  - {name: undo}
  - {name: all done}
"""
STATE = "do: it now"
NO = 22

MACHINES = {
    "plain": "web-01.example.com",
    "double quotes": 'a "quoted" name',
    "single quotes": "it's",
    "backslashes": r"C:\new\table\x",
    "backslash at the end": "ends with \\",
    "unicode": "büro-日本語-€",
    "latin letter whose last byte is a space in Latin-1": "web-à",
    "inner spaces": "rack 7  unit 3",
    "header syntax": "X-Machine: other; x=y, z",
    "shell syntax": "$(touch /tmp/x) `id` %41+&?#",
    "a comment": "# no comment",
    "curl's globs": "{a,b}[1-3]",
    "longest": "é" * 255,
    "a number": "5",
}


@pytest.fixture(scope="module")
def shared_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """On one database: the subject is what curl makes of the files."""
    with shared_database(request, "sqlite") as url:
        yield url


def fetch(server: Server, chart: str, file: str, folder: Path, **parameters: str) -> Path:
    """Save a ready file as a machine would, with curl."""
    saved = folder / file
    url = server.url + chart_path(chart, file, state=STATE, **parameters)
    done = run_curl("-fsS", "-g", "-o", str(saved), url)
    assert done.returncode == 0, done.stderr
    return saved


def use(file: Path) -> tuple[int, str]:
    done = run_curl("-K", str(file))
    return done.returncode, done.stdout


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_files_say_yes_and_count_the_machine_once(server: Server, chart: str, tmp_path: Path, machine: str) -> None:
    server.import_chart(chart, CHART)
    can, did = (fetch(server, chart, name, tmp_path, machine=machine) for name in ("can.curl", "did.curl"))
    assert use(can) == (0, STATE)
    assert [use(did), use(did)] == [(0, STATE)] * 2
    rows = server.history(chart, kind="update")
    assert [(row["machine"], row["key"]) for row in rows] == [(machine, "count")]
    assert server.ask("GET", chart_path(chart, "machines"), Accept="text/plain").body == f"{machine}\n"


def test_files_say_no_with_exit_22_and_without_output(server: Server, chart: str, tmp_path: Path) -> None:
    server.import_chart(chart, CHART)
    files = [fetch(server, chart, name, tmp_path, machine="web-01") for name in ("can.curl", "did.curl")]
    server.act(chart, "goto", state="undo")
    assert [use(file) for file in files] == [(NO, "")] * 2


def test_file_reports_a_failure(server: Server, chart: str, tmp_path: Path) -> None:
    server.import_chart(chart, CHART)
    did = fetch(server, chart, "did.curl", tmp_path, machine="web-01", key="went wrong")
    assert use(did) == (0, STATE)
    assert [row["key"] for row in server.history(chart, kind="update")] == ["went wrong"]


def test_file_guards_a_command_in_a_shell(server: Server, chart: str, tmp_path: Path) -> None:
    server.import_chart(chart, CHART)
    can, did = (fetch(server, chart, name, tmp_path, machine="web-01") for name in ("can.curl", "did.curl"))
    script = f"curl -K {shlex.quote(str(can))} >/dev/null && echo works && curl -K {shlex.quote(str(did))} >/dev/null"
    first = subprocess.run(script, shell=True, capture_output=True, text=True, timeout=60, check=False)
    server.act(chart, "pause")
    second = subprocess.run(script, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert (first.returncode, first.stdout) == (0, "works\n")
    assert (second.returncode, second.stdout) == (NO, "")


def test_report_without_a_machine_is_not_retried(server: Server, chart: str, tmp_path: Path) -> None:
    server.import_chart(chart, CHART)
    nameless, named = tmp_path / "nameless", tmp_path / "named"
    nameless.mkdir()
    named.mkdir()
    lines = fetch(server, chart, "did.curl", nameless).read_text().splitlines()
    assert "retry = 0" in lines
    assert not any(line.startswith("header") for line in lines)
    did = fetch(server, chart, "did.curl", named, machine="web-01").read_text().splitlines()
    assert {"retry = 3", "retry-all-errors"} <= set(did)
    assert "retry-all-errors" not in lines
    can = fetch(server, chart, "can.curl", nameless).read_text().splitlines()
    assert {"retry = 3", "retry-connrefused"} <= set(can)


@pytest.mark.parametrize("file", ["can.curl", "did.curl"])
def test_files_have_what_a_guard_needs(server: Server, chart: str, tmp_path: Path, file: str) -> None:
    server.import_chart(chart, CHART)
    lines = fetch(server, chart, file, tmp_path, machine="web-01").read_text().splitlines()
    assert {"fail", "silent", "show-error", 'header = "X-Machine: web-01"'} <= set(lines)
    assert {line.partition(" = ")[0] for line in lines if " = " in line} >= {"url", "max-time", "retry"}


def test_file_that_waits_has_the_time_to(server: Server, chart: str, tmp_path: Path) -> None:
    server.import_chart(
        chart, CHART.replace("current_state:", "#", 1).replace("require", 'current_state: "do: it now"\nrequire', 1)
    )
    saved = tmp_path / "can.curl"
    url = server.url + chart_path(chart, "can.curl", state="undo", machine="web-01", wait="55")
    assert run_curl("-fsS", "-o", str(saved), url).returncode == 0
    (longest,) = [line for line in saved.read_text().splitlines() if line.startswith("max-time")]
    assert 55 < int(longest.partition(" = ")[2]) < ANSWER_SECONDS
    waiter = server.callers.submit(use, saved)
    server.until_waiting(1)
    server.act(chart, "goto", state="undo")
    assert waiter.result(60) == (0, "undo")


def test_file_names_the_server_as_it_was_asked(server: Server, chart: str) -> None:
    server.import_chart(chart, CHART)
    reply = server.ask("GET", chart_path(chart, "can.curl", state=STATE), Host="localhost:8080")
    assert f'url = "http://localhost:8080/charts/{chart}/state?state=do%3A+it+now"' in reply.body


def test_file_names_the_scheme_that_the_proxy_was_asked_with(sqlite_url: str, tmp_path: Path) -> None:
    with running(
        sqlite_url, tmp_path, workers="1", proxy_hops="1", trusted_hosts="states.example.com,127.0.0.1"
    ) as server:
        server.import_chart("web", CHART)
        path = chart_path("web", "can.curl", state=STATE)
        reply = server.ask("GET", path, Host="states.example.com", X_Forwarded_Proto="https")
        assert 'url = "https://states.example.com/charts/web/state?' in reply.body


def test_unproxied_server_believes_no_forwarded_header(server: Server, chart: str) -> None:
    server.import_chart(chart, CHART)
    path = chart_path(chart, "can.curl", state=STATE)
    reply = server.ask("GET", path, X_Forwarded_Proto="https", X_Forwarded_Host="evil.example.com")
    assert f'url = "{server.url}/' in reply.body


@pytest.mark.parametrize("host", ['evil"\nurl = "http://x', "a b", "x/../y", "user@evil.example.com", "[::1", "a\\b"])
def test_host_that_is_none_is_refused(server: Server, chart: str, host: str) -> None:
    server.import_chart(chart, CHART)
    raw = f"GET {chart_path(chart, 'can.curl', state=STATE)} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert server.send_raw(raw.encode()).split(b" ")[1] == b"400"


def test_file_for_a_chart_or_state_that_is_not_there(server: Server, chart: str) -> None:
    assert server.ask("GET", "/charts/nothing/can.curl?state=x").status == 404
    server.import_chart(chart, CHART)
    assert server.ask("GET", f"/charts/{chart}/can.curl").status == 400
    assert server.ask("GET", chart_path(chart, "did.curl", state=STATE, machine="")).status == 400


def test_retried_report_of_a_machine_counts_once(server: Server, chart: str, tmp_path: Path) -> None:
    server.import_chart(chart, CHART)
    did = fetch(server, chart, "did.curl", tmp_path, machine="web-01")
    with server.locked(chart):
        waiter = server.callers.submit(use, did)
        # Longer than a transaction waits for a lock: the first try is answered 503, and curl tries again.
        until(lambda: '"status": 503' in server.log.read_text(), "the first try fails", 30)
    assert waiter.result(60) == (0, STATE)
    assert len(server.history(chart, kind="update")) == 1
