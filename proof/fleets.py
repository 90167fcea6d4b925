"""Fleets that do over HTTP, a hundred times faster, what `chart simulate` says they will do.

Each fleet has a chart of its own on one real server. Its machines ask, work and report as the simulation assumes, with
every length of time divided by the same number. When a fleet's chart has ended, the time that the log gives for it is
compared with the p5 and the p95 of the simulated runs that ended in the same way.

The time to an answer counts a hundredfold then, so a busy computer makes fleets late. The short form therefore drives
the same machines through the application in its own process, on a clock that jumps (`Jumping`): it gives the same
figures on any computer.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

from flask import Flask

from app import chart_file
from app.core.chart import Chart
from app.lab.simulate import Assumptions, simulate
from app.wiring import service_of
from proof.campaign import Progress
from proof.proof import Proof, new_folder
from proof.stand import sqlite_database
from tests.support.servers import Server, running

MINUTE = timedelta(minutes=1)
# As many of a hundred fleets end between p5 and p95. Ninety are expected; chance alone leaves fewer than 85 once in 25.
WANTED_OF_100 = 85
SIMULATED = 2_000
# Connections to the server.
CONNECTIONS = 16
NOON = datetime(2030, 1, 7, 12, tzinfo=UTC)
CHART = """\
chart: {name}
current_state: canary
expect: {machines}
states:
- name: canary
  func: increment
  slots: [3, 1]
  current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
  target:
  - {{name: rollback, when: {{key: failed, value: 2}}}}
  - {{name: fleet, when: {{key: count, value: 5}}}}
  - {{name: rollback, when: {{key: elapsed, value: {day}s}}}}
- name: fleet
  func: increment
  slots: "40%"
  current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
  target:
  - {{name: rollback, when: {{key: failed, op: ">", value: "3%"}}}}
  - {{name: done, when: {{key: count, value: "90%"}}}}
  - {{name: rollback, when: {{key: elapsed, value: {day}s}}}}
- name: rollback
- name: done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many fleets of how many machines, by which number times are divided, and what is assumed of the machines.

    Only so many fleets live `at_a_time` that the server answers in milliseconds. Machines that are driven ask every
    `polled`, if that is given: those of a seeded mistake, which the simulation does not know.
    """

    fleets: int = 100
    at_a_time: int = 6
    machines: int = 200
    faster: int = 100
    simulated: int = SIMULATED
    fail: float = 0.02
    shortest: timedelta = 2 * MINUTE
    longest: timedelta = 8 * MINUTE
    poll: timedelta = 5 * MINUTE
    polled: timedelta | None = None
    seed: int = 1

    @property
    def assumed(self) -> Assumptions:
        """The assumptions of the simulation."""
        return Assumptions(
            start=NOON,
            machines=self.machines,
            fail=self.fail,
            shortest=self.shortest,
            longest=self.longest,
            poll=self.poll,
        )

    def write_chart(self, name: str, faster: int = 1) -> str:
        """Return the chart file, with its deadlines divided by `faster`."""
        return CHART.format(name=name, machines=self.machines, day=86400 // faster)


@dataclass(frozen=True, slots=True)
class Lived:
    """How a fleet ended: the state, the one before it, and after how many seconds of the simulation's time."""

    state: str
    origin: str
    after: float


@dataclass(slots=True)
class Outcome:
    """What the fleets came to: how many ended between p5 and p95; and how many if half as much work is simulated."""

    plan: Plan
    lived: list[Lived] = field(default_factory=list)
    inside: int = 0
    inside_if_wrong: int = 0
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    # Seconds to each answer.
    answers: list[float] = field(default_factory=list)

    @property
    def needed(self) -> float:
        """How many fleets must end between p5 and p95."""
        return len(self.lived) * WANTED_OF_100 / 100

    @property
    def is_proof(self) -> bool:
        return bool(self.lived) and self.inside >= self.needed > self.inside_if_wrong

    def as_json(self) -> dict[str, Any]:
        """The outcome for a file."""
        return {
            "fleets": len(self.lived),
            "machines": self.plan.machines,
            "faster": self.plan.faster,
            "inside": self.inside,
            "inside_if_half_the_work_is_simulated": self.inside_if_wrong,
            "requests": len(self.answers),
            "median_answer": statistics.median(self.answers or [0]),
            "slowest_answer": max(self.answers, default=0),
            "simulated_p5_to_p95": self.ranges,
            "lived": [[one.state, one.origin, round(one.after)] for one in self.lived],
            "is_proof": self.is_proof,
        }

    def as_line(self) -> str:
        """The outcome in a line."""
        ends = ", ".join(f"{count} {name}" for name, count in Counter(one.state for one in self.lived).most_common())
        return (
            f"{self.inside} of {len(self.lived)} fleets of {self.plan.machines} machines ended between the simulated p5"
            f" and p95 ({ends}); {self.inside_if_wrong} if half the work is simulated; {len(self.answers)} requests,"
            f" answered in {statistics.median(self.answers or [0]) * 1000:.1f} ms (median),"
            f" {max(self.answers, default=0) * 1000:.0f} ms at most"
        )


