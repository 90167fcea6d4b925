"""`./state_service demo`: a server on a database of its own, and machines that move its charts, to look at."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
import urllib3
from urllib3.exceptions import HTTPError

from app.cli.shared import NO, USAGE, exits_on_error, fail
from app.config import HOME, PREFIX

KERNEL = """\
chart: kernel-demo
description: a new kernel for 60 machines, in a few minutes; now and then one fails
current_state: canary
expect: 60
require_machine: true
states:
  - name: canary
    description: five machines try it first
    func: increment
    slots: 3
    lease: 30s
    on_expire: fail
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: rolled_back, when: {key: failed, value: 2}}
      - {name: soak, when: {key: count, value: 5}}
      - {name: overdue, when: {key: elapsed, value: 10m}}
  - name: soak
    description: time for a slow fault to show
    func: time
    target: {name: fleet, when: {key: elapsed, value: 15s}}
  - name: fleet
    description: all others, 10 % of the fleet at a time, then 25 %
    func: increment
    including: [canary]
    slots: ["10%", "25%"]
    lease: 30s
    on_expire: fail
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: rolled_back, when: {key: failed, op: ">", value: "5%"}}
      - {name: done, when: {key: count, value: "95%"}}
      - {name: overdue, when: {key: elapsed, value: 30m}}
  - name: done
  - name: rolled_back
    description: too many failures; machines that ask here put the old kernel back
  - name: overdue
"""
REBOOT = """\
chart: reboot-demo
description: 24 machines reboot, a few at a time
current_state: reboot
expect: [{names}]
require_machine: true
states:
  - name: reboot
    func: increment
    slots: [1, 4]
    lease: 20s
    on_expire: fail
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target:
      - {{name: halted, when: {{key: failed, value: 3}}}}
      - {{name: done, when: {{key: count, value: "95%"}}}}
      - {{name: overdue, when: {{key: elapsed, value: 30m}}}}
  - name: done
  - name: halted
    description: three machines did not come back
  - name: overdue
"""
WEB = [f"web-{number:02}" for number in range(1, 25)]
# Seconds: between two looks at the charts, how long a machine works, and how long an ended chart is left to look at.
LOOK, WORK, REST = 0.5, (1.0, 7.0), 30.0
# The share of tries that fail.
FAILING = 0.02
MAX_START = 60.0


@dataclass(slots=True)
class Fleet:
    """The machines of one chart. `busy` has when each machine that works will report, and in which state."""

    chart: str
    machines: list[str]
    busy: dict[str, tuple[float, str]] = field(default_factory=dict)
    ended: float | None = None


FLEETS = (Fleet("kernel-demo", [f"db-{number:02}" for number in range(1, 61)]), Fleet("reboot-demo", WEB))


@click.command("demo", epilog="Example: ./state_service demo --port 8080")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="The port to listen on.")
@click.option("--seconds", type=click.FloatRange(min=0), metavar="N", help="End after N seconds; else with Ctrl-C.")
@exits_on_error
def demo(port: int, seconds: float | None) -> None:
    """Serve charts that a fleet of pretended machines moves, on 127.0.0.1. The database is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="stateservice-") as folder, _serving(Path(folder), port) as server:
        client = _Client(f"http://127.0.0.1:{port}")
        _await_start(client, server)
        click.echo(f"Look at http://127.0.0.1:{port}/ while the machines work. Ctrl-C ends it.", err=True)
        end = None if seconds is None else time.monotonic() + seconds
        try:
            while server.poll() is None and (end is None or time.monotonic() < end):
                for fleet in FLEETS:
                    _move(client, fleet, time.monotonic())
                time.sleep(LOOK)
        except KeyboardInterrupt:
            return
        if server.poll() is not None:
            fail("the server has ended", NO)


@contextmanager
def _serving(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on a database in `folder` while the block runs."""
    charts = {"kernel-demo": KERNEL, "reboot-demo": REBOOT.format(names=", ".join(WEB))}
    command = [sys.executable, "-m", "app.cli", "--database", f"sqlite:///{folder / 'demo.db'}", "--port", str(port)]
    for name, text in charts.items():
        (folder / f"{name}.yaml").write_text(text)
        command += ["--chart", str(folder / f"{name}.yaml")]
    command += ["--chart", str(HOME / "charts" / "approved-change.yaml")]
    # No setting of a real service counts here.
    own = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    # The server runs in the service's own folder, beside the libraries that this process has found.
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HOME), own.get("PYTHONPATH")]))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=HOME, env=own, stdout=log, stderr=log)
        try:
            yield server
        finally:
            server.terminate()
            server.wait(40)


def _await_start(client: _Client, server: subprocess.Popen[bytes]) -> None:
    begun = time.monotonic()
    while server.poll() is None and time.monotonic() < begun + MAX_START:
        if client.ask("GET", "/readyz")[0] == 200:
            return
        time.sleep(0.1)
    fail("the demo's server did not start; is the port taken?", USAGE)


class _Client:
    """Requests to the demo's server; a server that is gone answers 0."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool = urllib3.PoolManager(timeout=5, retries=False)

    def ask(
        self, method: str, path: str, query: dict[str, str] | None = None, body: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Return the status of the answer, and its JSON."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        try:
            answer = self._pool.request(
                method, f"{self._url}{path}?{urlencode(query or {})}", body=text, headers=headers
            )
            return answer.status, json.loads(answer.data or b"null")
        except (HTTPError, ValueError):
            return 0, None


def _move(client: _Client, fleet: Fleet, now: float) -> None:
    """Let machines that are due report, and let a few others ask; begin the next run some time after the end."""
    path = f"/charts/{fleet.chart}"
    status, chart = client.ask("GET", path)
    if status != 200:
        return
    if chart["is_final"]:
        fleet.busy.clear()
        fleet.ended = fleet.ended or now
        if now > fleet.ended + REST:
            client.ask("POST", f"{path}/reset", body={"reason": "the next demonstration"})
        return
    fleet.ended = None
    for machine, (due, state) in list(fleet.busy.items()):
        if due <= now:
            said = {"key": "failed", "note": "it did not come up: exit status 1"} if random.random() < FAILING else {}
            client.ask("PUT", f"{path}/state", {"state": state, "machine": machine, **said})
            del fleet.busy[machine]
    idle = [machine for machine in fleet.machines if machine not in fleet.busy]
    for machine in random.sample(idle, min(len(idle), 4)) if chart["slots"] is not None else ():
        state = chart["current_state"]
        if client.ask("PUT", f"{path}/slot", {"state": state, "machine": machine})[0] == 200:
            fleet.busy[machine] = (now + random.uniform(*WORK), state)
