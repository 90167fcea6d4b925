"""What rosters cost: claims where groups are limited, the import of a million lines, and GETs on charts that follow."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.charts import NEVER, STATE
from bench.databases import DATABASES, Databases
from bench.rounds import TITLES, Ask, Options, rates, take_turns, wrk
from bench.servers import service
from bench.table import Row
from bench.wrk import Sample
from tests.support.servers import ROOT, Server

# The machines of the claims.
MACHINES = 10_000
CLAIMS = Path(__file__).with_name("claims.lua")
# A chart by a roster. Every claim is a yes: there is a slot for each machine, and no group is ever full.
CHART = f"""\
current_state: {STATE}
expect: {{roster: ROSTER}}
states:
- name: {STATE}
  func: increment
  slots: {{total: {MACHINES}GROUPS}}
  current: [{{key: c, value: 0}}, {{key: failed, value: 0}}]
  target: {{name: s2, when: {{key: c, value: {NEVER}}}}}
- name: s2
"""
GROUPS = ', per: {zone: "100%", rack: "100%", shard: "100%"}'
CLAIM_GOAL = 0.7

FEW = 1000
IMPORT_SECONDS = 60.0
IMPORT_MB = 1000.0
GET_GOAL = 0.9


def make_lines(machines: int) -> bytes:
    """The lines of a roster: each machine in one of three zones, a rack of fifty machines, and two of 1,000 shards."""
    racks = max(machines // 50, 1)
    return b"".join(
        b"m%d zone=z%d rack=r%d shard=%d,%d\n"
        % (number, number % 3, number % racks, number % 1000, 1000 + (number * 7 + number // racks) % 1000)
        for number in range(1, machines + 1)
    )


def put_roster(server: Server, name: str, lines: bytes) -> float:
    """Import a roster over HTTP; return the seconds from the sending of the lines to the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    started = time.monotonic()
    connection.request("PUT", f"/rosters/{name}", lines)
    answer = connection.getresponse()
    body = answer.read()
    took = time.monotonic() - started
    connection.close()
    assert answer.status == 201, body[:1000]
    return took


def chart_by(roster: str, groups: str = "") -> str:
    """A chart that follows the roster."""
    return CHART.replace("ROSTER", roster).replace("GROUPS", groups)


# Claims


def measure_claims(found: Databases, options: Options) -> list[Row]:
    """Claims of 10,000 machines, each in three kinds of groups, beside claims without groups."""
    rows = []
    for which in DATABASES:
        url = found.new(which)
        with service(url, found.folder) as server:
            put_roster(server, "web", make_lines(MACHINES))
            asks = {}
            for name, groups in (("grouped", GROUPS), ("plain", "")):
                server.import_chart(name, chart_by("web", groups))
                asks[name] = _claim(server, name)
            samples = take_turns(asks, options)
        found.drop(url)
        what = f"claim of a slot, {MACHINES:,} machines in three groups each, {TITLES[which]}, 16 connections"
        rows.append(Row(what, "/s", rates(samples["grouped"]), "no groups", rates(samples["plain"]), CLAIM_GOAL))
    return rows


def _claim(server: Server, chart: str) -> Ask:
    """Claim for one machine after another, in a new run in which no slot is held."""
    path = f"/charts/{chart}/slot?state={STATE}&machine=m"

    def ask(seconds: int) -> Sample:
        server.act(chart, "reset", reason="the next round")
        return wrk(server.port, "PUT", path, charts=MACHINES, script=CLAIMS)(seconds)

    return ask


# A million lines


def measure_rosters(found: Databases, options: Options) -> list[Row]:
    """A roster of a million lines, imported by the command and over HTTP; then GET on a chart that follows it."""
    lines = make_lines(options.roster_lines)
    file = found.folder / "roster.txt"
    file.write_bytes(lines)
    rows = []
    for which in DATABASES:
        url = found.new(which)
        commanded = _import_by_command(url, file)
        found.drop(url)
        url = found.new(which)
        with service(url, found.folder) as server:
            sent = put_roster(server, "many", lines), max(map(_peak_mb, server.workers()))
            put_roster(server, "few", make_lines(FEW))
            rows += _import_rows(which, options.roster_lines, commanded, sent)
            rows += _ask_rows(server, which, options)
        found.drop(url)
    file.unlink()
    return rows


def _import_by_command(url: str, file: Path) -> tuple[float, float]:
    """Run `./state_service roster import`; return its seconds and the most memory that it had, in MB."""
    command = [sys.executable, str(ROOT / "state_service"), "--database", url, "roster", "import", "many", str(file)]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.monotonic() - started, usage.ru_maxrss * 1024 / 1e6


def _peak_mb(pid: int) -> float:
    """The most memory that a process ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))


def _import_rows(which: str, lines: int, commanded: tuple[float, float], sent: tuple[float, float]) -> list[Row]:
    rows = []
    for how, (seconds, memory) in (("by the command", commanded), ("over HTTP", sent)):
        what = f"a roster of {lines:,} lines, {TITLES[which]}: imported {how}"
        rows.append(Row(what, "s", [seconds], goal=IMPORT_SECONDS, at_most=True))
        rows.append(Row(f"{what}: memory of the process", "MB", [memory], goal=IMPORT_MB, at_most=True))
    return rows


def _ask_rows(server: Server, which: str, options: Options) -> list[Row]:
    """GET with and without a machine, beside the same on a chart by a roster of 1,000 machines."""
    asks = {}
    for name, machines in (("many", options.roster_lines), ("few", FEW)):
        server.import_chart(name, chart_by(name))
        path = f"/charts/{name}/state?state={STATE}"
        asks[name] = wrk(server.port, "GET", path)
        asks[f"{name} machine"] = wrk(server.port, "GET", f"{path}&machine=m{{chart}}", charts=machines)
    samples = take_turns(asks, options)
    what = f"by a roster of {options.roster_lines:,}, {TITLES[which]}, 16 connections"
    peer = f"a roster of {FEW:,}"
    return [
        Row(f"GET state {what}", "/s", rates(samples["many"]), peer, rates(samples["few"]), GET_GOAL),
        Row(
            f"GET state with a machine id {what}",
            "/s",
            rates(samples["many machine"]),
            peer,
            rates(samples["few machine"]),
        ),
    ]
