"""Migrations under load: a next release changes the schema in every way, while machines report through this one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection, inspect, make_url, select

from app import schema
from app.models import metadata
from proof.campaign import CHARTS, Progress, Report, judge
from proof.history import Attempt
from proof.load import loaded
from proof.proof import Proof, new_folder, opened
from proof.stand import Database, serving
from tests.support.databases import url_text
from tests.support.processes import until
from tests.support.schema_dump import dump_schema
from tests.support.servers import ROOT, beside, running

NEXT_RELEASE = Path(__file__).with_name("next_release")
PARTS = ("app", "migrations", "state_service", "wsgi.py", "gunicorn.conf.py")
STALL_SECONDS = 1.0
QUERY_SECONDS = 6.0
DEFINITIONS = ("chart_versions", "roster", "states", "attributes", "transitions")

# What the migrations of next_release/ add, as `shape` tells it.
ADDED = {
    "sqlite": {
        "charts.memo TEXT",
        "transition_log.memo TEXT",
        "charts.ck_charts_short_memo length(memo) <= 1000",
        "transition_log.ck_transition_log_counted_from_one seq >= 1",
        "-- index ix_transition_log_machine\nCREATE INDEX ix_transition_log_machine ON transition_log (machine);",
    },
    "postgresql": {
        "charts.memo text",
        "transition_log.memo text",
        "charts.ck_charts_short_memo CHECK ((length(memo) <= 1000))",
        "transition_log.ck_transition_log_counted_from_one CHECK ((seq >= 1))",
        "CREATE INDEX ix_transition_log_machine ON public.transition_log USING btree (machine)",
    },
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How many PUTs are acknowledged before the upgrade and after it, and how long a query is in its way.

    PUTs may stand still for `stall_seconds`.
    """

    acknowledged: int
    query_seconds: float = 0
    stall_seconds: float = STALL_SECONDS
    threads: int = 4


@dataclass(slots=True)
class Migration:
    """What an upgrade under load came to."""

    report: Report
    seconds: float = 0
    slowest_put: float = 0
    longest_gap: float = 0

    def as_json(self) -> dict[str, Any]:
        """The report for a file."""
        own = {"upgrade_seconds": self.seconds, "slowest_put": self.slowest_put, "longest_gap": self.longest_gap}
        return self.report.as_json() | {name: round(value, 2) for name, value in own.items()}

    def as_line(self) -> str:
        """The report in a line."""
        return (
            f"upgraded in {self.seconds:.1f} s, meanwhile the slowest PUT took {self.slowest_put:.2f} s, none was"
            f" acknowledged for at most {self.longest_gap:.2f} s; {self.report.as_line()}"
        )


def migrate_under_load(
    database: Database, folder: Path, plan: Plan, progress: Progress = lambda line: None
) -> Migration:
    """Upgrade to the next release while this one serves, then serve with both, and judge what the clients saw."""
    started = time.monotonic()
    found = Migration(Report(make_url(database.url).get_backend_name()))
    release = make_next_release(folder)
    with (
        serving(database, folder, CHARTS) as server,
        loaded(server.port, CHARTS, folder, processes=1, threads=plan.threads) as load,
    ):
        until(lambda: load.taken >= plan.acknowledged, "the load runs", 120)
        shape_before, rows_before = look(database.url)
        with long_query(database.url, plan.query_seconds) if plan.query_seconds else nullcontext():
            began = time.monotonic_ns()
            upgrade(release, database.url)
            ended = time.monotonic_ns()
        progress(f"{found.report.database}: upgraded in {(ended - began) / 1e9:.1f} s")
        shape_after, rows_after = look(database.url)
        if not server.is_ready():
            found.report.violations.append("this release is not ready any longer once the next one has migrated")
        attempts = _serve_with_both(release, database.url, folder, load, plan)
    judge(database, attempts, found.report)
    found.seconds = (ended - began) / 1e9
    found.slowest_put, found.longest_gap = stalls(attempts, began, ended)
    found.report.violations += [
        *differences(found.report.database, shape_before, shape_after),
        *lost_rows(rows_before, rows_after),
        *failures(attempts, began),
    ]
    stall = max(found.slowest_put, found.longest_gap)
    if stall > plan.stall_seconds:
        found.report.violations.append(f"PUTs stood still for {stall:.2f} s, more than {plan.stall_seconds} s")
    found.report.seconds = time.monotonic() - started
    return found


def _serve_with_both(release: Path, url: str, folder: Path, load: Any, plan: Plan) -> list[Attempt]:
    """Have the next release serve beside this one on the schema that it made; return every attempt on either."""
    configuration = str(release / "gunicorn.conf.py")
    command = (sys.executable, "-m", "gunicorn", "-c", configuration, "--chdir", str(release), "wsgi:app")
    with (
        running(url, folder, command, access_log="false") as server,
        loaded(server.port, CHARTS, folder, processes=1, threads=plan.threads, first=1) as other,
    ):
        goal = load.taken + plan.acknowledged
        until(lambda: load.taken >= goal and other.taken >= plan.acknowledged, "both releases take PUTs", 120)
        return load.end() + other.end()


# The next release


def make_next_release(folder: Path) -> Path:
    """A copy of the service, in which further migrations follow."""
    release = folder / "next"
    release.mkdir()
    for name in PARTS:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, release / name)
    for migration in NEXT_RELEASE.glob("*.py"):
        # The first of them follows the newest that there is.
        text = migration.read_text().replace('"HEAD"', f'"{schema.head_revision()}"')
        (release / "migrations" / "versions" / migration.name).write_text(text)
    return release


