"""Groups under load: machines claim, fail and report over HTTP while workers die, and no group is ever over its limit.

Clients claim for machines of a roster with zones, racks and shards. Some machines fail and stand at `failed`, some
never report, and the roster moves machines to other groups. Afterwards `find_excess` reads the log.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from app.config import Config
from app.core.log import LogRow
from app.core.position import Kind
from app.service.rosters import list_versions, read_list
from app.wiring import create_app, service_of
from proof.campaign import Progress, check_file, read_chart
from proof.groups import DEFECTS, Limits, Lines, find_excess, live, seeded
from proof.load import Connection, NotSentError
from proof.proof import Proof, new_folder, opened
from proof.stand import BreakableServer, Database, serving
from tests.service.support import Clock, opened_service

NAME = "groups"
LEASE = 5
# The two states take turns, so that machines which are done may begin again, and the limits change.
CHART = f"""\
chart: {NAME}
current_state: one
expect: {{roster: {NAME}}}
states:
  - name: one
    func: increment
    slots: {{total: "3%", per: {{rack: 2, shard: 1, zone: "2%"}}}}
    lease: {LEASE}s
    on_expire: fail
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target: [{{name: two, when: {{key: count, value: "20%"}}}}, {{name: end, when: {{key: failed, value: 1000000}}}}]
  - name: two
    func: increment
    slots: {{total: "3%", per: {{rack: 1, shard: 2, zone: "1%"}}}}
    lease: {LEASE}s
    on_expire: fail
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target: {{name: one, when: {{key: count, value: "20%"}}}}
  - name: end
"""
LIMITS: dict[str, Limits] = {
    "one": {"rack": 2, "shard": 1, "zone": Fraction(2, 100)},
    "two": {"rack": 1, "shard": 2, "zone": Fraction(1, 100)},
}
# What a machine does with its slot, and how often.
DEEDS = {"report": 88, "fail": 6, "give back": 4, "forget": 2}
# Slots that one claimer has in hand at most.
IN_HAND = 10
# How often a claimer finishes one of them before its hand is full, and takes up a machine that has failed.
FINISHES, TRIES_AGAIN = 0.4, 0.2
# What happens meanwhile, one after another.
FAULTS = ("kill_worker", "roster", "kill_worker", "kill_worker", "roster", "kill_all")
# More than a slow machine needs.
MOST_FAULTS = 1000
# What a client is told while the database cannot answer.
BUSY = "status 503"
# Lives that a seeded defect has to show itself.
LIVES = range(1, 9)


@dataclass(frozen=True, slots=True)
class Plan:
    """How many machines, in how many groups, are claimed for by how many clients, for how long."""

    machines: int = 10_000
    zones: int = 3
    racks: int = 200
    shards: int = 1_000
    claimers: int = 16
    seconds: float = 300
    # Seconds between two faults.
    pause: float = 4
    # Claims that the load must come to.
    claims: int = 1000


SMALL = Plan(machines=600, racks=30, shards=80, claimers=8, seconds=8, pause=1, claims=60)


@dataclass(slots=True)
class GroupsReport:
    """What a load of groups came to."""

    database: str
    seconds: float = 0
    claims: int = 0
    reports: int = 0
    failures: int = 0
    unknown: int = 0
    rows: int = 0
    visits: int = 0
    versions: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    invalid: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    @property
    def is_proof(self) -> bool:
        """Whether the load was one, and nothing was violated."""
        return not self.invalid and not self.violations

    def as_json(self) -> dict[str, Any]:
        """The report for a file."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {**fields, "seconds": round(self.seconds), "is_proof": self.is_proof}

    def as_line(self) -> str:
        """The report in a line."""
        verdict = "proven" if self.is_proof else "VIOLATED" if self.violations else f"INVALID {self.invalid}"
        return (
            f"{self.database}: {verdict}: {self.claims} claims and {self.reports} reports acknowledged,"
            f" {self.failures} failures, {self.answers.get('group_full', 0)} times group_full, {self.unknown} unknown,"
            f" faults {self.faults}, {self.visits} visits, {self.versions} versions of the roster,"
            f" {self.rows} rows, {len(self.violations)} violations, {self.seconds:.0f} s"
        )


# The clients