def prove_fleets(proof: Proof, plan: Plan | None = None) -> None:
    """Drive the fleets over HTTP, and compare their endings with the simulated ones."""
    with new_folder() as folder, sqlite_database(folder) as database, running(database.url, folder) as server:
        found = drive(server, plan or Plan(), proof.say)
    proof.add("fleets over HTTP", found.as_json(), found.as_line())


def drive(server: Server, plan: Plan, progress: Progress = lambda line: None) -> Outcome:
    """Let all fleets live on the server, and judge how they ended."""
    outcome = Outcome(plan)

    async def run() -> None:
        async with _lines(server.port, outcome.answers) as lines:
            await _drive_all(lines.ask, plan, outcome, progress)

    asyncio.run(run())
    judge(outcome)
    return outcome


def drive_jumping(app: Flask, plan: Plan) -> Outcome:
    """Let all fleets live on the application in this process, on a clock that jumps, and judge how they ended."""
    outcome, client, loop = Outcome(plan), app.test_client(), Jumping()
    service_of(app).database.clock = lambda: NOON + timedelta(seconds=loop.time())

    async def ask(method: str, path: str, body: str = "") -> tuple[int, Any]:
        answer = client.open(path, method=method, data=body, headers={"Accept": "application/json"})
        return answer.status_code, answer.get_json()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(_drive_all(ask, plan, outcome, lambda line: None))
    judge(outcome)
    return outcome


