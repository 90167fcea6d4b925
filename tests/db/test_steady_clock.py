"""The time on SQLite, after the machine's clock was set: it never goes back, and nothing ends later for that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from app.core.position import Reason
from app.db import sqlite
from app.db.sqlite import SteadyClock
from app.service.context import Service
from app.service.metrics import read_gauges
from app.service.put import find_next_due, settle_clock, sweep
from tests.service.support import NOBODY, NOON, get_row, import_text, opened_service
from tests.support import requests

CHART = """\
current_state: work
states:
  - name: work
    func: increment
    slots: 1
    lease: 20s
    on_expire: free
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: done, when: {key: count, value: 9}}, {name: late, when: {key: elapsed, value: 30s}}]
  - name: done
  - name: late
"""


@dataclass
class Machine:
    """A machine's clock, which can be set, and the time that really passes."""

    clock: datetime = NOON
    passed: float = 0.0
    time: SteadyClock = field(init=False)

    def __post_init__(self) -> None:
        self.time = SteadyClock(lambda: self.clock, lambda: self.passed)

    def let_pass(self, seconds: float) -> None:
        self.passed += seconds
        self.clock += timedelta(seconds=seconds)

    def set_by(self, seconds: float) -> None:
        self.clock += timedelta(seconds=seconds)

    def read(self) -> float:
        """The service's time, in seconds after noon."""
        return (self.time.now() - NOON).total_seconds()


def test_time_is_the_machines() -> None:
    machine = Machine()
    found = [machine.read()]
    machine.let_pass(10)
    found.append(machine.read())
    machine.set_by(3600)
    assert [*found, machine.read()] == [0, 10, 3610]
    assert machine.time.ahead == timedelta(0)


@pytest.mark.parametrize("back", [-3, -3600, -86400])
def test_time_goes_on_if_the_clock_is_set_back(back: int, caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    machine.read()
    machine.set_by(back)
    assert machine.read() == 0
    machine.let_pass(30)
    assert 29 < machine.read() <= 30
    machine.read()
    assert [record.name for record in caplog.records] == ["stateservice.clock"]
    assert f"was set back by {timedelta(seconds=-back)}" in caplog.text


def test_small_step_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    machine.read()
    machine.set_by(-2)
    machine.let_pass(1)
    assert machine.read() == 0
    machine.let_pass(4)
    assert (machine.read(), "set back" in caplog.text) == (3, False)


def test_clock_catches_up() -> None:
    machine = Machine()
    machine.read()
    machine.set_by(-10)
    machine.read()
    for _ in range(600):
        machine.let_pass(1)
        machine.read()
    assert machine.time.now() == machine.clock
    assert machine.time.ahead == timedelta(0)


def test_clock_that_is_set_forward_again_is_followed() -> None:
    machine = Machine()
    machine.read()
    machine.set_by(-3600)
    machine.read()
    machine.set_by(3600)
    machine.let_pass(5)
    assert (machine.read(), machine.time.ahead) == (5, timedelta(0))


def test_clock_that_was_wrong_by_far_is_followed_and_told(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    machine.read()
    machine.set_by(-90_000)
    assert machine.read() == -90_000
    assert "and is followed" in caplog.text


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The machine on which every database of the test is served."""
    machine = Machine()
    monkeypatch.setattr(sqlite, "_read_machine", lambda: machine.clock)
    monkeypatch.setattr(sqlite, "SteadyClock", lambda: machine.time)
    return machine


@pytest.fixture
def service(sqlite_url: str, machine: Machine) -> Iterator[Service]:
    with opened_service(sqlite_url) as service:
        yield service


def test_deadline_and_lease_end_after_what_they_had_left(service: Service, machine: Machine) -> None:
    import_text(service, CHART, name="web")
    assert requests.claim(service, "web", "work", "m1", NOBODY).is_yes
    machine.let_pass(5)
    sweep(service)
    machine.set_by(-3600)
    machine.let_pass(10)
    assert (sweep(service), requests.claim(service, "web", "work", "m2", NOBODY).reason) == (0, Reason.FULL)
    machine.let_pass(6)
    assert requests.claim(service, "web", "work", "m2", NOBODY).is_yes
    machine.let_pass(10)
    sweep(service)
    assert get_row(service, "web").state == "late"
    assert read_gauges(service, 1).ahead == pytest.approx(3600, abs=2)


def test_deadline_ends_in_its_time_if_the_service_is_started_again(
    sqlite_url: str, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    with opened_service(sqlite_url) as service:
        import_text(service, CHART, name="web")
    machine.set_by(-3600)
    machine.time = SteadyClock(lambda: machine.clock, lambda: machine.passed)
    with opened_service(sqlite_url) as service:
        assert sweep(service) == 0
        machine.let_pass(31)
        assert sweep(service) == 1
        assert get_row(service, "web").state == "late"
    assert "was set back by 1:00:00" in caplog.text


def test_clock_is_followed_once_no_deadline_is_near(service: Service, machine: Machine) -> None:
    import_text(service, CHART, name="web")
    machine.set_by(-3600)
    settle_clock(service, find_next_due(service))
    assert machine.read() == 0
    machine.let_pass(31)
    sweep(service)
    settle_clock(service, find_next_due(service))
    assert machine.read() == 31 - 3600
    # The newest row, which is ahead, is not taken for the beginning of time again.
    with service.database.engine.connect():
        assert find_next_due(service) is None
    assert machine.read() == 31 - 3600
