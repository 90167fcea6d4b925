"""Backups taken while others write: each is whole, and holds what was acknowledged before it began."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

from app import schema, store
from app.config import Config
from app.core.errors import StateServiceError
from app.db import snapshot
from app.db.engine import normalize_url
from app.service.context import Service
from app.service.verifying import list_logged_charts, verify
from app.wiring import create_app, service_of
from proof.campaign import CHARTS, TERMS, Progress, Report, judge, read_chart
from proof.checker import Row
from proof.history import Attempt
from proof.load import loaded
from proof.proof import Proof, new_folder, opened
from proof.stand import Database, PostgresqlDatabase, serving
from tests.support.databases import database_on, url_text
from tests.support.processes import until
from tests.support.servers import ROOT

COMMAND = (sys.executable, str(ROOT / "state_service"))
PRINTED = "use PostgreSQL's own backup: "
BACKUPS = {"sqlite": 100, "postgresql": 10}
# Every backup is read as a whole, and so the log must not grow as fast as it could.
REST_SECONDS = 0.1
# PUTs acknowledged before the first backup.
SETTLED = 50

# Writes a backup of a database to a file.
Take = Callable[[Database, Path], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How many backups, and how each is written."""

    backups: int
    take: Take | None = None


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup: when it began and ended, where its charts stand, and what is wrong with it as it is."""

    began: int
    ended: int
    # The last row's seq and hash, by chart.
    ends: dict[str, tuple[int, str]]
    problems: list[str]


@dataclass(slots=True)
class Backups:
    """What a run came to: the judgement of the load, and of each backup."""

    report: Report
    backups: list[Backup] = field(default_factory=list)
    least_meanwhile: int = 0

    def as_json(self) -> dict[str, Any]:
        """The report for a file."""
        return {**self.report.as_json(), "backups": len(self.backups), "least_meanwhile": self.least_meanwhile}

    def as_line(self) -> str:
        """The report in a line."""
        return (
            f"{len(self.backups)} backups, {self.least_meanwhile} PUTs or more acknowledged during each;"
            f" {self.report.as_line()}"
        )


def run_backups(database: Database, folder: Path, plan: Plan, progress: Progress = lambda line: None) -> Backups:
    """Take backups one after another under load, open each, and judge them by what the clients saw."""
    started = time.monotonic()
    found = Backups(Report(make_url(database.url).get_backend_name()))
    with (
        serving(database, folder, CHARTS) as server,
        loaded(server.port, CHARTS, folder, processes=1, threads=4, rest=REST_SECONDS) as load,
    ):
        until(lambda: load.taken >= SETTLED, "the load runs", 60)
        for number in range(1, plan.backups + 1):
            found.backups.append(_back_up(database, folder / f"backup-{number}", plan.take or take_backup))
            if number % 10 == 0:
                progress(f"{found.report.database}: backup {number} of {plan.backups}; {load.taken} PUTs acknowledged")
        attempts = load.end()
    judge(database, attempts, found.report)
    _judge_backups(found, attempts, {chart: read_chart(database.url, chart)[0] for chart in CHARTS})
    found.report.seconds = time.monotonic() - started
    return found


def _back_up(database: Database, file: Path, take: Take) -> Backup:
    began = time.monotonic_ns()
    take(database, file)
    ended = time.monotonic_ns()
    with _restored(database, file) as url:
        ends, problems = _read(url)
    file.unlink()
    return Backup(began, ended, ends, problems)


# As the documentation says


def take_backup(database: Database, file: Path) -> None:
    """Back up with the command; for PostgreSQL, with the command that it prints."""
    command = [*COMMAND, "--database", database.url, "db", "backup", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if isinstance(database, PostgresqlDatabase):
        _, _, printed = done.stderr.partition(PRINTED)
        _run(database, shlex.split(printed))
        return
    assert done.returncode == 0, done.stderr


@contextmanager
def _restored(database: Database, file: Path) -> Iterator[str]:
    """The URL of a database that is the backup, or was made of it."""
    if not isinstance(database, PostgresqlDatabase):
        yield f"sqlite:///{file}"
        return
    admin = create_engine(normalize_url(database.server.get_uri()), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with contextmanager(database_on)(admin) as url:
        target = url_text(make_url(url).set(drivername="postgresql"))
        _run(database, ["pg_restore", "--clean", "--if-exists", f"--dbname={target}", str(file)])
        yield url


def _run(database: PostgresqlDatabase, command: Sequence[str]) -> None:
    """Run one of PostgreSQL's programs, those of the server's own version."""
    path = f"{database.server.bin_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, env=os.environ | {"PATH": path}, timeout=120, check=True)


# What is in them


def _read(url: str) -> tuple[dict[str, tuple[int, str]], list[str]]:
    """Where each chart of a database stands, and what is wrong with that database as it is."""
    service = service_of(create_app(Config(database_url=url)))
    try:
        return _look(service)
    except StateServiceError as error:
        return {}, [str(error)]
    finally:
        service.database.engine.dispose()


def _look(service: Service) -> tuple[dict[str, tuple[int, str]], list[str]]:
    charts = list_logged_charts(service)
    problems = schema.check(service.database.engine)
    for chart in charts:
        problems += verify(service, chart).differences
    with snapshot(service.database) as connection:
        rows = [store.charts.get_chart_even_archived(connection, chart) for chart in charts]
    return {row.name: (row.seq, row.last_hash) for row in rows}, problems


# How they are judged


def _judge_backups(found: Backups, attempts: Sequence[Attempt], logs: dict[str, list[Row]]) -> None:
    for chart, rows in logs.items():
        told = told_in(rows, [item for item in attempts if item.chart == chart])
        for number, backup in enumerate(found.backups, 1):
            problems = judge_backup(backup, chart, rows, told)
            found.report.violations += [f"backup {number}: {chart}: {problem}" for problem in problems]
    for number, backup in enumerate(found.backups, 1):
        found.report.violations += [f"backup {number}: {problem}" for problem in backup.problems]
    taken = sorted(item.returned for item in attempts if item.method == "PUT" and item.is_yes and not item.replay)
    counts = [bisect(taken, backup.ended) - bisect(taken, backup.began) for backup in found.backups]
    found.least_meanwhile = min(counts, default=0)
    if found.least_meanwhile == 0:
        found.report.invalid.append("no PUT was acknowledged while a backup was taken")


def told_in(rows: Sequence[Row], attempts: Sequence[Attempt]) -> list[tuple[int, int]]:
    """When the clients were told of a row, and which: a client knew a chart's history up to there."""
    firsts: dict[tuple[str | None, ...], int] = {}
    for row in reversed(rows):
        logged = row.logged
        firsts[logged.from_state, logged.machine, logged.key, logged.idempotency_key] = logged.seq
    told = []
    for item in attempts:
        key = item.key or TERMS.default_keys.get(item.state)
        seq = item.seq
        if seq is None and item.method == "PUT" and item.is_yes:
            seq = firsts.get((item.state, item.machine, key, item.idempotency_key))
        if seq is not None:
            told.append((item.returned, seq))
    return told


def judge_backup(backup: Backup, chart: str, rows: Sequence[Row], told: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Say how a chart in a backup differs from its log, or ends before what was known when the backup began.

    The backup was verified: its log is whole up to its last row, and that row's hash stands for all before it.
    """
    if chart not in backup.ends:
        yield "it is missing"
        return
    seq, last_hash = backup.ends[chart]
    if seq > len(rows) or rows[seq - 1].hash != last_hash:
        yield f"the row with seq {seq}, its last, is another one than in the log"
    known = max((known for at, known in told if at < backup.began), default=0)
    if known > seq:
        yield f"it ends at seq {seq}, and {known} was known before"


def prove_backups(proof: Proof) -> None:
    """Back up both databases again and again under load."""
    for which, count in BACKUPS.items():
        with new_folder() as folder, opened(which, folder) as database:
            found = run_backups(database, folder, Plan(count), proof.say)
        proof.add(f"backups on {which}", found.as_json(), found.as_line())
