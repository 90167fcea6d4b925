"""Fleets on a clock that jumps end as simulated ones do, and mistakes are noticed; a few fleets over a real server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask

from app import chart_file
from app.lab.simulate import simulate
from proof.fleets import Lived, Outcome, Plan, drive, drive_jumping, judge
from tests.support.apps import opened_app
from tests.support.databases import ON_ONE_DATABASE
from tests.support.servers import running

# Nine of ten fleets end between p5 and p95. Of 24, fewer than LEAST do so by chance in 52 of a million tries; but the
# luck of each machine is drawn from the seed, so that the fleets of one plan always end alike.
SHORT = Plan(fleets=24, machines=20, faster=1, simulated=1000, fail=0.01)
LEAST = 15
SMALL = Plan(fleets=3, machines=20, faster=500, simulated=200, fail=0.0)


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    yield from opened_app(database_url)


@pytest.mark.slow
@ON_ONE_DATABASE
def test_fleets_end_as_simulated_ones_do(app: Flask) -> None:
    found = drive_jumping(app, SHORT)
    assert len(found.lived) == SHORT.fleets
    # If half the work is simulated, the fleets do not end so.
    assert found.inside >= LEAST > found.inside_if_wrong


@pytest.mark.slow
@ON_ONE_DATABASE
def test_fleets_that_ask_too_rarely_are_noticed(app: Flask) -> None:
    assert drive_jumping(app, replace(SHORT, polled=4 * SHORT.poll)).inside < LEAST


@pytest.mark.slow
def test_fleets_over_http_end_as_simulated_ones_can(database_url: str, tmp_path: Path) -> None:
    with running(database_url, tmp_path) as server:
        found = drive(server, SMALL)
        server.verify()
    chart = chart_file.parse(SMALL.write_chart("fleet")).chart
    runs = simulate(chart, SMALL.assumed, SMALL.simulated).endings
    earliest = min(run.after for run in runs)
    assert len(found.lived) == SMALL.fleets
    # A busy computer may delay a fleet, but nothing lets it end before the work can be done.
    for one in found.lived:
        assert (one.state, one.origin) in {(run.state, run.origin) for run in runs}
        assert timedelta(seconds=one.after) > earliest / 2


def judged(plan: Plan, *after: float) -> Outcome:
    """Fleets of which each was done after so many seconds."""
    found = Outcome(plan, [Lived("done", "fleet", seconds) for seconds in after])
    judge(found)
    return found


def test_fleet_is_inside_if_it_ends_between_p5_and_p95() -> None:
    low, high = judged(SMALL).ranges["done from fleet"]
    assert judged(SMALL, low, (low + high) / 2, high).is_proof
    found = judged(SMALL, low - 1, high + 1, *[high] * 9)
    assert (found.inside, found.is_proof) == (9, False)
    assert judged(SMALL, *[high] * 17, *[high + 1] * 3).is_proof
    assert not judged(SMALL, *[high] * 16, *[high + 1] * 4).is_proof
    assert not judged(SMALL).is_proof


def test_fleet_with_an_ending_that_was_never_simulated_is_outside() -> None:
    found = Outcome(SMALL, [Lived("done", "canary", 9000.0)])
    judge(found)
    assert found.inside == 0


def test_wrong_assumption_is_noticed() -> None:
    low, high = judged(SMALL).ranges["done from fleet"]
    found = judged(SMALL, *[(low + high) / 2] * 10)
    assert (found.inside, found.inside_if_wrong) == (10, 0)
