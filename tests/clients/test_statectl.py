"""clients/statectl against the running service: exit statuses, settings, secrets."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import free_port
from tests.support.servers import ROOT, Server, running

STATECTL = ROOT / "clients" / "statectl"
CHART = """\
current_state: work
states:
  - name: work
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: {name: after it, when: {key: count, value: 2}}
  - name: after it
    func: increment
    current: {key: count, value: 0}
    target: {name: end, when: {key: count, value: 1}}
  - name: end
"""
SLOTTED = """\
current_state: reboot
expect: [web-01, web-02]
states:
  - name: reboot
    func: increment
    slots: 1
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: {name: end, when: {key: count, value: 2}}
  - name: end
"""
YES, NO, USAGE, UNREACHABLE, COMMAND_FAILED = range(5)


@pytest.fixture(scope="module")
def server(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("statectl")
    database = shutil.copy(sqlite_template, folder / "state_service.db")
    with running(f"sqlite:///{database}", folder) as found:
        yield found


@pytest.fixture
def chart(server: Server, request: pytest.FixtureRequest) -> str:
    """A chart of this test's own, in state `work`."""
    name = f"c{abs(hash(request.node.nodeid))}"
    server.import_chart(name, CHART)
    return name


@pytest.fixture
def slotted(server: Server, request: pytest.FixtureRequest) -> str:
    """A chart of this test's own, whose state has one slot."""
    name = f"s{abs(hash(request.node.nodeid))}"
    server.import_chart(name, SLOTTED)
    return name


@pytest.fixture
def told(server: Server, tmp_path: Path) -> dict[str, str]:
    """An environment in which statectl finds the server and no settings of this machine's."""
    (tmp_path / "none.conf").touch()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "STATECTL_CONF": str(tmp_path / "none.conf"),
        "STATECTL_URL": server.url,
        "STATECTL_MACHINE": "web-01",
        "STATECTL_RETRIES": "0",
    }


def history(server: Server, chart: str) -> list[dict[str, Any]]:
    """The rows of a chart's log."""
    reply = server.ask("GET", f"/charts/{chart}/history?format=ndjson")
    return [json.loads(line) for line in reply.body.splitlines()]


def statectl(told: dict[str, str], *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(STATECTL), *words],
        env=told | changed,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_can_is_0_on_a_yes_and_1_on_a_no_and_silent(told: dict[str, str], chart: str) -> None:
    asked = [statectl(told, "can", chart, state) for state in ("work", "end", "nowhere")]
    assert [(one.returncode, one.stdout, one.stderr) for one in asked] == [(YES, "", ""), (NO, "", ""), (NO, "", "")]


def test_no_says_why_when_asked_to(told: dict[str, str], chart: str) -> None:
    asked = statectl(told, "can", chart, "end", "--verbose")
    assert asked.stderr == "statectl: no: not_current (current state: work)\n"


def test_did_counts_a_machine_once(told: dict[str, str], server: Server, chart: str) -> None:
    assert [statectl(told, "did", chart, "work").returncode for _ in range(3)] == [YES] * 3
    assert server.status(chart)["values"] == {"count": 1, "failed": 0}


def test_fail_moves_the_report(told: dict[str, str], server: Server, chart: str) -> None:
    statectl(told, "did", chart, "work")
    assert statectl(told, "fail", chart, "work").returncode == YES
    assert server.status(chart)["values"] == {"count": 0, "failed": 1}


def test_did_counts_on_another_key(told: dict[str, str], server: Server, chart: str) -> None:
    assert statectl(told, "did", chart, "work", "--key", "failed").returncode == YES
    assert server.status(chart)["values"]["failed"] == 1


