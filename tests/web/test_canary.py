"""A canary with a failure budget and a deadline, played to each of its endings by the real curl."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.processes import until
from tests.support.servers import Server, chart_path, run_curl

FLEET = 200
CANARIES = [f"web-{number:03}" for number in range(5)]
OTHERS = [f"web-{number:03}" for number in range(5, FLEET)]
NO = 22


def canary(deadline: str = "10m") -> str:
    """Five machines first; then the fleet, of which 1 % may fail."""
    return f"""
current_state: canary
expect: {FLEET}
require_machine: true
states:
  - name: canary
    func: increment
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target:
      - {{name: rolled_back, when: {{key: failed, value: 1}}}}
      - {{name: fleet, when: {{key: count, value: 5}}}}
      - {{name: overdue, when: {{key: elapsed, value: 10m}}}}
  - name: fleet
    func: increment
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target:
      - {{name: rolled_back, when: {{key: failed, op: ">", value: "1%"}}}}
      - {{name: done, when: {{key: count, value: "95%"}}}}
      - {{name: overdue, when: {{key: elapsed, value: {deadline}}}}}
  - {{name: done}}
  - {{name: rolled_back}}
  - {{name: overdue}}
"""


def ask(server: Server, chart: str, machine: str, state: str) -> int:
    """May this machine? Asked with its ready file, fetched and used by curl; the exit code."""
    return use(server, chart_path(chart, "can.curl", state=state, machine=machine))


def tell(server: Server, chart: str, machine: str, state: str, **parameters: str) -> int:
    """This machine did, or with key=failed did not; the exit code."""
    return use(server, chart_path(chart, "did.curl", state=state, machine=machine, **parameters))


def use(server: Server, path: str) -> int:
    fetched = run_curl("-fsS", server.url + path)
    assert fetched.returncode == 0, fetched.stderr
    return run_curl("-K", "-", stdin=fetched.stdout).returncode


def tell_all(server: Server, chart: str, machines: list[str], folder: Path) -> list[str]:
    """All these machines did, told by one curl; the statuses, in their order."""
    config = folder / "fleet.curl"
    each = [
        f'url = "{server.url}{chart_path(chart, state="fleet", machine=machine)}"\nrequest = "PUT"\nsilent\n'
        'output = "/dev/null"\nwrite-out = "%{http_code}\\n"\n'
        for machine in machines
    ]
    config.write_text("next\n".join(each))
    return run_curl("-K", str(config)).stdout.split()


def pass_canary(server: Server, chart: str) -> None:
    for machine in CANARIES:
        assert ask(server, chart, machine, "canary") == 0
        assert ask(server, chart, machine, "fleet") == NO
        assert [tell(server, chart, machine, "canary") for _ in range(2)] == [0, 0]
    assert ask(server, chart, OTHERS[0], "canary") == NO
    assert tell(server, chart, OTHERS[0], "canary") == NO
    assert ask(server, chart, OTHERS[0], "fleet") == 0


def endings(server: Server, chart: str) -> list[str]:
    moves = [row["to_state"] for row in server.history(chart) if row["from_state"] != row["to_state"]]
    server.verify()
    return moves


@pytest.mark.slow
def test_rollout_ends_well(server: Server, chart: str, tmp_path: Path) -> None:
    server.import_chart(chart, canary())
    pass_canary(server, chart)
    # Two of 200 may fail, and one of them succeeds at its second try.
    assert [tell(server, chart, machine, "fleet", key="failed") for machine in OTHERS[:2]] == [0, 0]
    assert tell(server, chart, OTHERS[0], "fleet") == 0
    assert tell_all(server, chart, OTHERS[2:191], tmp_path) == ["200"] * 189
    assert server.status(chart)["current_state"] == "done"
    assert tell_all(server, chart, OTHERS[190:192], tmp_path) == ["200", "406"]
    assert ask(server, chart, CANARIES[0], "done") == 0
    assert endings(server, chart) == ["fleet", "done"]


@pytest.mark.slow
def test_rollout_is_rolled_back_when_the_budget_is_spent(server: Server, chart: str, tmp_path: Path) -> None:
    server.import_chart(chart, canary())
    pass_canary(server, chart)
    assert tell_all(server, chart, OTHERS[:20], tmp_path) == ["200"] * 20
    assert [tell(server, chart, machine, "fleet", key="failed") for machine in OTHERS[20:22]] == [0, 0]
    assert ask(server, chart, OTHERS[30], "fleet") == 0
    # A machine that had succeeded finds that it had not.
    assert tell(server, chart, OTHERS[0], "fleet", key="failed") == 0
    assert ask(server, chart, OTHERS[30], "fleet") == NO
    assert ask(server, chart, OTHERS[30], "rolled_back") == 0
    assert tell(server, chart, OTHERS[30], "fleet") == NO
    assert endings(server, chart) == ["fleet", "rolled_back"]


def test_one_failure_among_the_canaries_rolls_back(server: Server, chart: str) -> None:
    server.import_chart(chart, canary())
    assert tell(server, chart, CANARIES[0], "canary") == 0
    assert tell(server, chart, CANARIES[1], "canary", key="failed") == 0
    assert ask(server, chart, CANARIES[2], "canary") == NO
    assert endings(server, chart) == ["rolled_back"]


@pytest.mark.slow
def test_rollout_is_overdue_when_too_few_report_in_time(server: Server, chart: str) -> None:
    server.import_chart(chart, canary(deadline="12s"))
    pass_canary(server, chart)
    until(lambda: server.history(chart, kind="timeout"), "the deadline passes with nobody asking")
    assert ask(server, chart, OTHERS[0], "overdue") == 0
    assert tell(server, chart, OTHERS[1], "fleet") == NO
    assert endings(server, chart) == ["fleet", "overdue"]
