"""Machines that claim, work, report, crash and oversleep, on a real server whose workers are killed under them.

What the log says afterwards is the judge: it is read by `Ledger`, which shares nothing with the service's own replay.
"""

from __future__ import annotations

import http.client
import multiprocessing
import os
import random
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.log import LogRow
from app.service.upkeep import verify
from tests.service.support import opened_service, rows
from tests.support.servers import Server, chart_path, running
from tests.support.slots import Ledger

SLOTS = 7
LEASE = 2
CHART = f"""
current_state: work
states:
  - name: work
    func: increment
    slots: {SLOTS}
    lease: {LEASE}s
    on_expire: free
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target: {{name: done, when: {{key: count, value: 1000000}}}}
  - name: done
"""
# What a machine does with its slot, and how often.
DEEDS = {"report": 80, "give back": 8, "crash": 6, "oversleep": 3, "hang up": 3}


@dataclass(slots=True)
class Machine:
    """One machine's life, until `deadline`. `counts` says what came of its requests."""

    port: int
    name: str
    deadline: float
    chance: random.Random
    counts: Counter[str]
    key: str = "count"

    def live(self) -> None:
        while time.monotonic() < self.deadline:
            try:
                self.take_a_turn()
            except (OSError, http.client.HTTPException):
                # A worker was killed; what became of the request is unknown, and it is sent again.
                self.counts["lost"] += 1
                self.rest(0.1)

    def take_a_turn(self) -> None:
        claim = chart_path("churn", "slot", state="work", machine=self.name, wait=str(self.chance.randint(0, 5)))
        deed = self.chance.choices(list(DEEDS), list(DEEDS.values()))[0]
        if deed == "hang up":
            # It is gone while it waits; its slot, if it gets one, is nobody's until the lease ends.
            self.counts[deed] += 1
            connection = self.open()
            connection.request("PUT", claim)
            self.rest(0.3)
            connection.close()
            return
        if self.ask("PUT", claim) != 200:
            self.rest(0.05)
            return
        self.counts["claimed"] += 1
        self.counts[deed] += 1
        self.rest(2.2 * LEASE if deed == "oversleep" else 0.02)
        if deed in ("report", "oversleep"):
            self.key = "failed" if self.key == "count" else "count"
            status = self.ask("PUT", chart_path("churn", state="work", machine=self.name, key=self.key))
            self.counts[f"{deed} {status}"] += 1
        elif deed == "give back":
            self.ask("DELETE", chart_path("churn", "slot", state="work", machine=self.name))
        else:
            self.rest(1)

    def open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(self, method: str, path: str) -> int:
        connection = self.open()
        try:
            connection.request(method, path)
            response = connection.getresponse()
            response.read()
        finally:
            connection.close()
        self.counts[str(response.status)] += 1
        return response.status

    def rest(self, seconds: float) -> None:
        time.sleep(self.chance.uniform(0, 2 * seconds))


def run_machines(port: int, names: list[str], seconds: float, out: Any) -> None:
    """Run a thread a machine; put what they counted."""
    counts: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    lives = [Machine(port, name, deadline, random.Random(name), counts) for name in names]
    threads = [threading.Thread(target=one.live) for one in lives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.put(counts)


@dataclass(slots=True)
class Result:
    """What a churn came to."""

    counts: Counter[str]
    kinds: Counter[str]
    kills: int
    ledger: Ledger
    gaps: list[float]
    seconds: float
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The figures, for people."""
        claims = len(self.ledger.fences)
        gaps = sorted(1000 * gap for gap in self.gaps)
        late = gaps[int(0.95 * (len(gaps) - 1))]
        return [
            f"most held: {self.ledger.most} of {SLOTS}; workers killed: {self.kills}",
            f"claims of a new slot: {claims}, {claims / self.seconds:.0f} a second",
            f"a free slot waits: median {statistics.median(gaps):.0f} ms, 95 % {late:.0f} ms, worst {gaps[-1]:.0f} ms",
            "log: " + ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common()),
            "clients: " + ", ".join(f"{count} x {what}" for what, count in sorted(self.counts.items())),
        ]


def churn(
    database_url: str, folder: Path, *, machines: int, seconds: float, kill_every: float, processes: int = 4
) -> Result:
    """Let `machines`, in so many processes, churn for `seconds` on as many workers, of which a random one is killed now
    and then; judge the log.
    """
    with running(database_url, folder, workers=str(processes)) as server:
        server.import_chart("churn", CHART)
        counts, kills = _run(server, machines, processes, seconds, kill_every)
    with opened_service(database_url) as service:
        log = rows(service, "churn")
        differences = list(verify(service, "churn").differences)
    ledger = Ledger({1: (SLOTS,)}).read(log)
    kinds = Counter(row.kind for row in log)
    result = Result(counts, kinds, kills, ledger, list(find_gaps(log)), seconds, differences)
    result.problems += find_problems(result)
    return result


def _run(server: Server, machines: int, count: int, seconds: float, kill_every: float) -> tuple[Counter[str], int]:
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    names = [f"m{number:03}" for number in range(machines)]
    processes = [
        context.Process(target=run_machines, args=(server.port, names[part::count], seconds, out))
        for part in range(count)
    ]
    for process in processes:
        process.start()
    kills = _kill_workers(server, lambda: any(process.is_alive() for process in processes) and out.empty(), kill_every)
    counts: Counter[str] = Counter()
    for _ in processes:
        counts += out.get(timeout=60)
    for process in processes:
        process.join(30)
    return counts, kills


def _kill_workers(server: Server, goes_on: Callable[[], bool], every: float) -> int:
    chance, kills = random.Random(1), 0
    while goes_on():
        time.sleep(chance.uniform(0.5, 1.5) * every)
        alive = server.workers()
        # Never the last one: a machine that finds no server at all learns nothing about slots.
        if len(alive) > 1 and goes_on():
            os.kill(chance.choice(alive), signal.SIGKILL)
            kills += 1
    return kills


def find_gaps(log: Iterable[LogRow]) -> Iterable[float]:
    """How long each slot that came free while all were taken stayed free: there was always a machine waiting."""
    held, freed_at = 0, None
    for row in log:
        if row.kind == "claim" and row.value_before is None:
            held += 1
            if freed_at is not None:
                yield (row.at - freed_at).total_seconds()
            freed_at = None
        elif row.kind in ("release", "update", "expire"):
            freed_at = row.at if held == SLOTS else None
            held -= 1


def find_problems(result: Result) -> list[str]:
    """What makes a run a failure, and what makes it prove nothing."""
    fences = result.ledger.fences
    checks = {
        f"{result.ledger.most} slots were held": result.ledger.most <= SLOTS,
        "the slots were never all held": result.ledger.most == SLOTS,
        "fences do not rise": fences == sorted(set(fences)),
        f"only {len(fences)} claims": len(fences) >= 5 * result.seconds,
        "no worker was killed": result.kills > 0,
        "no client crashed": result.counts["crash"] > 0 and result.counts["hang up"] > 0,
        "no lease ended": result.kinds["expire"] > 0,
        "the server failed": result.counts["500"] == 0,
    }
    return [what for what, is_fine in checks.items() if not is_fine]
