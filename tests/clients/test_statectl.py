"""clients/statectl against the running service: exit statuses, settings, secrets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, cast
from unittest.mock import patch

import pytest

from tests.support.processes import free_port, until
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
YES, NO, USAGE, UNREACHABLE, COMMAND_FAILED, REFUSED = range(6)


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


@pytest.fixture
def quick(told: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The same environment, in which the program `sleep` takes no time: statectl asks again at once."""
    program = tmp_path / "quick" / "sleep"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return told | {"PATH": f"{program.parent}:{told['PATH']}"}


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


YES_ANSWER = (200, '{"answer": "yes"}')
HANG = (0, "")


class Stub(ThreadingHTTPServer):
    """A server that gives its answers one after another, and the last one for ever.

    None ends the connection without an answer; HANG gives none.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, *answers: tuple[int, str] | None) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.answers = list(answers)
        self.asked: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    """What Stub answers with."""

    def do_GET(self) -> None:
        server = cast(Stub, self.server)
        server.asked.append(f"{self.command} {self.path.partition('?')[0]}")
        answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        if answer is HANG:
            time.sleep(30)
        if answer is None or answer is HANG:
            return
        status, body = answer
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:9/")
        self.end_headers()
        self.wfile.write(body.encode())

    do_PUT = do_DELETE = do_GET  # noqa: N815  the library's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Say nothing."""


def test_can_is_0_on_a_yes_and_1_on_a_no_and_silent(told: dict[str, str], chart: str) -> None:
    asked = [statectl(told, "can", chart, state) for state in ("work", "end")]
    assert [(one.returncode, one.stdout, one.stderr) for one in asked] == [(YES, "", ""), (NO, "", "")]


def test_no_says_why_when_asked_to(told: dict[str, str], chart: str) -> None:
    asked = statectl(told, "can", chart, "end", "--verbose")
    assert asked.stderr == "statectl: no: not_current (current state: work)\n"


@pytest.mark.parametrize("command", [("can",), ("wait",), ("run",)], ids=lambda words: words[0])
def test_no_for_an_unknown_state_is_always_told(told: dict[str, str], chart: str, command: tuple[str, ...]) -> None:
    words = (*command, chart, "nowhere", *(("--", "true") if command == ("run",) else ()))
    asked = statectl(told, *words)
    assert (asked.returncode, asked.stderr) == (NO, "statectl: no: unknown_state (current state: work)\n")


def test_no_for_a_machine_that_is_not_on_the_roster_is_always_told(told: dict[str, str], slotted: str) -> None:
    asked = statectl(told, "claim", slotted, "reboot", "--machine", "stranger")
    assert (asked.returncode, asked.stderr) == (NO, "statectl: no: not_on_roster (current state: reboot)\n")


def test_report_that_is_refused_is_5_and_told(told: dict[str, str], chart: str, slotted: str) -> None:
    reports = {
        "unknown_state": ("did", chart, "nowhere"),
        "not_current": ("did", chart, "after it"),
        "final": ("fail", chart, "end"),
        "no_slot": ("did", slotted, "reboot"),
        "not_on_roster": ("did", slotted, "reboot", "--machine", "stranger"),
    }
    for reason, words in reports.items():
        done = statectl(told, *words)
        assert (done.returncode, done.stdout) == (REFUSED, ""), words
        assert "statectl: the report is refused, and will not be counted: " in done.stderr
        assert reason in done.stderr or "not_current" in done.stderr, words


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
        ("wait", "a", "b", "--timeout", "m"),
        ("wait", "a", "b", "--timeout", "5w"),
        ("run", "a", "b", "--", ""),
        ("run", "a", "b", "--", "no-such-program"),
        ("run", "a", "b", "--", "/no/such/program"),
        ("run", "a", "b", "--", "judge"),
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


