"""Each client once allowed, once refused, once after a lost answer, once with the service down."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.machines import KINDS, Client, Machine, run_ansible
from tests.e2e.stack import Stack


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def client(request: pytest.FixtureRequest) -> Client:
    found: Client = request.param
    return found


@pytest.fixture
def machine(stack: Stack, tmp_path: Path, chart: str) -> Machine:
    return Machine(stack, tmp_path, chart)


def test_machine_works_and_is_counted_when_allowed(client: Client, machine: Machine) -> None:
    done = client.run(machine)
    assert done.returncode == client.allowed, done.stdout + done.stderr
    assert machine.times_worked() == 1
    assert machine.stack.values(machine.chart) == {"count": 1, "failed": 0}


def test_machine_does_not_work_when_refused(client: Client, stack: Stack, tmp_path: Path, chart: str) -> None:
    machine = Machine(stack, tmp_path, chart, "red_state")
    done = client.run(machine)
    assert done.returncode == client.refused, done.stdout + done.stderr
    assert machine.times_worked() == 0
    assert stack.updates(chart) == 0


def test_machine_is_counted_once_when_an_answer_was_lost(client: Client, machine: Machine) -> None:
    with machine.stack.lossy.losing("PUT", "/state?") as loss:
        done = client.run(machine)
    assert (loss.lost, loss.count()) == (1, 2)
    assert done.returncode == client.allowed, done.stdout + done.stderr
    assert machine.times_worked() == 1
    assert machine.stack.updates(machine.chart) == 1


def test_machine_does_not_work_when_the_service_is_down(client: Client, machine: Machine) -> None:
    machine.fetch_curl_files()
    with machine.stack.service.down():
        done = client.run(machine)
    assert done.returncode == client.down, done.stdout + done.stderr
    assert machine.times_worked() == 0
    assert machine.stack.updates(machine.chart) == 0


@pytest.mark.parametrize(("state", "is_forced"), [("green_state", False), ("red_state", True)])
def test_ansible_in_check_mode_asks_and_reports_nothing(
    stack: Stack, tmp_path: Path, chart: str, state: str, is_forced: bool
) -> None:
    """A task that check mode skips must not be taken for a yes: a task that is done in check mode would do its work."""
    machine = Machine(stack, tmp_path, chart, state)
    done = run_ansible(machine, "--check", is_forced=is_forced)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TASK [stateservice : Ask]" in done.stdout
    assert machine.times_worked() == 0
    assert stack.updates(chart) == 0
