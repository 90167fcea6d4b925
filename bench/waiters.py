"""Hold 2,000 waiting requests, release them by one PUT, and see what others feel: `python -m bench.waiters`.

Starts a server of its own on a new database, asserts that no waiter is lost, late or answered wrongly, that one
more than the limit is turned away, and that a stop answers everybody; prints the figures.
"""

from __future__ import annotations

import argparse
import http.client
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import psutil

from tests.support.crowd import Crowd
from tests.support.databases import new_database
from tests.support.processes import until
from tests.support.servers import Server, chart_path, running, wait_for_listeners

CHART = """
current_state: wait
states:
  - {name: wait, func: increment, current: {key: count, value: 0}, target: {name: go, when: {key: count, value: 1}}}
  - {name: go, func: increment, current: {key: count, value: 0}, target: {name: done, when: {key: count, value: 1}}}
  - name: done
"""
RELEASE_SECONDS = 1.5
STOP_SECONDS = 1.5
# Other requests meanwhile: so many connections, each of which asks this often.
ASKERS = 4
PAUSE = 0.02


def ask_others(port: int, path: str, begun: Any, stop: Any, out: Any) -> None:
    """Ask a plain GET at a steady pace from several connections; put the seconds that each took."""
    times: list[float] = []
    begun.set()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not stop.is_set():
            started = time.perf_counter()
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            times.append(time.perf_counter() - started)
            assert response.status in (200, 406), (response.status, body)
            stop.wait(PAUSE)

    threads = [Thread(target=ask) for _ in range(ASKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.put(times)


@contextmanager
def others(server: Server, chart: str, what: str, figures: dict[str, list[float]]) -> Iterator[None]:
    """Have others ask while the block runs, in a process of their own; note what they felt."""
    context = multiprocessing.get_context("spawn")
    begun, stop, out = context.Event(), context.Event(), context.Queue()
    path = chart_path(chart, state="wait")
    process = context.Process(target=ask_others, args=(server.port, path, begun, stop, out))
    process.start()
    assert begun.wait(30), "nobody asks"
    try:
        yield
    finally:
        stop.set()
        figures[what] = out.get(timeout=60)
        process.join(60)


def millis(times: list[float]) -> str:
    """Median and 99th percentile, for people."""
    cuts = statistics.quantiles(times, n=100)
    return f"p50 {cuts[49] * 1000:6.1f} ms   p99 {cuts[98] * 1000:6.1f} ms   max {max(times) * 1000:6.1f} ms"


def memory(server: Server) -> float:
    """The proportional memory of all workers, in MB."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in server.workers()) / 1e6


def hold(server: Server, crowd: Crowd, chart: str, count: int) -> None:
    """Have `count` machines wait for the state that comes next."""
    crowd.ask([chart_path(chart, state="go", machine=f"m{number}", wait="55") for number in range(count)])
    until(lambda: server.waiters() >= count, f"{count} requests are held", 120)


def release(server: Server, waiters: int, number: int) -> tuple[float, float]:
    """Hold `waiters`, release them by one PUT; return the seconds to the last answer, and the MB that they took."""
    chart = f"c{number}"
    server.import_chart(chart, CHART)
    figures: dict[str, list[float]] = {}
    with others(server, chart, "GETs without waiters", figures):
        time.sleep(5)
    before = memory(server)
    with Crowd(server.port) as crowd:
        started = time.monotonic()
        with others(server, chart, "GETs while they come", figures):
            hold(server, crowd, chart, waiters)
        held = time.monotonic() - started
        taken = memory(server) - before
        with others(server, chart, "GETs while they wait", figures):
            time.sleep(5)
        assert not crowd.answered(), "some were answered before it was time"
        extra = server.get(chart, "go", wait="55")
        assert extra.status == 503, extra
        assert 1 <= int(extra.headers["Retry-After"]) <= 60, extra
        with others(server, chart, "GETs while all are released", figures):
            until(lambda: server.get(chart, "wait").status == 200, "others ask")
            time.sleep(1)
            put = server.put(chart, "wait")
            committed = time.monotonic()
            answered = crowd.collect(30)
            time.sleep(1)
    assert put.answer == (200, "wait"), put
    assert len(answered) == waiters, f"{waiters - len(answered)} were lost"
    wrong = [one for one in answered if (one.status, one.body) != (200, "go")]
    assert not wrong, f"{len(wrong)} were answered wrongly, such as {wrong[0].received[:300]!r}"
    # From before the PUT was sent, which is before its commit.
    since = committed - put.seconds
    times = sorted(float(one.at) - since for one in answered if one.at is not None)
    print(f"  {waiters} held after {held:.1f} s; {waiters + 1}st: 503, Retry-After {extra.headers['Retry-After']}")
    print(f"  released: half in {times[len(times) // 2]:.2f} s, all in {times[-1]:.2f} s of the PUT's being sent")
    for what, felt in figures.items():
        print(f"  {what:28} {millis(felt)}   ({len(felt)} asked)")
    return times[-1], taken


def stop(server: Server, waiters: int) -> float:
    """Hold `waiters` and stop the server; return the seconds to the last answer."""
    server.import_chart("end", CHART)
    with Crowd(server.port) as crowd:
        hold(server, crowd, "end", waiters)
        told = server.send(signal.SIGTERM)
        answered = crowd.collect(30)
    server.process.wait(30)
    assert len(answered) == waiters, f"{waiters - len(answered)} were lost"
    found = {(one.status, one.body) for one in answered}
    assert found == {(406, "")}, found
    return max(float(one.at) for one in answered if one.at is not None) - told


def main() -> None:
    """Run the rounds on each database and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiters", type=int, default=2000, metavar="N", help="how many wait (default: 2000)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="worker processes (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times to release them (default: 3)")
    parser.add_argument(
        "--database", action="append", metavar="WHICH", help="sqlite, postgresql or a URL (default: both)"
    )
    options = parser.parse_args()
    print(f"{options.waiters} waiters, {options.workers} workers, {os.cpu_count()} CPUs")
    for which in options.database or ["sqlite", "postgresql"]:
        settings = {"workers": str(options.workers), "max_waiters": str(options.waiters)}
        with (
            tempfile.TemporaryDirectory() as folder,
            new_database(which, Path(folder)) as url,
            running(url, Path(folder), **settings) as server,
        ):
            wait_for_listeners(server, options.workers)
            took = []
            for number in range(options.rounds):
                print(f"{which}, round {number + 1}")
                seconds, taken = release(server, options.waiters, number)
                took.append(seconds)
                if number == 0:
                    each = taken * 1000 / options.waiters
                    print(f"  memory: {each:.0f} kB a waiter, {memory(server):.0f} MB in all")
            stopped = stop(server, options.waiters)
        middle = statistics.median(took)
        print(f"{which}: all released in {middle:.2f} s (median), all answered {stopped:.2f} s after SIGTERM")
        assert middle <= RELEASE_SECONDS, f"the last waiter was answered after {middle:.2f} s"
        assert stopped <= STOP_SECONDS, f"the last waiter was answered {stopped:.2f} s after SIGTERM"


if __name__ == "__main__":
    main()