def test_run_without_two_dashes_shows_where_they_belong(told: dict[str, str]) -> None:
    done = statectl(told, "run", "a", "b", "sleep", "3")
    assert (done.returncode, done.stderr) == (
        USAGE,
        "statectl: run: -- is missing before the command: statectl run a b -- sleep ...\n",
    )


@pytest.mark.parametrize(
    "name",
    [
        *("localhost", "LOCALHOST", "localhost.localdomain", "localhost.", "localhost4", "localhost6.localdomain6"),
        *("ip6-localhost", "ip6-loopback", "127.0.0.1", "::1", "(none)"),
    ],
)
@pytest.mark.parametrize("words", [("can",), ("did",), ("claim",)], ids=lambda words: words[0])
def test_name_that_every_machine_may_have_is_refused(
    told: dict[str, str], server: Server, chart: str, words: tuple[str, ...], name: str
) -> None:
    done = statectl(told, *words, chart, "work", STATECTL_MACHINE=name)
    assert (done.returncode, done.stderr) == (
        USAGE,
        f"statectl: other machines may be called {name}, too: set STATECTL_MACHINE to this machine's own name\n",
    )
    assert len(history(server, chart)) == 1


def test_status_needs_no_name_of_the_machine(told: dict[str, str], chart: str) -> None:
    assert statectl(told, "status", chart, STATECTL_MACHINE="localhost").returncode == YES


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


def test_run_without_a_state_serves_whichever_is_current(told: dict[str, str], server: Server, chart: str) -> None:
    script = 'echo "$STATECTL_STATE" "$STATECTL_RUN"'

    def run(machine: str) -> tuple[int, str]:
        done = statectl(told, "run", chart, "--", "sh", "-c", script, STATECTL_MACHINE=machine)
        return done.returncode, done.stdout

    assert [run(name) for name in ("m1", "m1", "m2")] == [(YES, "work 1\n"), (NO, ""), (YES, "work 1\n")]
    assert run("m1") == (YES, "after it 1\n")
    assert (run("m1"), server.status(chart)["current_state"]) == ((NO, ""), "end")


def notes(server: Server, chart: str) -> list[str | None]:
    reply = server.ask("GET", f"/charts/{chart}/machines?state=work", Accept="application/json")
    return [item["note"] for item in reply.json()["machines"]]


def test_run_sends_the_end_of_the_output_with_a_failure(told: dict[str, str], server: Server, chart: str) -> None:
    done = statectl(told, "run", chart, "work", "--", "sh", "-c", "seq 2000; echo last words; exit 7")
    assert (done.returncode, done.stdout.endswith("\n2000\nlast words\n")) == (COMMAND_FAILED, True)
    (note,) = notes(server, chart)
    assert note is not None
    first, _, rest = note.partition("\n")
    assert (first, rest.endswith("\n2000\nlast words"), len(rest) <= 4096) == ("sh ended with 7", True, True)


def test_run_sends_the_output_of_both_streams_with_a_failure(told: dict[str, str], server: Server, chart: str) -> None:
    done = statectl(told, "run", chart, "work", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, "err\n" in done.stderr) == (COMMAND_FAILED, "out\n", True)
    # The streams go through two pipes, so either may come first.
    assert sorted((notes(server, chart)[0] or "").splitlines()) == ["err", "out", "sh ended with 7"]


def test_run_without_a_note_sends_none(told: dict[str, str], server: Server, chart: str) -> None:
    assert statectl(told, "run", "--no-note", chart, "work", "--", "sh", "-c", "exit 7").returncode == COMMAND_FAILED
    assert notes(server, chart) == [None]


def test_fail_says_why(told: dict[str, str], server: Server, chart: str) -> None:
    assert statectl(told, "fail", chart, "work", "-m", "@no file: 100% & more\nünï").returncode == YES
    assert notes(server, chart) == ["@no file: 100% & more\nünï"]
    assert statectl(told, "can", chart, "work", "-m", "why").returncode == USAGE


