"""The sweeper's pass: charts whose clock has something to do, and nobody asks."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app import store
from app.core.chart import INT64_MAX
from app.core.errors import AttributeRangeError
from app.core.position import Reason
from app.service import operate
from app.service.context import Definitions, Service
from app.service.put import Put, Sent, apply, prepare, sweep, tick
from app.service.upkeep import verify
from tests.service.support import ANN, CANARY, NOBODY, REBOOT, Clock, get_row, import_text, kinds, query
from tests.support import requests


def soaking(service: Service, *names: str) -> None:
    for name in names:
        import_text(service, CANARY, name=name)
        operate.goto(service, name, "soak", "there", ANN)


def test_sweep_moves_every_chart_that_is_due(service: Service, clock: Clock) -> None:
    soaking(service, "a", "b")
    import_text(service, CANARY, name="c")
    clock.advance(60)
    assert sweep(service) == 2
    assert [get_row(service, name).state for name in ("a", "b", "c")] == ["done", "done", "canary"]


def test_sweep_finds_nothing_before_the_time(service: Service, clock: Clock) -> None:
    soaking(service, "a")
    clock.advance(59.999999)
    assert (sweep(service), kinds(service, "a")) == (0, ["import", "goto"])


def test_sweep_finds_nothing_the_second_time(service: Service, clock: Clock) -> None:
    soaking(service, "a")
    clock.advance(60)
    assert [sweep(service), sweep(service)] == [1, 0]


@pytest.mark.parametrize("act", [operate.pause, operate.archive])
def test_sweep_leaves_alone_what_is_paused_or_archived(service: Service, clock: Clock, act: object) -> None:
    soaking(service, "a")
    act(service, "a", "why", ANN)  # type: ignore[operator]
    clock.advance(3600)
    assert sweep(service) == 0


def test_sweep_ends_leases(service: Service, clock: Clock) -> None:
    import_text(service, REBOOT, name="a")
    for name in ("m1", "m2"):
        requests.claim(service, "a", "reboot", name, NOBODY)
    clock.advance(100)
    assert sweep(service) == 1
    assert kinds(service, "a")[-3:] == ["expire", "expire", "timeout"]
    assert (get_row(service, "a").state, verify(service, "a").differences) == ("halted", ())


def test_sweep_goes_by_the_database_s_time(service: Service) -> None:
    service.database.clock = None
    text = CANARY.replace("value: 60s", "value: 0s")
    import_text(service, text, name="a")
    operate.goto(service, "a", "soak", "there", ANN)
    assert (get_row(service, "a").state, sweep(service)) == ("done", 0)


def test_sweep_is_not_held_up_by_a_chart_that_cannot_be_moved(service: Service, clock: Clock) -> None:
    full = REBOOT.replace("{key: failed, value: 0}", f"{{key: failed, value: {INT64_MAX}}}")
    import_text(service, full, name="a")
    requests.claim(service, "a", "reboot", "m1", NOBODY)
    clock.advance(50)
    soaking(service, "b")
    clock.advance(60)
    with pytest.raises(AttributeRangeError):
        sweep(service)
    assert get_row(service, "b").state == "done"


def test_tick_returns_the_row_as_it_is_then(service: Service, clock: Clock) -> None:
    soaking(service, "a")
    clock.advance(60)
    row = tick(service, "a")
    assert (row.state, row) == ("done", get_row(service, "a"))


def test_cycle_of_clock_guards_goes_on_a_hundred_moves_at_a_time(service: Service) -> None:
    cycle = """\
current_state: a
states:
- name: a
  func: time
  target: [{name: b, when: {key: elapsed, value: 0s}}, {name: end, when: {key: elapsed, value: 1d}}]
- {name: b, func: time, target: {name: a, when: {key: elapsed, value: 0s}}}
- {name: end}
"""
    import_text(service, cycle)
    visits = [get_row(service).visit]
    for _ in range(2):
        sweep(service)
        visits.append(get_row(service).visit)
    assert (visits, verify(service, "web").differences) == ([101, 201, 301], ())


CYCLE = """\
current_state: a
states:
- name: a
  func: increment
  current: {key: count, value: 0}
  target: [{name: a, when: {key: clock, value: "2001-01-01T00:00:00"}}, {name: end, when: {key: count, value: 9}}]
- {name: end}
"""


def timeouts(service: Service) -> list[int]:
    """The clock transitions of each instant, which here is each transaction."""
    found = query(service, "SELECT at, count(*) FROM transition_log WHERE kind = 'timeout' GROUP BY at ORDER BY at")
    return [count for _, count in found]


def test_charts_in_one_transaction_share_a_hundred_clock_transitions(service: Service, clock: Clock) -> None:
    import_text(service, CYCLE, name="a")
    soaking(service, "b")
    clock.advance(60)
    answers = apply(service, [Sent("a", Put("a"), NOBODY), Sent("b", Put("soak"), NOBODY), Sent("a", Put("a"), NOBODY)])
    assert [answer.answer.reason for answer in answers] == [
        Reason.TRANSITIONED,
        Reason.NOT_CURRENT,
        Reason.TRANSITIONED,
    ]
    # The second chart had its turn in a transaction of its own, in the same instant of the tests' clock.
    assert timeouts(service) == [100, 101]


def test_sweep_moves_the_others_although_one_is_a_cycle(service: Service, clock: Clock) -> None:
    import_text(service, CYCLE, name="a")
    soaking(service, "b", "c")
    clock.advance(60)
    assert (sweep(service), get_row(service, "a").visit) == (3, 201)
    assert [get_row(service, name).state for name in ("b", "c")] == ["done", "done"]


def test_sweep_moves_more_charts_than_one_transaction_takes(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.service.put.MOVES_PER_STEP", 2)
    soaking(service, *"abcde")
    clock.advance(60)
    service.definitions = Definitions()
    assert sweep(service) == 5
    assert query(service, "SELECT state, count(*) FROM charts GROUP BY state") == [("done", 5)]


def test_prepared_charts_are_moved_without_reading_their_definitions(
    service: Service, other: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    soaking(service, "a", "b")
    import_text(service, CANARY, name="c")
    other.database.clock = clock
    prepare(other, timedelta(seconds=60))
    for name in ("load_chart", "load_charts"):
        monkeypatch.setattr(store.definitions, name, None)
    clock.advance(60)
    assert sweep(other) == 2
