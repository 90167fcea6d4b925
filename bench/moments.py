"""What happens once: the release of all who wait, many clocks that strike at once, and the import of a large chart."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bench.charts import CLOCK, chart_text
from bench.databases import DATABASES, Databases
from bench.fill import add_chart, add_copies
from bench.profile import cpu_seconds
from bench.rounds import TITLES, Options
from bench.servers import service
from bench.table import Row
from bench.waiters import CHART, hold, memory
from tests.support.crowd import Crowd
from tests.support.processes import until
from tests.support.servers import Server, beside

RELEASE_SECONDS = 2.0
WAITER_KB = 25.0
IMPORT_SECONDS = 3.0
CLOCK_SECONDS = 1.5
# Enough to fill the database and to start the server.
AHEAD = timedelta(seconds=12)


def measure_waiters(found: Databases, options: Options) -> list[Row]:
    """Thousands of machines wait for a state; one PUT makes it current."""
    rows = []
    for which in DATABASES:
        url = found.new(which)
        with service(url, found.folder, max_waiters=str(options.waiters)) as server:
            releases = [_release(server, f"w{number}", options.waiters) for number in range(options.rounds)]
        found.drop(url)
        what = f"{options.waiters:,} waiters, {TITLES[which]}"
        seconds = [release.seconds for release in releases]
        cpu = [release.cpu_seconds / options.waiters * 1e6 for release in releases]
        # Later ones reuse the threads and the memory of the first.
        each = releases[0].megabytes / options.waiters * 1000
        rows += [
            Row(f"{what}: all answered after the PUT was sent", "s", seconds, goal=RELEASE_SECONDS, at_most=True),
            Row(f"{what}: CPU of the workers for each answer", "µs", cpu),
            Row(f"{what}: memory of each", "kB", [each], goal=WAITER_KB, at_most=True),
        ]
    return rows


@dataclass(frozen=True, slots=True)
class Release:
    """A crowd that was released: until the last answer, the CPU of the workers meanwhile, the memory that it took."""

    seconds: float
    cpu_seconds: float
    megabytes: float


def _release(server: Server, chart: str, waiters: int) -> Release:
    """Hold `waiters` and release them by one PUT."""
    server.import_chart(chart, CHART)
    before = memory(server)
    with Crowd(server.port) as crowd:
        hold(server, crowd, chart, waiters)
        taken = memory(server) - before
        pids = server.workers()
        used, sent = cpu_seconds(pids), time.monotonic()
        put = server.put(chart, "wait")
        answered = crowd.collect(60)
        used = cpu_seconds(pids) - used
    assert put.answer == (200, "wait"), put
    assert len(answered) == waiters, f"{waiters - len(answered)} were lost"
    wrong = [one for one in answered if (one.status, one.body) != (200, "go")]
    assert not wrong, f"{len(wrong)} were answered wrongly, such as {wrong[0].received[:300]!r}"
    return Release(max(float(one.at) for one in answered if one.at is not None) - sent, used, taken)


def measure_clocks(found: Databases, options: Options) -> list[Row]:
    """Many charts have one deadline: how long after it the last of them has moved."""
    rows = []
    for which in DATABASES:
        seconds = [_strike(found, which, options.clocks) for _ in range(options.rounds)]
        what = f"{options.clocks:,} charts due at one instant, {TITLES[which]}: the last has moved"
        rows.append(Row(what, "s", seconds, goal=CLOCK_SECONDS, at_most=True))
    return rows


def _strike(found: Databases, which: str, charts: int) -> float:
    due = datetime.now(UTC) + AHEAD
    url = found.new(which)
    add_chart(url, text=CLOCK.format(instant=due.isoformat()))
    add_copies(url, charts - 1)
    with service(url, found.folder), beside(url) as connection:
        assert datetime.now(UTC) < due, "the server was not there in time"

        def moved() -> bool:
            query = "SELECT count(*) FROM charts WHERE state = 'after'"
            return int(connection.exec_driver_sql(query).scalar_one()) == charts

        until(moved, "every chart has moved", 60)
        taken = (datetime.now(UTC) - due).total_seconds()
    found.drop(url)
    return taken


def measure_import(found: Databases, options: Options) -> list[Row]:
    """A chart of 10,000 states, sent over HTTP."""
    rows = []
    for which in DATABASES:
        url = found.new(which)
        with service(url, found.folder) as server:
            seconds = [_import(server, f"i{number}", options.states) for number in range(options.rounds)]
        found.drop(url)
        what = f"import of {options.states:,} states, {TITLES[which]}"
        rows.append(Row(what, "s", seconds, goal=IMPORT_SECONDS, at_most=True))
    return rows


def _import(server: Server, chart: str, states: int) -> float:
    started = time.monotonic()
    server.import_chart(chart, chart_text(states))
    return time.monotonic() - started