def upgrade(release: Path, url: str) -> None:
    """Run the next release's `db upgrade`, as an operator does."""
    command = [sys.executable, str(release / "state_service"), "--database", url, "db", "upgrade"]
    done = subprocess.run(command, cwd=release, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def long_query(url: str, seconds: float) -> Iterator[None]:
    """Have a session read `charts` until the migration has been waiting for that query for `seconds`."""
    target = url_text(make_url(url).set(drivername="postgresql"))
    with psycopg.connect(target) as reader, psycopg.connect(target, autocommit=True) as observer:
        reader.execute("SELECT 1 FROM charts LIMIT 1")
        query = threading.Thread(target=lambda: _read_on(reader, observer, seconds))
        query.start()
        yield
        assert not query.is_alive(), "the migration did not wait for the query"


def _read_on(reader: psycopg.Connection[Any], observer: psycopg.Connection[Any], seconds: float) -> None:
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
    until(lambda: (observer.execute(waits).fetchone() or [0])[0], "the migration waits", 60)
    time.sleep(seconds)
    reader.rollback()


# What must be as it was


def look(url: str) -> tuple[Counter[str], dict[str, set[Any]]]:
    """A database's shape, and the rows in it that nobody may change any more."""
    with beside(url) as connection:
        return shape(connection), {name: set(rows) for name, rows in settled_rows(connection)}


def shape(connection: Connection) -> Counter[str]:
    """Every column, constraint, index, trigger and view, a text each."""
    if connection.dialect.name == "postgresql":
        return Counter(dump_schema(connection).splitlines())
    # A table that was rebuilt is written in another way.
    objects = (part.strip() for part in dump_schema(connection).split("\n\n"))
    found = Counter(part for part in objects if not part.startswith("-- table"))
    inspector = inspect(connection)
    for table in inspector.get_table_names():
        found.update(_describe(inspector, table))
    return found


def _describe(inspector: Any, table: str) -> Iterator[str]:
    for column in inspector.get_columns(table):
        default = "" if column["default"] is None else f" DEFAULT {column['default']}"
        yield f"{table}.{column['name']} {column['type']}{'' if column['nullable'] else ' NOT NULL'}{default}"
    for check in inspector.get_check_constraints(table):
        yield f"{table}.{check['name']} {check['sqltext']}"
    for key in inspector.get_foreign_keys(table):
        yield f"{table}.{key['name']} {key['constrained_columns']} {key['referred_table']} {key['referred_columns']}"
    for unique in inspector.get_unique_constraints(table):
        yield f"{table}.{unique['name']} {unique['column_names']}"
    primary = inspector.get_pk_constraint(table)
    yield f"{table}.{primary['name']} {primary['constrained_columns']}"


def settled_rows(connection: Connection) -> Iterator[tuple[str, list[Any]]]:
    """The rows of definitions, of the log and of visits that are over."""
    for name in (*DEFINITIONS, "transition_log", "visits"):
        table = metadata.tables[name]
        query = select(table)
        if name == "visits":
            query = query.where(table.c.left_at.is_not(None))
        yield name, [tuple(row) for row in connection.execute(query)]


def differences(database: str, before: Counter[str], after: Counter[str]) -> list[str]:
    """How the schema differs from what was there with what the migrations add."""
    expected = before + Counter(ADDED[database])
    lost, foreign = sorted(expected - after), sorted(after - expected)
    return [f"lost: {item}" for item in lost] + [f"not asked for: {item}" for item in foreign]


def lost_rows(before: dict[str, set[Any]], after: dict[str, set[Any]]) -> list[str]:
    """Which tables lack rows that were there."""
    return [
        f"{len(rows - after[name])} rows of {name} are gone or changed"
        for name, rows in before.items()
        if rows - after[name]
    ]


# What the clients felt


def stalls(attempts: Sequence[Attempt], began: int, ended: int) -> tuple[float, float]:
    """The slowest PUT that the upgrade met, and the longest time in it without an acknowledged one, in seconds."""
    puts = [item for item in attempts if item.method == "PUT" and item.returned > began and item.called < ended]
    slowest = max((item.returned - item.called for item in puts), default=0)
    answered = sorted(item.returned for item in attempts if item.method == "PUT" and item.is_yes)
    inside = [began, *(at for at in answered if began < at < ended), min(at for at in answered if at >= ended)]
    gap = max(later - earlier for earlier, later in pairwise(inside))
    return slowest / 1e9, gap / 1e9


def failures(attempts: Sequence[Attempt], began: int) -> list[str]:
    """Requests that got no answer, or an error, since the upgrade began."""
    failed = [item for item in attempts if item.returned > began and item.status not in (200, 406)]
    return [f"{len(failed)} requests failed, such as {failed[0]}"] if failed else []


# Which database, and how long a query is in the way there.
CASES = (("sqlite", 0.0), ("postgresql", 0.0), ("postgresql", QUERY_SECONDS))


def prove_migrations(proof: Proof) -> None:
    """Migrate both databases under load; PostgreSQL once more with a long query in the way."""
    for which, query_seconds in CASES:
        with new_folder() as folder, opened(which, folder) as database:
            found = migrate_under_load(database, folder, Plan(1_000, query_seconds), proof.say)
        behind = f", behind a query of {query_seconds} s" if query_seconds else ""
        proof.add(f"migrations on {which}{behind}", found.as_json(), found.as_line())