@dataclass(slots=True)
class Claimer:
    """One client that claims for machines, works and reports, until `stop` is set."""

    port: int
    plan: Plan
    number: int
    stop: threading.Event
    state: str = "one"
    answers: Counter[str] = field(default_factory=Counter)
    # What was acknowledged: machine and fence of each claim; seq, machine and key of each report.
    claims: list[tuple[str, int]] = field(default_factory=list)
    reports: list[tuple[int, str, str]] = field(default_factory=list)
    _held: deque[tuple[str, str]] = field(default_factory=deque)
    _failed: deque[str] = field(default_factory=lambda: deque(maxlen=100))

    def live(self) -> None:
        """Claim and report."""
        chance, connection = random.Random(self.number), Connection(self.port)
        while not self.stop.is_set():
            if len(self._held) == IN_HAND or (self._held and chance.random() < FINISHES):
                self._finish(connection, chance)
            else:
                self._begin(connection, chance)
        connection.close()

    def _begin(self, connection: Connection, chance: random.Random) -> None:
        if self._failed and chance.random() < TRIES_AGAIN:
            machine = self._failed.popleft()
        else:
            machine = name_machine(chance.randrange(self.plan.machines))
        found = self._ask(connection, "PUT", f"slot?state={self.state}&machine={machine}")
        if found.get("answer") == "yes":
            self.claims.append((machine, found["fence"]))
            self._held.append((machine, self.state))
        elif found.get("reason") == "not_current":
            self.state = found["current_state"]
        elif not found:
            # It may hold a slot of which nobody knows.
            self._failed.append(machine)

    def _finish(self, connection: Connection, chance: random.Random) -> None:
        machine, state = self._held.popleft()
        deed = chance.choices(list(DEEDS), list(DEEDS.values()))[0]
        if deed == "forget":
            # Its lease ends, and it stands at failed until a machine tries again.
            self._failed.append(machine)
            return
        if deed == "give back":
            self._ask(connection, "DELETE", f"slot?state={state}&machine={machine}")
            return
        key = "failed" if deed == "fail" else "count"
        found = self._ask(connection, "PUT", f"state?state={state}&machine={machine}&key={key}")
        if found.get("answer") == "yes" and not found["replay"]:
            self.reports.append((found["seq"], machine, key))
        if not found or key == "failed":
            self._failed.append(machine)

    def _ask(self, connection: Connection, method: str, path: str) -> dict[str, Any]:
        """Send one request; return its answer, empty if there was none."""
        try:
            status, body = connection.ask(method, f"/charts/{NAME}/{path}", {"Accept": "application/json"})
        except NotSentError:
            self.answers["not sent"] += 1
            time.sleep(0.02)
            return {}
        except (OSError, http.client.HTTPException):
            self.answers["unknown"] += 1
            return {}
        if status not in (200, 406):
            self.answers[f"status {status}"] += 1
            return {}
        found: dict[str, Any] = json.loads(body)
        self.answers[found["reason"]] += 1
        return found


def name_machine(number: int) -> str:
    """The id of a machine."""
    return f"m{number:05}"


