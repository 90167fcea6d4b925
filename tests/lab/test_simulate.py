"""Simulated fleets: the figures that are known, the assumptions at work, and `step` behind all of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from app.chart_file import parse
from app.core.chart import Chart
from app.lab.simulate import Assumptions, Spread, list_assumptions, live, say_time, simulate
from app.lab.tally import StepEngine, make_engine
from app.lab.templates import make_files

OLD = Path(__file__).parent / "charts"
MINUTE = timedelta(minutes=1)
# The fleets of the known figures: work of about ten minutes, a poll every half hour.
USUAL = Assumptions(
    start=datetime(2030, 1, 7, 12, tzinfo=UTC), machines=400, shortest=4 * MINUTE, longest=16 * MINUTE, poll=30 * MINUTE
)


def old(name: str) -> Chart:
    return parse((OLD / f"{name}.yaml").read_bytes()).chart


def test_first_five_machines_are_more_than_sixty_if_all_fail() -> None:
    found = simulate(old("canary"), replace(USUAL, fail=1.0), 100)
    (group,) = found.list_groups()
    assert (group.state, group.origin) == ("rolled_back", "canary")
    assert 60 <= group.begun.percentiles[1] <= 72
    assert 90 <= group.begun.most <= 115


def test_budget_of_one_percent_does_not_keep_a_rollout_from_beginning_nearly_everywhere() -> None:
    found = simulate(old("kernel-rollout"), replace(USUAL, machines=5000, fail=0.02), 12)
    group = next(group for group in found.list_groups() if group.origin == "rollout")
    assert group.state == "rollback"
    assert all(4300 <= ending.begun <= 5000 for ending in group.endings)
    assert {ending.down for ending in group.endings} == {50}


def test_slots_bound_what_is_down_and_lasting_failures_leave_one_way_out() -> None:
    found = simulate(old("rolling-reboot"), replace(USUAL, fail=0.2), 200)
    assert {group.state for group in found.list_groups()} == {"done", "halted", "overdue"}
    for group in found.list_groups():
        assert group.down.most <= {"done": 0, "halted": 7, "overdue": 2}[str(group.state)]


@pytest.mark.parametrize(("name", "fail"), [("canary", 0.01), ("rolling-reboot", 0.1)])
def test_run_is_the_same_with_step_alone(monkeypatch: pytest.MonkeyPatch, name: str, fail: float) -> None:
    chart, assumed = old(name), replace(USUAL, machines=60, fail=fail, lost=fail / 2, retries=True)
    fast = [live(chart, assumed, Random(seed)) for seed in range(12)]
    assert not isinstance(make_engine(chart, assumed.start), StepEngine)
    monkeypatch.setattr("app.lab.simulate.make_engine", StepEngine)
    assert [live(chart, assumed, Random(seed)) for seed in range(12)] == fast
    assert len({ending.state for ending in fast}) > 1


def test_seed_and_run_alone_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    assumed, shown = replace(USUAL, fail=0.02), list[tuple[int, int]]()
    one = simulate(old("canary"), assumed, 25, seed=7)
    two = simulate(old("canary"), assumed, 25, seed=7, jobs=2, progress=lambda done, of: shown.append((done, of)))
    assert one.endings == two.endings
    assert shown[-1] == (25, 25)
    assert simulate(old("canary"), assumed, 25, seed=8).endings != one.endings


SLOTS = """chart: web
current_state: reboot
expect: 10
states:
  - name: reboot
    func: increment
    slots: 2
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: halted, when: {key: failed, value: 3}}, {name: done, when: {key: count, value: 10}}]
  - name: halted
  - name: done
"""


def endings(text: str, runs: int = 20, **changes: Any) -> Counter[str | None]:
    assumed = replace(USUAL, machines=10, **changes)
    return Counter(ending.state for ending in simulate(parse(text).chart, assumed, runs).endings)


def test_run_without_a_way_on_never_ends() -> None:
    assert endings(SLOTS) == {"done": 20}
    assert endings(SLOTS, lost=1.0) == {None: 20}
    (ending,) = simulate(parse(SLOTS).chart, replace(USUAL, machines=10, lost=1.0), 1).endings
    assert (ending.state, ending.origin, ending.at_work, ending.begun) == (None, "reboot", 2, 2)


def test_machine_that_failed_tries_again_only_if_it_is_assumed() -> None:
    tolerant = SLOTS.replace("value: 3}", "value: 10}")
    assert endings(tolerant, fail=0.3)["done"] < 5
    assert endings(tolerant, fail=0.3, retries=True) == {"done": 20}


def test_work_is_as_long_as_an_earlier_run_says() -> None:
    one = SLOTS.replace("value: 10}", "value: 1}")
    assumed = replace(USUAL, machines=10, poll=timedelta(microseconds=1), spans=(timedelta(minutes=7),))
    assert {ending.after for ending in simulate(parse(one).chart, assumed, 5).endings} == {timedelta(minutes=7)}
    assert "one of 1 pieces of work" in " ".join(list_assumptions(assumed))


def test_spread_has_the_smallest_number_that_so_many_do_not_exceed() -> None:
    assert Spread.of(list(range(1, 101))) == Spread((5, 50, 90, 95), 100)
    assert Spread.of([7]) == Spread((7, 7, 7, 7), 7)


def test_time_is_said_in_two_units() -> None:
    spans = [
        timedelta(0),
        timedelta(seconds=59.6),
        timedelta(hours=2, seconds=5),
        timedelta(days=3, hours=4, minutes=5),
    ]
    assert [say_time(span) for span in spans] == ["0 s", "1 min", "2 h 5 s", "3 d 4 h"]


def test_no_machine_begins_while_the_window_is_closed() -> None:
    windows = "windows: [{from: '22:00', to: '04:00', zone: UTC}]\nstates:"
    for text in (SLOTS, SLOTS.replace("    slots: 2\n", "")):
        (ending,) = simulate(parse(text.replace("states:", windows)).chart, replace(USUAL, machines=10), 1).endings
        # It begins at noon; ten hours later the window opens.
        assert ending.state == "done"
        assert timedelta(hours=10) < ending.after < timedelta(hours=16)


def test_people_approve_and_machines_do_not() -> None:
    text = make_files("web", "approval")["web.yaml"]
    assumed = replace(USUAL, machines=50, approve=timedelta(hours=5))
    (ending,) = simulate(parse(text).chart, assumed, 1).endings
    assert (ending.state, ending.origin) == ("done", "rollout")
    assert ending.after > timedelta(hours=5)
    assert 49 <= ending.begun <= 50


def test_chart_of_a_database_is_simulated_as_fast_as_a_file() -> None:
    chart = replace(parse(SLOTS).chart, sha256="0" * 64, importer="ann")
    promised = parse(SLOTS.replace("states:", "never: {down: '>9', at: halted}\nstates:", 1)).chart
    assert promised.promises.never
    for one in (chart, promised):
        assert not isinstance(make_engine(one, USUAL.start), StepEngine)
