"""What nginx makes of the service: waits, limits, what is closed, and that it sends nothing twice."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

from tests.e2e.machines import MACHINE, Machine
from tests.e2e.stack import CLIENTS, Stack
from tests.support.http import Reply
from tests.support.processes import PATIENCE, until

PUT = "/charts/{}/state?state=green_state&machine={}"


def test_answer_through_nginx_is_the_states_name(stack: Stack, chart: str) -> None:
    reply = stack.ask("GET", f"/charts/{chart}/state?state=green_state", "machine")
    assert (reply.status, reply.body) == (200, "green_state")
    assert [name for name, value in reply.headers.items() if any(d in value for d in ("200", "406", "500"))] == []


def test_person_signs_in_and_sees_the_charts(stack: Stack, chart: str, tmp_path: Path) -> None:
    jar, certificate = str(tmp_path / "cookies"), str(stack.front.certificate)

    def curl(*words: str) -> str:
        command = ["curl", "-sSL", "--cacert", certificate, "-b", jar, "-c", jar, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    found = re.search(r'name="form_token" value="([^"]+)"', curl(f"{stack.url}/"))
    assert found is not None
    fields = ("--data-urlencode", f"token={stack.tokens['admin']}", "--data-urlencode", f"form_token={found[1]}")
    # As a browser does, curl says which site the form is from.
    page = curl("-H", f"Origin: {stack.url}", *fields, f"{stack.url}/ui/login")
    assert (chart in page, "Sign out" in page) == (True, True)
    assert "__Host-" in Path(jar).read_text()


def test_http_without_tls_is_refused(stack: Stack, chart: str) -> None:
    connection = http.client.HTTPConnection("localhost", stack.front.http_port, timeout=PATIENCE)
    connection.request("GET", f"/charts/{chart}/state?state=green_state")
    assert connection.getresponse().status == 403
    connection.close()


def ask_metrics(stack: Stack) -> Reply:
    """Ask for the metrics behind nginx."""
    return stack.service.ask("GET", "/metrics", Authorization=f"Bearer {stack.tokens['admin']}")


def test_metrics_are_closed_at_nginx_and_open_behind_it(stack: Stack) -> None:
    assert stack.ask("GET", "/metrics").status == 403
    status, text = ask_metrics(stack).answer
    assert status == 200
    assert "stateservice_database_up 1.0" in text


def test_nginx_does_not_send_a_put_again_when_its_answer_is_lost(stack: Stack, chart: str) -> None:
    with stack.lossy.losing("PUT", "/state?") as loss:
        reply = stack.ask("PUT", PUT.format(chart, "a"), "machine")
    assert (reply.status, loss.lost, loss.count()) == (502, 1, 1)
    assert stack.values(chart)["count"] == 1


def test_wait_is_held_through_nginx_and_answered_when_it_comes_true(stack: Stack, chart: str) -> None:
    answers: list[tuple[int, float]] = []

    def wait() -> None:
        reply = stack.ask("GET", f"/charts/{chart}/state?state=red_state&wait=30", "machine")
        answers.append((reply.status, time.monotonic()))

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: "stateservice_waiters 1.0" in ask_metrics(stack).body, "it waits")
    moved = stack.ask("POST", f"/charts/{chart}/goto", body=json.dumps({"state": "red_state", "reason": "e2e"}))
    told = time.monotonic()
    waiting.join(60)
    assert moved.status == 200
    assert answers[0][0] == 200
    assert answers[0][1] - told < PATIENCE


def test_chart_file_that_is_too_large_is_refused_in_the_services_words(stack: Stack) -> None:
    reply = stack.ask("PUT", "/charts/large", body="#" * (1024 * 1024 + 500))
    assert reply.status == 413
    assert reply.headers["Content-Type"] == "application/problem+json"


def test_request_has_one_id_in_both_logs(stack: Stack, chart: str) -> None:
    reply = stack.ask("GET", f"/charts/{chart}", X_Request_Id="forged")
    name = reply.headers["X-Request-Id"]
    line = until(lambda: next((x for x in stack.service.lines() if x["request_id"] == name), None), "it is logged")
    assert (line["chart"], line["actor"], line["status"], line["remote_addr"]) == (chart, "admin", 200, "127.0.0.1")
    assert name in stack.front.log.read_text()


def test_machines_id_and_token_are_not_in_nginxs_log(stack: Stack, chart: str) -> None:
    stack.ask("PUT", PUT.format(chart, "very-secret-host"), "machine")
    until(lambda: chart in stack.front.log.read_text(), "it is logged")
    assert "very-secret-host" not in stack.front.log.read_text()
    assert stack.tokens["machine"] not in stack.front.log.read_text()


def test_curl_files_that_the_service_writes_name_nginxs_address(stack: Stack, chart: str) -> None:
    reply = stack.ask("GET", f"/charts/{chart}/can.curl?state=green_state&machine={MACHINE}", "machine")
    assert f'url = "{stack.url}/charts/{chart}/state?state=green_state"' in reply.body


def test_statectl_is_counted_once_when_the_connection_is_cut(stack: Stack, tmp_path: Path, chart: str) -> None:
    machine = Machine(stack, tmp_path, chart)
    settings = machine.statectl_file() | {"STATECTL_URL": stack.lossy_url}
    with stack.lossy.losing("PUT", "/state?") as loss:
        done = machine.run(str(CLIENTS / "statectl"), "did", chart, "green_state", **settings)
    assert (done.returncode, loss.lost, loss.count()) == (0, 1, 2)
    assert stack.updates(chart) == 1


def test_no_report_is_lost_while_the_service_is_reloaded(stack: Stack, tmp_path: Path, chart: str) -> None:
    """An upgrade without downtime: `systemctl reload` in the middle of reports."""
    machine = Machine(stack, tmp_path, chart)
    settings = machine.statectl_file()
    statuses: list[int] = []

    def report(first: int) -> None:
        for number in range(first, first + 15):
            command = [str(CLIENTS / "statectl"), "did", chart, "green_state", "--machine", f"m{number}"]
            statuses.append(machine.run(*command, **settings).returncode)

    threads = [threading.Thread(target=report, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert stack.service.process is not None
    os.kill(stack.service.process.pid, signal.SIGHUP)
    for thread in threads:
        thread.join()
    assert statuses == [0] * 45
    assert stack.values(chart)["count"] == 45