def make_roster(plan: Plan, chance: random.Random, lines: Sequence[str] = ()) -> list[str]:
    """Return a line for each machine: zone, rack and two shards; of earlier lines one in a hundred is another."""
    found = list(lines) or [""] * plan.machines
    changed = range(plan.machines) if not lines else chance.sample(range(plan.machines), max(1, plan.machines // 100))
    for number in changed:
        one, two = chance.sample(range(plan.shards), 2)
        zone, rack = chance.randrange(plan.zones), chance.randrange(plan.racks)
        found[number] = f"{name_machine(number)} zone=z{zone} rack=r{rack:03} shard={one},{two}\n"
    return found


@contextmanager
def claiming(port: int, plan: Plan) -> Iterator[list[Claimer]]:
    """Let the claimers live while the block lasts."""
    stop = threading.Event()
    claimers = [Claimer(port, plan, number, stop) for number in range(plan.claimers)]
    threads = [threading.Thread(target=claimer.live) for claimer in claimers]
    for thread in threads:
        thread.start()
    try:
        yield claimers
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


# The load


def fill_groups(
    database: Database, folder: Path, plan: Plan, progress: Progress = lambda line: None, defect: str = ""
) -> GroupsReport:
    """Run the load on `database`, and judge the log."""
    started = time.monotonic()
    report = GroupsReport(make_url(database.url).get_backend_name())
    chance = random.Random(18)
    lines = make_roster(plan, chance)
    with serving(database, folder, (), defect) as server:
        assert server.ask("PUT", f"/rosters/{NAME}", "".join(lines)) == 201
        assert server.ask("PUT", f"/charts/{NAME}", CHART) == 201
        with claiming(server.port, plan) as claimers:
            _break(server, claimers, plan, report, lines, chance, progress)
        _count(claimers, report)
    judge(database.url, claimers, plan, report)
    report.seconds = time.monotonic() - started
    return report


def _break(
    server: BreakableServer,
    claimers: Sequence[Claimer],
    plan: Plan,
    report: GroupsReport,
    lines: Sequence[str],
    chance: random.Random,
    progress: Progress,
) -> None:
    """Kill workers and import other versions of the roster, each at least once, until time and claims are reached."""
    report.faults = dict.fromkeys(FAULTS, 0)
    deadline = time.monotonic() + plan.seconds
    for number, fault in enumerate(cycle(FAULTS)):
        left = max(0, deadline - time.monotonic())
        claims = sum(len(claimer.claims) for claimer in claimers)
        is_done = not left and number >= len(FAULTS) and claims >= plan.claims
        if is_done or number == MOST_FAULTS:
            return
        time.sleep(plan.pause)
        if fault == "roster":
            lines = make_roster(plan, chance, lines)
            report.faults[fault] += server.ask("PUT", f"/rosters/{NAME}", "".join(lines)) == 200
        else:
            report.faults[fault] += server.kill_one_worker() if fault == "kill_worker" else server.kill_everything()
            server.until_ready()
        progress(f"{report.database}: {fault}, {left:.0f} s are left")


def _count(claimers: Sequence[Claimer], report: GroupsReport) -> None:
    answers: Counter[str] = Counter()
    for claimer in claimers:
        answers += claimer.answers
    report.answers = dict(answers.most_common())
    report.claims = sum(len(claimer.claims) for claimer in claimers)
    report.reports = sum(len(claimer.reports) for claimer in claimers)
    report.failures = sum(key == "failed" for claimer in claimers for _, _, key in claimer.reports)
    report.unknown = answers["unknown"] + answers[BUSY]


# The judgement


def judge(url: str, claimers: Sequence[Claimer], plan: Plan, report: GroupsReport) -> None:
    """Fill in what the log says: groups over their limit, and claims and reports that were lost."""
    read, differences = read_chart(url, NAME)
    log, versions = [item.logged for item in read], _read_versions(url)
    report.rows, report.versions = len(log), len(versions)
    report.visits = len({(row.run, row.visit) for row in log})
    found = [*differences, *find_excess(log, versions, LIMITS), *_find_lost(log, claimers)]
    if report.database == "sqlite":
        found += check_file(url)
    report.violations = found
    if report.answers.get("group_full", 0) < plan.claims // 2:
        report.invalid.append(f"only {report.answers.get('group_full', 0)} times a group was full")
    if report.claims < plan.claims or not report.failures:
        report.invalid.append(f"only {report.claims} claims and {report.failures} failures were acknowledged")
    wrong = {name: count for name, count in report.answers.items() if name.startswith("status ") and name != BUSY}
    report.invalid += [f"{count} answers had {name}" for name, count in wrong.items()]
    report.invalid += [f"{fault} never happened" for fault, count in report.faults.items() if not count]


def _read_versions(url: str) -> dict[int, Lines]:
    service = service_of(create_app(Config(database_url=url)))
    try:
        numbers = [version.version for version in list_versions(service, NAME)]
        return {number: read_list(service, NAME, number) for number in numbers}
    finally:
        service.database.engine.dispose()


def _find_lost(log: Sequence[LogRow], claimers: Sequence[Claimer]) -> list[str]:
    claimed = {(row.machine, row.value_after) for row in log if row.kind == Kind.CLAIM}
    by_seq = {row.seq: row for row in log}
    lost = [f"the claim of {claim} was lost" for one in claimers for claim in one.claims if claim not in claimed]
    for claimer in claimers:
        for seq, machine, key in claimer.reports:
            row = by_seq.get(seq)
            if row is None or (row.machine, row.key) != (machine, key):
                lost.append(f"the report of {machine} on {key} at seq {seq} was lost")
    return lost


def prove_groups(proof: Proof, which: str) -> None:
    """Fill the groups on `which` for five minutes; then see each seeded defect caught."""
    with new_folder() as folder, opened(which, folder) as database:
        found = fill_groups(database, folder, Plan(), proof.say)
    proof.add(f"groups on {which}", found.as_json(), found.as_line())
    for defect in DEFECTS:
        with new_folder() as folder, opened(which, folder) as database:
            excess = find_defect(database, defect)
        line = f"caught: {excess[0]}" if excess else "NOT CAUGHT"
        proof.add(f"{defect} on {which}", {"is_proof": bool(excess), "violations": excess[:5]}, line)


def find_defect(database: Database, defect: str) -> list[str]:
    """Let machines live on a service with a seeded defect; return what the checker finds."""
    with opened_service(database.url) as service, seeded(defect):
        service.database.clock = clock = Clock()
        # Threads take turns by chance, so that one life may not come to the limit of a group.
        return next(filter(None, (live(service, clock, seed=seed).excess for seed in LIVES)), [])