class Jumping(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while there is something to do, and then jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector.select = partial(self._jump, self._selector.select)  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now

    def _jump(self, select: Callable[[float | None], list[Any]], timeout: float | None) -> list[Any]:
        self._now += timeout or 0.0
        return select(0 if timeout is not None else None)


def judge(outcome: Outcome) -> None:
    """Count the fleets that ended between the p5 and the p95 of the simulated runs with the same ending."""
    plan = outcome.plan
    chart = chart_file.parse(plan.write_chart("fleet")).chart
    right = _find_ranges(chart, plan.assumed, plan)
    half = replace(plan.assumed, shortest=plan.shortest / 2, longest=plan.longest / 2)
    wrong = _find_ranges(chart, half, plan)
    outcome.ranges = {f"{state} from {origin}": found for (state, origin), found in right.items()}
    outcome.inside = sum(_is_inside(one, right) for one in outcome.lived)
    outcome.inside_if_wrong = sum(_is_inside(one, wrong) for one in outcome.lived)


Ranges = dict[tuple[str, str], tuple[float, float]]


def _find_ranges(chart: Chart, assumed: Assumptions, plan: Plan) -> Ranges:
    found = simulate(chart, assumed, plan.simulated, seed=plan.seed)
    ranges: Ranges = {}
    for group in found.list_groups():
        after = group.after.percentiles
        ranges[group.state or "", group.origin] = (after[0], after[3])
    return ranges


def _is_inside(lived: Lived, ranges: Ranges) -> bool:
    low, high = ranges.get((lived.state, lived.origin), (1.0, 0.0))
    return low <= lived.after <= high


# Over HTTP

Ask = Callable[..., Awaitable[tuple[int, Any]]]


class Lines:
    """A few connections to the server, which all machines share; `answers` gets the seconds to each answer."""

    def __init__(self, port: int, answers: list[float]) -> None:
        self._port = port
        # In turn: the server closes a connection that is not used for 75 s.
        self._free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self._answers = answers

    async def open(self) -> None:
        for _ in range(CONNECTIONS):
            self._free.put_nowait(await asyncio.open_connection("127.0.0.1", self._port))

    async def close(self) -> None:
        while not self._free.empty():
            _, writer = self._free.get_nowait()
            writer.close()
            await writer.wait_closed()

    async def ask(self, method: str, path: str, body: str = "") -> tuple[int, Any]:
        """Send one request; return the status and the body, which is JSON."""
        # If the machine is cancelled meanwhile, the answer is read all the same, so that the connection can be used.
        return await asyncio.shield(asyncio.create_task(self._send(method, path, body)))

    async def _send(self, method: str, path: str, body: str) -> tuple[int, Any]:
        started = time.perf_counter()
        reader, writer = await self._free.get()
        sent = body.encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
        writer.write(f"{head}Content-Type: application/yaml\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        text = await reader.readexactly(length)
        self._free.put_nowait((reader, writer))
        self._answers.append(time.perf_counter() - started)
        return int(lines[0].split()[1]), json.loads(text)


@asynccontextmanager
async def _lines(port: int, answers: list[float]) -> AsyncIterator[Lines]:
    lines = Lines(port, answers)
    await lines.open()
    try:
        yield lines
    finally:
        await lines.close()


async def _drive_all(ask: Ask, plan: Plan, outcome: Outcome, progress: Progress) -> None:
    turns = asyncio.Semaphore(plan.at_a_time)

    async def live(number: int) -> None:
        async with turns:
            found = await _Fleet(ask, plan, number).live()
        outcome.lived.append(found)
        progress(f"fleet {len(outcome.lived)} of {plan.fleets}: {found.state} after {found.after / 60:.0f} min")

    async with asyncio.TaskGroup() as group:
        for number in range(plan.fleets):
            group.create_task(live(number))


class _Fleet:
    """The machines of one chart, which do what the simulation assumes."""

    def __init__(self, ask: Ask, plan: Plan, number: int) -> None:
        self._ask, self._plan = ask, plan
        self._name = f"fleet-{number}"
        self._path = f"/charts/{self._name}"
        self._seed = f"{plan.seed} {number}"
        self._poll = (plan.polled or plan.poll).total_seconds() / plan.faster
        self._shortest = plan.shortest.total_seconds() / plan.faster
        self._longest = plan.longest.total_seconds() / plan.faster
        # The state in which the chart is, as far as a machine has heard.
        self._state = "canary"
        self._is_over = asyncio.Event()
        self._begun = 0.0

    async def live(self) -> Lived:
        """Return how the chart ended."""
        text = self._plan.write_chart(self._name, self._plan.faster)
        status, imported = await self._ask("PUT", self._path, text)
        assert status == 201, imported
        self._begun = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            machines = [group.create_task(self._work(f"m{number}")) for number in range(self._plan.machines)]
            await self._watch()
            # Those that work on would be told that it is over.
            for machine in machines:
                machine.cancel()
        return await self._read_ending()

    async def _watch(self) -> None:
        while not self._is_over.is_set():
            await asyncio.sleep(self._poll / 4)
            status, found = await self._ask("GET", self._path)
            assert status == 200, found
            self._hear(found["current_state"])

    def _hear(self, state: str) -> None:
        self._state = state
        if state in ("done", "rollback"):
            self._is_over.set()

    async def _work(self, machine: str) -> None:
        # Its own luck, whatever the others do and however long their answers take.
        chance = Random(f"{self._seed} {machine}")
        phase, done_in = chance.random() * self._poll, ""
        while not self._is_over.is_set():
            passed = asyncio.get_running_loop().time() - self._begun
            await asyncio.sleep((phase - passed) % self._poll)
            if self._state == done_in or self._is_over.is_set():
                # It would be told that it has done its part.
                await asyncio.sleep(self._poll / 100)
                continue
            state = await self._claim(machine)
            if state is None:
                await asyncio.sleep(self._poll / 100)
                continue
            key = "failed" if chance.random() < self._plan.fail else "count"
            await asyncio.sleep(self._shortest + chance.random() * (self._longest - self._shortest))
            status, found = await self._ask("PUT", f"{self._path}/state?state={state}&machine={machine}&key={key}")
            assert status in (200, 406), found
            self._hear(found["current_state"])
            if status == 200 and found["reason"] in ("updated", "transitioned"):
                done_in = state

    async def _claim(self, machine: str) -> str | None:
        """Claim a slot in the chart's state; return that state, or None if the machine may not begin."""
        for _ in range(2):
            state = self._state
            status, found = await self._ask("PUT", f"{self._path}/slot?state={state}&machine={machine}")
            assert status in (200, 406), found
            if status == 200:
                return state
            self._hear(found["current_state"])
            if self._state == state or self._is_over.is_set():
                return None
        return None

    async def _read_ending(self) -> Lived:
        _, (run,) = await self._ask("GET", f"{self._path}/runs?limit=1")
        stays: Sequence[dict[str, Any]] = run["states"]
        spent = datetime.fromisoformat(run["ended_at"]) - datetime.fromisoformat(run["started_at"])
        return Lived(run["ending"], stays[-2]["state"], spent.total_seconds() * self._plan.faster)