def test_report_of_work_from_before_a_reset_is_refused(told: dict[str, str], server: Server, chart: str) -> None:
    body = '{"reason": "again"}'
    script = f"curl -s -o {os.devnull} {server.url}/charts/{chart}/reset -d '{body}'"
    done = statectl(told, "run", chart, "work", "--", "sh", "-c", script)
    assert (done.returncode, "other_run" in done.stderr) == (REFUSED, True)
    assert server.status(chart)["values"]["count"] == 0


def test_machine_that_is_done_hears_no_unless_it_asks_again(told: dict[str, str], chart: str) -> None:
    assert statectl(told, "did", chart, "work").returncode == YES
    assert statectl(told, "can", chart, "work").returncode == NO
    assert statectl(told, "can", "--again", chart, "work").returncode == YES


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


def test_run_gives_the_slot_back_uncounted_when_the_command_says_not_now(
    told: dict[str, str], server: Server, slotted: str
) -> None:
    done = statectl(told, "run", slotted, "reboot", "--", "sh", "-c", "exit 75")
    assert (done.returncode, done.stderr) == (NO, "")
    assert [row["kind"] for row in history(server, slotted)] == ["import", "claim", "release"]
    assert server.status(slotted)["values"] == {"count": 0, "failed": 0}


def test_run_reports_nothing_when_the_command_says_not_now(told: dict[str, str], server: Server, chart: str) -> None:
    assert statectl(told, "run", chart, "work", "--", "sh", "-c", "exit 75").returncode == NO
    assert [row["kind"] for row in history(server, chart)] == ["import"]


def test_run_gives_the_slot_back_when_the_failure_cannot_be_counted(
    told: dict[str, str], server: Server, request: pytest.FixtureRequest
) -> None:
    name = f"u{abs(hash(request.node.nodeid))}"
    server.import_chart(name, SLOTTED.replace(", {key: failed, value: 0}", ""))
    done = statectl(told, "run", name, "reboot", "--", "false")
    assert done.returncode == COMMAND_FAILED
    assert "the failure could not be reported" in done.stderr
    assert [row["kind"] for row in history(server, name)] == ["import", "claim", "release"]


