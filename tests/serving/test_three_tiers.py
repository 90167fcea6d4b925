"""charts/three-tiers.yaml over real HTTP, from the import of its roster to the end of its back-out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serving.conftest import serving
from tests.support.http import Reply
from tests.support.servers import JSON, ROOT, Server

CHART = "three-tiers"
ROSTER = ROOT / "charts" / "rosters" / f"{CHART}.txt"
MACHINES = [line.split()[0] for line in ROSTER.read_text().splitlines() if not line.startswith("#")]
WORKING = {"canary", "lb", "app", "db"}


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    """A server that imports the roster and then the chart, as `make run` does; the soak takes a second."""
    file = tmp_path / "three-tiers.yaml"
    text = (ROOT / "charts" / f"{CHART}.yaml").read_text()
    file.write_text(text.replace("value: 2h", "value: 1s"))
    with serving(database_url, tmp_path, "--roster", ROSTER, "--chart", file) as server:
        yield server


def slot(server: Server, state: str, machine: str) -> Reply:
    return server.ask("PUT", f"/charts/{CHART}/slot?state={state}&machine={machine}", **JSON)


def begin(server: Server, machine: str) -> str | None:
    """What a machine does before it works; return the state in which it works, None if it may not."""
    turn = server.ask("GET", f"/charts/{CHART}/turn?machine={machine}")
    state = turn.body
    if turn.status != 200 or state not in WORKING | {"backout"} or slot(server, state, machine).status != 200:
        return None
    if state == "backout":
        return state
    assert server.put(CHART, state, machine=machine, key="begun").status == 200
    return state if slot(server, state, machine).status == 200 else None


def work(server: Server, machines: list[str]) -> set[str]:
    """Let each machine that may work do so, with success; return those that did."""
    done = set()
    for machine in machines:
        state = begin(server, machine)
        if state is not None:
            assert server.put(CHART, state, machine=machine).status == 200
            done.add(machine)
    return done


def values(server: Server) -> tuple[str, dict[str, int]]:
    status = server.status(CHART)
    return status["current_state"], status["values"]


def test_whole_life_of_a_job_that_is_aborted(server: Server) -> None:
    begun = work(server, MACHINES)
    assert sorted(begun) == ["app-002", "app-003", "app-024", "db-005", "lb-001"]
    assert values(server) == ("soak", {"count": 5, "failed": 0})
    # The clock ends the soak, and a client that waits for it hears so.
    assert server.get(CHART, "lb", machine="lb-002", wait="20").answer == (200, "lb")

    # 5 % of the 20 load balancers are one at a time; 90 % of them end their tier.
    assert begin(server, "lb-002") == "lb"
    assert slot(server, "lb", "lb-003").json()["reason"] == "full"
    assert server.put(CHART, "lb", machine="lb-002").status == 200
    begun |= {"lb-002"} | work(server, [f"lb-{number:03}" for number in range(3, 19)])
    assert values(server) == ("app", {"count": 21, "failed": 0, "begun": 0})

    # Machines of many threads together: never more than nine hold a slot, and never more than three of a rack.
    with ThreadPoolExecutor(8) as threads:
        claimed = list(threads.map(lambda machine: slot(server, "app", machine), MACHINES))
    held = [machine for machine, reply in zip(MACHINES, claimed, strict=True) if reply.status == 200]
    assert len(held) == 9
    racks = [number_of(machine) % 20 for machine in held]
    assert max(racks.count(rack) for rack in racks) <= 3
    assert {reply.json()["reason"] for reply in claimed if reply.status == 406} <= {
        "full",
        "group_full",
        "done",
        "not_on_roster",
    }
    for machine in held:
        assert server.put(CHART, "app", machine=machine).status == 200
    begun |= set(held)

    # Two have failed and three are at work when the third failure is reported.
    free = [name for name in MACHINES if name.startswith("app") and name not in begun]
    failing, at_work = free[:3], free[3:6]
    assert [begin(server, machine) for machine in (*failing, *at_work)] == ["app"] * 6
    for machine in failing[:2]:
        assert server.put(CHART, "app", machine=machine, key="failed").status == 200
    assert values(server)[0] == "app"
    assert server.put(CHART, "app", machine=failing[2], key="failed").status == 200
    begun |= {*failing, *at_work}
    assert server.status(CHART)["current_state"] == "backout"

    # Those at work are not lost: they had said that they begin.
    late = server.ask("PUT", f"/charts/{CHART}/state?state=app&machine={at_work[0]}", **JSON)
    assert (late.status, late.json()["reason"]) == (200, "recorded")
    assert server.status(CHART)["expect"] == len(begun)
    assert slot(server, "backout", free[6]).json()["reason"] == "not_on_roster"
    assert work(server, MACHINES) == begun
    assert server.status(CHART)["current_state"] == "rolled_back"
    assert server.status(CHART)["condition"] == "failed"
    server.verify()


def number_of(machine: str) -> int:
    return int(machine.rpartition("-")[2])


def test_another_roster_takes_the_place_of_the_first(server: Server) -> None:
    lines = ROSTER.read_text().replace("app-160 tier=app rack=r20 zone=b\n", "app-160 tier=app rack=r20 canary=yes\n")
    found = server.ask("PUT", f"/rosters/{CHART}", lines, Content_Type="text/plain")
    assert found.status == 200
    assert json.loads(found.body)["changed"] == 1
    assert server.status(CHART)["expect"] == 6