def test_names_are_encoded(told: dict[str, str], server: Server, chart: str) -> None:
    server.act(chart, "goto", state="after it")
    assert statectl(told, "did", chart, "after it", "--machine", 'a "b" & c=d/é').returncode == YES
    assert history(server, chart)[-1]["machine"] == 'a "b" & c=d/é'


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("maybe",),
        ("can",),
        ("can", "a"),
        ("can", "a", "b", "c"),
        ("can", "a b", "c"),
        ("can", "a", "b", "--forever"),
        ("can", "a", "b", "--on-unreachable", "maybe"),
        ("can", "a", "b", "--on-unreachable"),
        ("can", "a", "b", "--", "true"),
        ("wait", "a", "b", "--timeout", "soon"),
        ("run", "a", "b"),
        ("run", "a", "b", "--"),
        ("status",),
        ("status", "a", "b"),
        ("can", "no-such-chart", "b"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_says_so(told: dict[str, str], words: tuple[str, ...]) -> None:
    done = statectl(told, *words)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "statectl" in done.stderr


def test_help_and_version(told: dict[str, str]) -> None:
    assert "STATECTL_URL" in statectl(told, "--help").stdout
    assert statectl(told, "--version").stdout == "statectl 1\n"


# run


def test_run_runs_and_reports(told: dict[str, str], server: Server, chart: str) -> None:
    done = statectl(told, "run", chart, "work", "--", "echo", "a  b")
    assert (done.returncode, done.stdout, done.stderr) == (YES, "a  b\n", "")
    assert server.status(chart)["values"] == {"count": 1, "failed": 0}


def test_run_does_not_run_on_a_no(told: dict[str, str], chart: str) -> None:
    done = statectl(told, "run", chart, "end", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (NO, "")


def test_run_reports_a_failure_and_is_4(told: dict[str, str], server: Server, chart: str) -> None:
    done = statectl(told, "run", chart, "work", "--", "sh", "-c", "exit 7")
    assert (done.returncode, done.stderr) == (COMMAND_FAILED, "statectl: sh ended with 7\n")
    assert server.status(chart)["values"] == {"count": 0, "failed": 1}


def test_run_claims_a_slot_and_gives_it_back(told: dict[str, str], server: Server, slotted: str) -> None:
    seen = statectl(told, "run", slotted, "reboot", "--", "sh", "-c", 'echo "$STATECTL_FENCE"')
    assert (seen.returncode, seen.stdout) == (YES, "1\n")
    assert [row["kind"] for row in history(server, slotted)] == ["import", "claim", "update"]
    assert statectl(told, "claim", slotted, "reboot", "--machine", "web-02").returncode == YES


def test_run_waits_for_its_turn(told: dict[str, str], server: Server, slotted: str) -> None:
    assert statectl(told, "claim", slotted, "reboot", "--machine", "web-02").returncode == YES
    assert statectl(told, "run", slotted, "reboot", "--", "echo", "ran").returncode == NO
    freeing = threading.Timer(1, statectl, (told, "release", slotted, "reboot", "--machine", "web-02"))
    freeing.start()
    done = statectl(told, "run", slotted, "reboot", "--timeout", "30", "--", "echo", "ran")
    freeing.join()
    assert (done.returncode, done.stdout) == (YES, "ran\n")


# wait, status, missing


def test_wait_ends_with_the_yes(told: dict[str, str], server: Server, chart: str) -> None:
    moving = threading.Timer(1, lambda: server.act(chart, "goto", state="after it"))
    moving.start()
    assert statectl(told, "wait", chart, "after it", "--timeout", "30").returncode == YES
    moving.join()


def test_wait_is_1_when_time_is_up_or_it_can_no_longer_be(told: dict[str, str], server: Server, chart: str) -> None:
    assert statectl(told, "wait", chart, "after it", "--timeout", "1").returncode == NO
    server.act(chart, "goto", state="end")
    assert statectl(told, "wait", chart, "work").returncode == NO


def test_reached_is_yes_for_a_state_that_is_over(told: dict[str, str], server: Server, chart: str) -> None:
    server.act(chart, "goto", state="end")
    assert statectl(told, "can", chart, "work").returncode == NO
    assert statectl(told, "can", chart, "work", "--reached").returncode == YES


def test_status_and_missing_are_printed(told: dict[str, str], chart: str, slotted: str) -> None:
    assert statectl(told, "status", chart).stdout.startswith(f"{chart}: work\n")
    assert statectl(told, "missing", slotted, "reboot").stdout == "web-01\nweb-02\n"


# No answer


def test_no_answer_is_3_unless_told_to_go(told: dict[str, str], chart: str) -> None:
    away = {"STATECTL_URL": f"http://127.0.0.1:{free_port()}"}
    for words in (("can", chart, "work"), ("wait", chart, "work"), ("run", chart, "work", "--", "true")):
        assert statectl(told, *words, **away).returncode == UNREACHABLE
    assert statectl(told, "can", chart, "work", "--on-unreachable=go", **away).returncode == YES
    assert statectl(told, "can", chart, "work", STATECTL_ON_UNREACHABLE="go", **away).returncode == YES


def test_report_without_an_answer_is_never_taken_for_a_yes(told: dict[str, str], chart: str) -> None:
    away = {"STATECTL_URL": f"http://127.0.0.1:{free_port()}", "STATECTL_ON_UNREACHABLE": "go"}
    assert statectl(told, "did", chart, "work", **away).returncode == UNREACHABLE


class Portal(BaseHTTPRequestHandler):
    """Some other server, which says 200 to everything, as the sign-in page of a network does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>work</html>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Say nothing."""


def test_200_of_another_server_is_no_yes(told: dict[str, str], chart: str) -> None:
    with HTTPServer(("127.0.0.1", 0), Portal) as portal:
        threading.Thread(target=portal.serve_forever, daemon=True).start()
        done = statectl(told, "can", chart, "work", STATECTL_URL=f"http://127.0.0.1:{portal.server_port}")
        portal.shutdown()
    assert done.returncode == UNREACHABLE
    assert "not in StateService's words" in done.stderr


# Settings and secrets


def test_environment_wins_over_the_file(told: dict[str, str], tmp_path: Path, server: Server, chart: str) -> None:
    file = tmp_path / "statectl.conf"
    file.write_text(f"# comment\n\nSTATECTL_URL={server.url}/\nSTATECTL_MACHINE=from-file\n")
    from_file = {name: value for name, value in told.items() if name not in ("STATECTL_URL", "STATECTL_MACHINE")}
    statectl(from_file, "did", chart, "work", STATECTL_CONF=str(file))
    statectl(from_file, "did", chart, "work", STATECTL_CONF=str(file), STATECTL_MACHINE="from-environment")
    assert [row["machine"] for row in history(server, chart)[1:]] == ["from-file", "from-environment"]


def test_file_at_home_is_read(told: dict[str, str], tmp_path: Path, server: Server, chart: str) -> None:
    (tmp_path / ".statectl").write_text(f"STATECTL_URL={server.url}\nSTATECTL_MACHINE=at-home\n")
    kept = {name: told[name] for name in ("PATH", "HOME")}
    assert statectl(kept, "did", chart, "work").returncode == YES
    assert history(server, chart)[-1]["machine"] == "at-home"


@pytest.mark.parametrize("line", ["STATECTL_URI=x", "echo hello", "STATECTL_RETRIES=many", "STATECTL_ON_UNREACHABLE=x"])
def test_line_that_is_no_setting_is_refused(told: dict[str, str], tmp_path: Path, line: str) -> None:
    (tmp_path / "bad.conf").write_text(line + "\n")
    told.pop("STATECTL_RETRIES")
    assert statectl(told, "can", "a", "b", STATECTL_CONF=str(tmp_path / "bad.conf")).returncode == USAGE


def test_settings_file_is_read_and_not_run(told: dict[str, str], tmp_path: Path, chart: str) -> None:
    (tmp_path / "evil.conf").write_text(f"STATECTL_MACHINE=$(touch {tmp_path}/ran)`touch {tmp_path}/ran`\n")
    told.pop("STATECTL_MACHINE")
    statectl(told, "did", chart, "work", STATECTL_CONF=str(tmp_path / "evil.conf"))
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def fake_curl(told: dict[str, str], tmp_path: Path) -> Path:
    """A curl that notes what it is given, by whichever way, and answers yes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    curl = folder / "curl"
    curl.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >>{folder}/arguments\nenv >>{folder}/environment\ncat >>{folder}/input\n'
        'printf \'{"answer": "yes"}\\n200\'\n'
    )
    curl.chmod(curl.stat().st_mode | stat.S_IXUSR)
    told["PATH"] = f"{folder}:{told['PATH']}"
    return folder


@pytest.mark.parametrize("given", ["environment", "file", "settings"])
def test_token_goes_to_curls_input_alone(told: dict[str, str], fake_curl: Path, given: str) -> None:
    file = fake_curl / "token"
    file.write_text("sst_secret\n")
    settings = fake_curl / "settings"
    settings.write_text("STATECTL_TOKEN=sst_secret\n")
    given_as = {
        "environment": {"STATECTL_TOKEN": "sst_secret"},
        "file": {"STATECTL_TOKEN_FILE": str(file)},
        "settings": {"STATECTL_CONF": str(settings)},
    }
    done = statectl(told, "run", "a", "b", "--", "env", **given_as[given])
    assert done.returncode == YES
    assert 'header = "Authorization: Bearer sst_secret"' in (fake_curl / "input").read_text()
    noted = [(fake_curl / name).read_text() for name in ("arguments", "environment")]
    assert [seen for seen in (done.stdout, done.stderr, *noted) if "sst_secret" in seen] == []


def test_token_cannot_add_a_line_to_curls_input(told: dict[str, str], fake_curl: Path) -> None:
    done = statectl(told, "can", "a", "b", STATECTL_TOKEN='x"\nurl = "http://127.0.0.1"')
    assert done.returncode == USAGE
    assert not (fake_curl / "arguments").exists()