def test_run_passes_standard_input_to_the_command(told: dict[str, str], chart: str) -> None:
    done = subprocess.run(
        ["sh", str(STATECTL), "run", chart, "work", "--", "cat"],
        env=told,
        input="what the command reads",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (YES, "what the command reads")


def test_run_works_without_standard_input(told: dict[str, str], chart: str) -> None:
    command = f"sh {STATECTL} run {chart} work -- echo ran <&-"
    done = subprocess.run(["sh", "-c", command], env=told, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (YES, "ran\n")


def test_run_runs_the_program_and_not_a_function_of_statectl(told: dict[str, str], tmp_path: Path, chart: str) -> None:
    program = tmp_path / "release"
    program.write_text("#!/bin/sh\necho the program\n")
    program.chmod(0o755)
    done = statectl(told, "run", chart, "work", "--", "release", PATH=f"{tmp_path}:{told['PATH']}")
    assert (done.returncode, done.stdout) == (YES, "the program\n")


# Signals

SHELLS = [shell for shell in ("sh", "bash") if shutil.which(shell)]


@pytest.fixture(params=SHELLS)
def started(request: pytest.FixtureRequest, told: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start statectl in a process group of its own, in each shell."""
    processes: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [request.param, str(STATECTL), *words],
            env=told,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda sent: sent.name)
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["process", "group"])
def test_run_that_is_told_to_stop_reports_the_failure(
    started: Callable[..., subprocess.Popen[str]],
    server: Server,
    slotted: str,
    send: Callable[[int, int], None],
    sent: signal.Signals,
) -> None:
    process = started("run", slotted, "reboot", "--", "sh", "-c", "echo runs; exec sleep 30")
    assert wait_for_line(process) == "runs\n"
    send(process.pid, sent)
    assert process.wait(30) == COMMAND_FAILED
    assert [row["kind"] for row in history(server, slotted)] == ["import", "claim", "update"]
    assert server.status(slotted)["values"] == {"count": 0, "failed": 1}


def test_run_reports_success_when_the_command_ends_well_after_a_signal(
    started: Callable[..., subprocess.Popen[str]], server: Server, slotted: str
) -> None:
    command = "trap 'exit 0' TERM; echo runs; while :; do sleep 0.1; done"
    process = started("run", slotted, "reboot", "--", "sh", "-c", command)
    assert wait_for_line(process) == "runs\n"
    process.terminate()
    assert process.wait(30) == YES
    assert server.status(slotted)["values"] == {"count": 1, "failed": 0}


def test_run_gives_the_slot_back_when_a_stopped_command_says_not_now(
    started: Callable[..., subprocess.Popen[str]], server: Server, slotted: str
) -> None:
    command = "trap 'exit 75' TERM; echo runs; while :; do sleep 0.1; done"
    process = started("run", slotted, "reboot", "--", "sh", "-c", command)
    assert wait_for_line(process) == "runs\n"
    process.terminate()
    assert process.wait(30) == NO
    assert [row["kind"] for row in history(server, slotted)] == ["import", "claim", "release"]


def test_run_under_timeout_reports_the_failure(told: dict[str, str], server: Server, slotted: str) -> None:
    command = ["timeout", "2", "sh", str(STATECTL), "run", slotted, "reboot", "--", "sleep", "30"]
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 124
    # timeout ends before the process that it has stopped.
    until(lambda: server.status(slotted)["values"] == {"count": 0, "failed": 1}, "the failure is reported")


@pytest.mark.parametrize("words", [("run",), ("claim",)], ids=lambda words: words[0])
def test_claim_that_is_interrupted_gives_back_a_slot_that_it_may_have(
    started: Callable[..., subprocess.Popen[str]], told: dict[str, str], words: tuple[str, ...]
) -> None:
    command = ("--", "echo", "ran") if words == ("run",) else ()
    with Stub(*([YES_ANSWER] if command else []), HANG, YES_ANSWER) as stub:
        told["STATECTL_URL"] = stub.url
        process = started(*words, "a", "b", "--timeout", "30", *command)
        until(lambda: "PUT /charts/a/slot" in stub.asked, "it waits for the slot")
        os.killpg(process.pid, signal.SIGTERM)
        out, error = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + signal.SIGTERM, "")
    assert "ended by signal 15 before the work began" in error
    assert stub.asked[-1] == "DELETE /charts/a/slot"


def test_claim_without_an_answer_is_given_back_by_run(told: dict[str, str]) -> None:
    with Stub(YES_ANSWER, None, YES_ANSWER) as stub:
        done = statectl(told, "run", "a", "b", "--", "echo", "ran", STATECTL_URL=stub.url)
    assert (done.returncode, done.stdout) == (UNREACHABLE, "")
    assert stub.asked == ["GET /charts/a/state", "PUT /charts/a/slot", "DELETE /charts/a/slot"]


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


BACKED_OUT = """\
current_state: canary
states:
  - name: canary
    func: increment
    current: {key: failed, value: 0}
    target:
      - {name: rollback, when: {key: failed, value: 1}}
      - {name: rollout, when: {key: elapsed, value: 1d}}
  - name: rollback
    func: increment
    current: {key: count, value: 0}
    target: {name: undone, when: {key: count, value: 1}}
  - name: rollout
  - name: undone
"""


@pytest.mark.parametrize(
    "words", [("wait", "rollout"), ("wait", "canary"), ("--reached", "wait", "rollout"), ("claim", "rollout")], ids=str
)
def test_wait_ends_when_no_path_leads_there(quick: dict[str, str], server: Server, words: tuple[str, ...]) -> None:
    chart = f"b{abs(hash(words))}"
    server.import_chart(chart, BACKED_OUT)
    server.put(chart, "canary")
    *command, state = words
    # Without the end that is tested, the test would stop statectl after 60 s.
    assert statectl(quick, "--timeout", "10m", *command, chart, state).returncode == NO


def test_wait_goes_on_after_one_early_answer(quick: dict[str, str]) -> None:
    early = (406, '{"answer": "no", "reason": "not_current"}')
    with Stub(early, (200, '{"is_final": false}'), YES_ANSWER) as stub:
        assert statectl(quick, "--timeout", "1m", "wait", "c", "s", STATECTL_URL=stub.url).returncode == YES


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


COUNTED = (200, '{"answer": "yes", "reason": "updated"}')
PAUSED = (406, '{"answer": "no", "reason": "paused", "current_state": "b"}')


@pytest.mark.parametrize("command", [("can",), ("did",), ("run",)], ids=lambda words: words[0])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_never_a_yes(told: dict[str, str], command: tuple[str, ...], status: int) -> None:
    words = (*command, "a", "b", *(("--", "echo", "ran") if command == ("run",) else ()))
    with Stub((status, COUNTED[1])) as stub:
        done = statectl(told, *words, STATECTL_URL=stub.url, STATECTL_ON_UNREACHABLE="go")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert f"{status}, a redirect; set STATECTL_URL" in done.stderr


def test_404_without_a_reason_asks_for_the_right_address(told: dict[str, str]) -> None:
    with Stub((404, "<html>not here</html>")) as stub:
        done = statectl(told, "can", "a", "b", STATECTL_URL=stub.url)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr == f"statectl: {stub.url}: 404: no reason given; is this the address of StateService?\n"


@pytest.mark.parametrize("lost", [None, (503, "{}"), (429, ""), (502, "<html>")], ids=str)
def test_report_whose_answer_is_lost_is_sent_again(quick: dict[str, str], lost: tuple[int, str] | None) -> None:
    with Stub(lost, COUNTED) as stub:
        done = statectl(quick, "did", "a", "b", STATECTL_URL=stub.url, STATECTL_RETRIES="2")
    assert done.returncode == YES
    assert len(stub.asked) == 2


def test_report_is_sent_again_when_the_connection_was_refused(told: dict[str, str]) -> None:
    port = free_port()
    process = subprocess.Popen(
        ["sh", str(STATECTL), "did", "a", "b"],
        env=told | {"STATECTL_URL": f"http://127.0.0.1:{port}", "STATECTL_RETRIES": "4"},
        stderr=subprocess.DEVNULL,
    )
    time.sleep(1)
    with patch.object(HTTPServer, "server_bind", lambda self: bind_to(self, port)), Stub(COUNTED):
        assert process.wait(60) == YES


def bind_to(server: HTTPServer, port: int) -> None:
    server.socket.bind(("127.0.0.1", port))
    server.server_address = server.socket.getsockname()
    server.server_port = port


def test_report_on_a_paused_chart_is_sent_again(quick: dict[str, str]) -> None:
    with Stub(PAUSED, COUNTED) as stub:
        done = statectl(quick, "did", "a", "b", STATECTL_URL=stub.url, STATECTL_RETRIES="1")
    assert (done.returncode, done.stderr) == (YES, "")


def test_report_on_a_chart_that_stays_paused_is_3_and_told(told: dict[str, str]) -> None:
    with Stub(PAUSED) as stub:
        done = statectl(told, "did", "a", "b", STATECTL_URL=stub.url)
    assert done.returncode == UNREACHABLE
    assert "the chart is paused, and the report is not counted yet" in done.stderr


def test_run_says_when_the_work_is_done_but_not_reported(quick: dict[str, str]) -> None:
    with Stub(YES_ANSWER, (400, '{"detail": "state b has no slots"}'), (503, '{"detail": "away"}')) as stub:
        done = statectl(quick, "run", "a", "b", "--", "true", STATECTL_URL=stub.url)
    assert done.returncode == UNREACHABLE
    assert "true is done but not reported; later: statectl did a 'b'" in done.stderr


def test_run_says_when_a_failure_is_not_reported(quick: dict[str, str]) -> None:
    slot = (200, '{"answer": "yes", "fence": 1}')
    with Stub(YES_ANSWER, slot, (503, '{"detail": "away"}')) as stub:
        done = statectl(quick, "run", "a", "b", "--", "false", STATECTL_URL=stub.url)
    assert done.returncode == COMMAND_FAILED
    assert "the failure is not reported; later: statectl fail a 'b'" in done.stderr
    assert "DELETE /charts/a/slot" not in stub.asked


def test_200_of_another_server_is_not_a_yes(told: dict[str, str], chart: str) -> None:
    with HTTPServer(("127.0.0.1", 0), Portal) as portal:
        threading.Thread(target=portal.serve_forever, daemon=True).start()
        done = statectl(told, "can", chart, "work", STATECTL_URL=f"http://127.0.0.1:{portal.server_port}")
        portal.shutdown()
    assert done.returncode == UNREACHABLE
    assert "the answer is not StateService's" in done.stderr


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
def test_line_that_is_not_a_setting_is_refused(told: dict[str, str], tmp_path: Path, line: str) -> None:
    (tmp_path / "bad.conf").write_text(line + "\n")
    told.pop("STATECTL_RETRIES")
    assert statectl(told, "can", "a", "b", STATECTL_CONF=str(tmp_path / "bad.conf")).returncode == USAGE


def test_settings_file_is_read_and_not_run(told: dict[str, str], tmp_path: Path, chart: str) -> None:
    (tmp_path / "evil.conf").write_text(f"STATECTL_MACHINE=$(touch {tmp_path}/ran)`touch {tmp_path}/ran`\n")
    told.pop("STATECTL_MACHINE")
    statectl(told, "did", chart, "work", STATECTL_CONF=str(tmp_path / "evil.conf"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", [".statectl", "named.conf"])
@pytest.mark.parametrize("kind", ["folder", "unreadable"])
def test_settings_that_cannot_be_read_are_an_error(
    told: dict[str, str], tmp_path: Path, server: Server, chart: str, file: str, kind: str
) -> None:
    path = tmp_path / file
    if kind == "folder":
        path.mkdir()
    else:
        # Also for the superuser, who may read every file: a link to itself.
        path.symlink_to(path)
    if file == ".statectl":
        told.pop("STATECTL_CONF")
    else:
        told["STATECTL_CONF"] = str(path)
    done = statectl(told, "did", chart, "work")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert str(path) in done.stderr
    assert len(history(server, chart)) == 1


@pytest.mark.parametrize("variable", ["STATECTL_CACERT", "STATECTL_TOKEN_FILE"])
def test_file_of_a_setting_that_cannot_be_read_is_an_error(
    told: dict[str, str], tmp_path: Path, chart: str, variable: str
) -> None:
    done = statectl(told, "can", chart, "work", "--on-unreachable=go", **{variable: str(tmp_path / "gone")})
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert variable in done.stderr


@pytest.mark.parametrize(("text", "seconds"), [("1", 1), ("1s", 1), ("0", 0), ("0m", 0)])
def test_timeout_takes_a_unit(told: dict[str, str], chart: str, text: str, seconds: int) -> None:
    began = time.monotonic()
    assert statectl(told, "wait", chart, "end", "--timeout", text).returncode == NO
    assert seconds <= time.monotonic() - began < seconds + 10


def test_timeout_in_minutes_is_longer_than_in_seconds(told: dict[str, str], server: Server, chart: str) -> None:
    moving = threading.Timer(3, lambda: server.act(chart, "goto", state="after it"))
    moving.start()
    assert statectl(told, "wait", chart, "after it", "--timeout", "1m").returncode == YES
    moving.join()


@pytest.fixture
def fake_curl(told: dict[str, str], tmp_path: Path) -> Path:
    """A curl that writes down its arguments, environment and input, and answers yes."""
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
