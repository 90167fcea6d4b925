"""Load, faults one after another, and the judgement of the whole."""

from __future__ import annotations

import random
import sqlite3
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from app import store
from app.config import Config
from app.db import snapshot
from app.service.upkeep import verify
from app.wiring import create_app, service_of
from proof.checker import Row, Terms, check, check_wakes, list_wakes
from proof.crashes import POINTS
from proof.defects import DEFECTS, NO_DEFECT
from proof.history import Attempt
from proof.load import CREW_STATES, CREWS, RINGS, STATES, Load, loaded
from proof.model import read_definitions
from proof.stand import BreakableServer, Database, serving

TERMS = Terms(dict.fromkeys(STATES + CREW_STATES, "count"), definitions=read_definitions(RINGS + CREWS))
CHARTS = ("ring-1", "ring-2", "crew-1")
RING_CHARTS = ("ring-1", "ring-2", "ring-3")
HEALTHY_SECONDS = 30.0
RATE_SECONDS = 0.5

Progress = Callable[[str], None]


@dataclass(slots=True)
class Report:
    """What a run came to. It proves something where it is valid and has no violations."""

    database: str
    seconds: float = 0
    acknowledged: int = 0
    attempts: int = 0
    unknown: int = 0
    rows: int = 0
    fired: dict[str, int] = field(default_factory=dict)
    slowest: float = 0
    slowest_rate: float = 0
    # Rows of the log by kind; when the clock was first moved, on the monotonic clock in ns; seconds until a waiting
    # client usually hears of a move.
    kinds: dict[str, int] = field(default_factory=dict)
    leapt: int | None = None
    usual_wake: float = 0
    invalid: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        return sum(self.fired.values())

    @property
    def is_proof(self) -> bool:
        return not self.invalid and not self.violations

    def as_json(self) -> dict[str, Any]:
        """The report for a file."""
        return {**asdict(self), "faults": self.faults, "is_proof": self.is_proof}

    def as_line(self) -> str:
        """The report in a line."""
        verdict = "proven" if self.is_proof else "VIOLATED" if self.violations else f"INVALID {self.invalid}"
        return (
            f"{self.database}: {verdict}: {self.acknowledged} acknowledged PUTs, {self.faults} faults {self.fired},"
            f" {self.unknown} unknown, {len(self.violations)} violations, {self.seconds:.0f} s"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """How often each kind of fault is to happen, and under what load."""

    faults: dict[str, int]
    min_rate: float = 50.0
    min_acknowledged: int = 0
    settle_seconds: float = 0.3
    processes: int = 2
    threads: int = 6

    def sequence(self) -> list[str]:
        """Every fault, in a fixed shuffled order."""
        order = [kind for kind, count in self.faults.items() for _ in range(count)]
        random.Random(8).shuffle(order)
        return order


def run(database: Database, folder: Path, plan: Plan, progress: Progress = lambda line: None) -> Report:
    """Run a plan against the service on `database`, and judge what the clients saw."""
    started = time.monotonic()
    report = Report(make_url(database.url).get_backend_name(), fired=dict.fromkeys(plan.faults, 0))
    if "move_clock" in plan.faults:
        database.make_movable()
    with (
        serving(database, folder, CHARTS) as server,
        loaded(server.port, CHARTS, folder, plan.processes, plan.threads, operators=1) as load,
    ):
        _break_all(server, database, load, plan, report, progress)
        attempts = load.end()
    # Only now is nothing under way any longer.
    judge(database, attempts, report)
    report.seconds = time.monotonic() - started
    return report


def _break_all(
    server: BreakableServer, database: Database, load: Load, plan: Plan, report: Report, progress: Progress
) -> None:
    kinds = fault_kinds(server, database)
    order = plan.sequence()
    rates = []
    for number, kind in enumerate(order, 1):
        rate = _wait_for_load(load, plan.min_rate)
        rates.append(rate)
        if rate < plan.min_rate:
            report.invalid.append(
                f"{rate:.0f} acknowledged PUTs a second before {kind}, {plan.min_rate:.0f} are needed"
            )
            return
        if kind == "move_clock" and report.leapt is None:
            report.leapt = time.monotonic_ns()
        report.fired[kind] += kinds[kind]()
        server.until_ready()
        progress(f"{report.database}: fault {number} of {len(order)}, {kind}; {load.taken} PUTs acknowledged")
        time.sleep(plan.settle_seconds)
    report.slowest_rate = min(rates, default=0)
    _wait_for_count(load, plan, report, progress)
    report.invalid.extend(
        f"{kind} fired only {count} times" for kind, count in report.fired.items() if count < plan.faults[kind]
    )


def _wait_for_count(load: Load, plan: Plan, report: Report, progress: Progress) -> None:
    while (found := load.taken) < plan.min_acknowledged:
        progress(f"{report.database}: {found} of {plan.min_acknowledged} PUTs acknowledged")
        time.sleep(10)
        if (load.taken - found) / 10 < plan.min_rate:
            report.invalid.append(f"the load ended at {load.taken} of {plan.min_acknowledged} acknowledged PUTs")
            return


def _wait_for_load(load: Load, rate: float) -> float:
    """Return how many PUTs a second are acknowledged, as soon as that is `rate`, or after HEALTHY_SECONDS."""
    deadline = time.monotonic() + HEALTHY_SECONDS
    while True:
        before, started = load.taken, time.monotonic()
        time.sleep(RATE_SECONDS)
        found = (load.taken - before) / (time.monotonic() - started)
        if found >= rate or time.monotonic() > deadline:
            return found


def run_defect(database: Database, folder: Path, defect: str, seconds: float) -> Report:
    """Run the service with a seeded defect under load, without any fault, and judge what the clients saw."""
    started = time.monotonic()
    report = Report(make_url(database.url).get_backend_name())
    seeded = DEFECTS.get(defect, NO_DEFECT)
    charts = CHARTS if seeded.needs_slots else RING_CHARTS
    with (
        serving(database, folder, charts, defect) as server,
        loaded(
            server.port,
            charts,
            folder,
            processes=1,
            threads=8,
            waiters=8,
            operators=seeded.operators,
            has_twins=seeded.needs_twins,
            is_patient=seeded.is_patient,
        ) as load,
    ):
        _wait_for_load(load, 1)
        time.sleep(seconds)
        attempts = load.end()
    # No process was killed: a waiting client hears of a move at once.
    wakes = judge(database, attempts, report, charts)
    report.violations += check_wakes(wakes, attempts)
    report.seconds = time.monotonic() - started
    return report


def fault_kinds(server: BreakableServer, database: Database) -> dict[str, Callable[[], int]]:
    """Every kind of fault: what makes it happen, and says how often it did."""
    return {
        "kill_worker": server.kill_one_worker,
        "kill_all": server.kill_everything,
        "kill_gunicorn": server.kill_master,
        "stop_continue": server.stop_and_continue,
        "move_clock": server.move_clock,
        **{point: _crashing(server, point) for point in POINTS},
        **database.faults(),
    }


def _crashing(server: BreakableServer, point: str) -> Callable[[], int]:
    return lambda: server.crash(point)


# The judgement


def judge(
    database: Database, attempts: Sequence[Attempt], report: Report, charts: Sequence[str] = CHARTS
) -> list[float]:
    """Fill in what the attempts and the database say of each other; return how late waiting clients heard of moves."""
    report.attempts = len(attempts)
    report.acknowledged = sum(item.method == "PUT" and item.is_yes and not item.replay for item in attempts)
    report.unknown = sum(item.may_be_applied for item in attempts)
    report.slowest = max((item.returned - item.called for item in attempts), default=0) / 1e9
    found: list[str] = []
    wakes: list[float] = []
    kinds: Counter[str] = Counter()
    terms = replace(TERMS, leapt=report.leapt)
    for chart in charts:
        rows, differences = read_chart(database.url, chart)
        report.rows += len(rows)
        kinds.update(row.logged.kind for row in rows)
        own = [attempt for attempt in attempts if attempt.chart == chart]
        found += [f"{chart}: {problem}" for problem in [*check(rows, own, terms), *differences]]
        wakes += list_wakes(rows, own)
    if report.database == "sqlite":
        found += check_file(database.url)
    report.violations = list(dict.fromkeys(found))
    report.kinds, report.usual_wake = dict(kinds), statistics.median(wakes or [0])
    return wakes


def read_chart(url: str, chart: str) -> tuple[list[Row], list[str]]:
    """A chart's log, and how its replay differs from where the chart stands."""
    service = service_of(create_app(Config(database_url=url)))
    try:
        with snapshot(service.database) as connection:
            rows = [Row(item.row, item.hash) for item in store.log.stream_history(connection, chart)]
        return rows, list(verify(service, chart).differences)
    finally:
        service.database.engine.dispose()


def check_file(url: str) -> list[str]:
    with closing(sqlite3.connect(str(make_url(url).database))) as connection:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    return [] if found == ["ok"] else found
