"""Failovers under load: the primary is killed, its synchronous standby promoted, again and again; nothing is lost."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from proof.campaign import CHARTS, Progress, Report, judge
from proof.history import Attempt
from proof.load import Load, loaded
from proof.patroni import patroni_cluster
from proof.proof import Proof, new_folder
from proof.replication import replicated_database
from proof.stand import Database, serving
from tests.support.processes import until

# Whatever the database does, an update is answered within this.
ANSWER_SECONDS = 5.0
RECOVERY_SECONDS = 30.0
# PUTs acknowledged before the next kill.
SETTLED = 100


class Cluster(Database, Protocol):
    """PostgreSQL servers of which one leads."""

    def fail_over(self) -> int:
        """Kill -9 the leader and return, once another one leads, when that was (on the monotonic clock, in ns)."""
        ...

    def rebuild(self) -> None:
        """Have what was killed follow the new leader, and every commit wait for a standby again."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How many failovers, under what load, and how many PUTs are acknowledged for each."""

    failovers: int
    acknowledged: int
    processes: int = 2
    threads: int = 24


@dataclass(slots=True)
class Failovers:
    """What a run came to, and for how long no PUT was acknowledged after each kill, in seconds."""

    report: Report
    outages: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report for a file."""
        return {**self.report.as_json(), "outages": [round(outage, 2) for outage in self.outages]}

    def as_line(self) -> str:
        """The report in a line."""
        return f"{self.report.as_line()}; no PUT acknowledged for at most {max(self.outages, default=0):.1f} s"


def run_failovers(cluster: Cluster, folder: Path, plan: Plan, progress: Progress = lambda line: None) -> Failovers:
    """Kill the primary under load as often as planned, and judge what the clients saw."""
    started = time.monotonic()
    found = Failovers(Report("postgresql", fired={"failover": 0}))
    with (
        serving(cluster, folder, CHARTS) as server,
        loaded(server.port, CHARTS, folder, plan.processes, plan.threads) as load,
    ):
        kills = [_fail_over(cluster, load, plan, found.report, progress) for _ in range(plan.failovers)]
        _wait_for_load(load, (plan.failovers + 1) * plan.acknowledged)
        attempts = load.end()
    judge(cluster, attempts, found.report)
    found.outages = [outage_after(kill, attempts) for kill in kills]
    found.report.violations += late_answers(attempts)
    found.report.seconds = time.monotonic() - started
    return found


def _fail_over(cluster: Cluster, load: Load, plan: Plan, report: Report, progress: Progress) -> int:
    """Let the load run, and kill the primary under it; return when that was."""
    _wait_for_load(load, (report.fired["failover"] + 1) * plan.acknowledged)
    # Not always at the same point of the load's rounds.
    time.sleep(random.random() / 2)
    killed = cluster.fail_over()
    report.fired["failover"] += 1
    promoted = (time.monotonic_ns() - killed) / 1e9
    before = load.taken
    until(lambda: load.taken > before, "PUTs are acknowledged again", RECOVERY_SECONDS)
    recovered = (time.monotonic_ns() - killed) / 1e9
    cluster.rebuild()
    rebuilt = (time.monotonic_ns() - killed) / 1e9
    number = report.fired["failover"]
    progress(
        f"failover {number} of {plan.failovers}: promoted after {promoted:.2f} s, PUTs acknowledged after"
        f" {recovered:.2f} s, a new standby after {rebuilt:.1f} s; {load.taken} PUTs so far"
    )
    return killed


def _wait_for_load(load: Load, total: int) -> None:
    """Return once `total` PUTs were acknowledged, and some after this began."""
    goal = max(total, load.taken + SETTLED)
    until(lambda: load.taken >= goal, f"{goal} PUTs are acknowledged", 60 + (goal - load.taken) / 20)


def outage_after(killed: int, attempts: Sequence[Attempt]) -> float:
    """How long after `killed` the first PUT sent since then was acknowledged, in seconds."""
    later = (item.returned for item in attempts if item.method == "PUT" and item.is_yes and item.called > killed)
    return (min(later) - killed) / 1e9


def late_answers(attempts: Sequence[Attempt]) -> list[str]:
    """What came too late or not at all, though the service was there all along."""
    puts = [item for item in attempts if item.method == "PUT"]
    slow = [item for item in puts if (item.returned - item.called) / 1e9 > ANSWER_SECONDS]
    unanswered = [item for item in attempts if item.status is None]
    return [
        *([f"{len(slow)} PUTs were answered after more than {ANSWER_SECONDS} s"] if slow else []),
        *([f"{len(unanswered)} requests had no answer"] if unanswered else []),
    ]


WHOLE = Plan(failovers=20, acknowledged=2_450)
ROWS = 50_000
CARELESS = Plan(failovers=1, acknowledged=200, threads=6)


def prove_failover(proof: Proof) -> None:
    """Fail over twenty times under load."""
    # PostgreSQL's data in a folder of its own, which its system user may enter.
    with new_folder() as folder, replicated_database(Path(tempfile.mkdtemp(dir=folder))) as pair:
        found = run_failovers(pair, folder, WHOLE, proof.say)
    # Rows, because a plain 200 does not say whether it is a replay.
    if found.report.rows < ROWS:
        found.report.invalid.append(f"{found.report.rows} rows, {ROWS} are needed")
    proof.add("failover", found.as_json(), found.as_line())
    _prove_that_a_loss_is_seen(proof)


def _prove_that_a_loss_is_seen(proof: Proof) -> None:
    """Have a standby take over that nobody waited for: what it lacks must be missed."""
    with new_folder() as folder, replicated_database(Path(tempfile.mkdtemp(dir=folder)), is_synchronous=False) as pair:
        found = run_failovers(pair, folder, CARELESS)
    violations = found.report.violations
    part = {**found.as_json(), "is_proof": bool(violations), "violations": violations[:5]}
    proof.add("failover to an asynchronous standby", part, f"caught: {violations[0]}" if violations else "NOT CAUGHT")


# With the times that Patroni is shipped with: it takes up to its `ttl` before a standby may lead.
PATRONI = Plan(failovers=3, acknowledged=1_000, threads=8)


def prove_patroni(proof: Proof) -> None:
    """Kill the leader under Patroni, which finds another one by itself."""
    with new_folder() as folder, patroni_cluster() as cluster:
        found = run_failovers(cluster, folder, PATRONI, proof.say)
    proof.add("patroni", found.as_json(), found.as_line())
