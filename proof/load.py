"""The load: client processes whose threads ask, report, claim, repeat, wait and operate, and record every attempt."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from proof.history import UNKNOWN, Attempt, read_attempts, write_attempts
from proof.model import digest

# The states of each chart that the load plays on; the last state of a file is never reached.
STATES = ("one", "two", "three")
CREW_STATES = ("work", "rest")
# No final state is ever reached: `failed` would have to be this high.
RING = """
current_state: one
states:
  - name: one
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: two, when: {key: count, value: 7}}, {name: end, when: {key: failed, value: 1000000}}]
  - name: two
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: {name: three, when: {key: count, value: 5}}
  - name: three
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: one, when: {key: count, value: 1000}}, {name: one, when: {key: elapsed, value: 1s}}]
  - name: end
"""
# Machines need a slot to work; `ring` needs none.
CREW = """
current_state: work
states:
  - name: work
    func: increment
    slots: 3
    lease: 1s
    on_expire: fail
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: rest, when: {key: count, value: 20}}
      - {name: rest, when: {key: elapsed, value: 3s}}
      - {name: end, when: {key: failed, value: 1000000}}
  - name: rest
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: work, when: {key: count, value: 1000}}, {name: work, when: {key: elapsed, value: 1s}}]
  - name: end
"""
# The versions of each file: operators upgrade from one to the other and back.
RINGS = (RING, RING.replace("value: 7", "value: 6"))
CREWS = (CREW, CREW.replace("slots: 3", "slots: 2").replace("fail\n", "free\n").replace("value: 20", "value: 15"))
TIMEOUT = 10.0
PAUSE = 0.02
TRIES = 12
# After so many a connection is opened anew, or one worker might serve everybody.
REQUESTS = 15


def texts_of(chart: str) -> tuple[str, str]:
    """The versions of a chart of the load, the first one first."""
    return CREWS if chart.startswith("crew") else RINGS


def states_of(chart: str) -> tuple[str, ...]:
    """The states in which machines report."""
    return CREW_STATES if chart.startswith("crew") else STATES


@dataclass(frozen=True, slots=True)
class Spec:
    """What one client process does."""

    number: int
    port: int
    charts: tuple[str, ...]
    threads: int
    waiters: int
    path: Path
    rest: float = 0
    operators: int = 0
    has_twins: bool = False
    is_patient: bool = False


@dataclass(frozen=True, slots=True)
class Put:
    """An update, sent as often as it takes to know what came of it. Each has its own identity, or none at all."""

    chart: str
    state: str
    machine: str | None = None
    key: str | None = None
    idempotency_key: str | None = None
    is_plain: bool = False

    @property
    def may_be_repeated(self) -> bool:
        return self.machine is not None or self.idempotency_key is not None


class Connection:
    """One thread's kept connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._http: http.client.HTTPConnection | None = None
        self._left = REQUESTS

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: str | None = None, timeout: float = TIMEOUT
    ) -> tuple[int, bytes]:
        """Send one request, once. Raises OSError or HTTPException; NotSentError where it never left."""
        if self._http is None:
            opened = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
            try:
                opened.connect()
            except OSError as error:
                raise NotSentError from error
            self._http, self._left = opened, REQUESTS
        try:
            self._http.request(method, path, body, headers)
            response = self._http.getresponse()
            status, body = response.status, response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        self._left -= 1
        if self._left == 0:
            self.close()
        return status, body

    def close(self) -> None:
        """Hang up; the next request opens another one."""
        if self._http is not None:
            self._http.close()
        self._http = None


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: str | None = None


class NotSentError(Exception):
    """Nobody listened: the request was never sent."""


@dataclass(slots=True)
class Shared:
    """What the threads of one process share."""

    spec: Spec
    stop: Any
    taken: Any
    attempts: list[Attempt] = field(default_factory=list)
    # The state of each chart in the last answer about it, and the updates that a client may send again.
    current: dict[str, str] = field(default_factory=dict)
    recent: deque[Put] = field(default_factory=lambda: deque(maxlen=24))


class Machine:
    """One thread of load."""

    def __init__(self, shared: Shared, number: int) -> None:
        self.shared = shared
        self.name = f"{shared.spec.number}-{number}"
        self.random = random.Random(self.name)
        self.connection = Connection(shared.spec.port)
        self.sent = 0
        self.twin: Machine | None = None

    def report(self) -> None:
        """Send updates and questions until told to stop."""
        while not self.shared.stop.is_set():
            time.sleep(self.shared.spec.rest)
            chart = self.random.choice(self.shared.spec.charts)
            draw = self.random.random()
            if draw < 0.2:
                self.get(chart, self.random.choice(states_of(chart)), is_plain=self.random.random() < 0.5)
            elif draw < 0.42 and self.shared.recent:
                # The newest most often: it may be under way.
                age = min(int(self.random.expovariate(0.4)), len(self.shared.recent) - 1)
                self.put_until_known(self.shared.recent[-1 - age])
            else:
                self.put_something(chart)

    def put_something(self, chart: str) -> None:
        """Send a new update, and sometimes look what came of it, or send the same machine's other report."""
        self.sent += 1
        identity = f"{self.name}-{self.sent}"
        state = self.shared.current.get(chart, states_of(chart)[0])
        draw, is_plain = self.random.random(), self.random.random() < 0.1
        # Some report without a slot, and are refused.
        if state == CREW_STATES[0] and self.random.random() < 0.9:
            self.work(chart, state, identity)
            return
        if draw < 0.2:
            put = Put(chart, state)
        elif draw < 0.55:
            put = Put(chart, state, idempotency_key=identity, is_plain=is_plain)
        elif draw < 0.65:
            put = Put(chart, state, machine=identity, idempotency_key=identity)
        else:
            put = Put(chart, state, machine=identity, is_plain=is_plain)
        if put.may_be_repeated:
            self.shared.recent.append(put)
        if not self.put_at_once(put):
            return
        if self.random.random() < 0.25:
            self.get(chart, state, is_plain=is_plain)
        if put.machine and not put.idempotency_key and self.random.random() < 0.15:
            self.put_until_known(Put(chart, state, machine=identity, key="failed"))

    def work(self, chart: str, state: str, machine: str) -> None:
        """Claim a slot; report, fail, give it back, or let its lease run out."""
        claimed = self.ask_for_slot("PUT", chart, state, machine)
        if claimed is None or not claimed.is_yes:
            # Others hold the slots.
            time.sleep(PAUSE)
            return
        draw = self.random.random()
        if draw < 0.04:
            return
        if draw < 0.12:
            self.ask_for_slot("DELETE", chart, state, machine)
            return
        if draw < 0.2:
            self.ask_for_slot("PUT", chart, state, machine)
        put = Put(chart, state, machine=machine, key="failed" if draw > 0.9 else None)
        self.shared.recent.append(put)
        self.put_until_known(put)

    def ask_for_slot(self, method: str, chart: str, state: str, machine: str) -> Attempt | None:
        """Claim a slot, or give it back; once."""
        query = urlencode({"state": state, "machine": machine})
        what = {"PUT": "CLAIM", "DELETE": "RELEASE"}[method]
        sent = Request(method, f"/charts/{chart}/slot?{query}", {"Accept": "application/json"})
        return self.send(what, chart, state, sent, (machine, None, None))

    def put_at_once(self, put: Put) -> bool:
        """Send an update until it is known what came of it; if there is a twin, it sends the same update meanwhile."""
        if self.twin is None or not put.may_be_repeated:
            return self.put_until_known(put)
        meanwhile = threading.Thread(target=self.twin.put_until_known, args=(put,))
        meanwhile.start()
        is_counted = self.put_until_known(put)
        meanwhile.join()
        return is_counted

    def put_until_known(self, put: Put) -> bool:
        """Send an update until it is answered yes or no; one without an identity is sent once."""
        for _ in range(TRIES):
            attempt = self.put(put)
            if attempt is not None and attempt.status in (200, 406):
                return attempt.is_yes
            if self.shared.stop.is_set() or (attempt is not None and not put.may_be_repeated):
                return False
            time.sleep(PAUSE)
        return False

    def put(self, put: Put) -> Attempt | None:
        given = {"state": put.state, "machine": put.machine, "key": put.key}
        query = urlencode({name: value for name, value in given.items() if value is not None})
        headers = {} if put.is_plain else {"Accept": "application/json"}
        if put.idempotency_key is not None:
            headers["Idempotency-Key"] = put.idempotency_key
        identity = (put.machine, put.key, put.idempotency_key)
        sent = Request("PUT", f"/charts/{put.chart}/state?{query}", headers)
        attempt = self.send("PUT", put.chart, put.state, sent, identity)
        if attempt is not None and attempt.is_yes and not attempt.replay:
            with self.shared.taken.get_lock():
                self.shared.taken.value += 1
        return attempt

    def get(self, chart: str, state: str, *, is_plain: bool, wait: int = 0) -> Attempt | None:
        query = urlencode({"state": state, "wait": wait} if wait else {"state": state})
        sent = Request("GET", f"/charts/{chart}/state?{query}", {} if is_plain else {"Accept": "application/json"})
        return self.send("GET", chart, state, sent, wait=wait)

    def send(
        self,
        what: str,
        chart: str,
        state: str,
        sent: Request,
        identity: tuple[str | None, str | None, str | None] = (None, None, None),
        wait: int = 0,
    ) -> Attempt | None:
        """Send one request and record what came of it; None where it was not sent."""
        called, status, body = time.monotonic_ns(), None, b""
        try:
            status, body = self.connection.ask(sent.method, sent.path, sent.headers, sent.body)
        except NotSentError:
            time.sleep(PAUSE)
            return None
        except (OSError, http.client.HTTPException):
            pass
        fields = _read_json(body)
        attempt = Attempt(
            chart,
            what,
            state,
            called,
            time.monotonic_ns(),
            status,
            *identity,
            seq=fields.get("seq"),
            # A claim that renews a lease has a row of its own, and is no replay.
            replay=bool(fields.get("replay") and what != "CLAIM") or fields.get("outcome") == "unchanged",
            outcome=fields.get("outcome", UNKNOWN if status is None else None),
            value=fields.get({"CLAIM": "fence", "UPGRADE": "version"}.get(what, "value")) if status == 200 else None,
            reason=fields.get("reason"),
            wait=wait,
        )
        self.shared.attempts.append(attempt)
        if "current_state" in fields:
            self.shared.current[chart] = fields["current_state"]
        return attempt

    def operate(self) -> None:
        """Pause and resume, move, reset and upgrade one chart after another."""
        while not self.shared.stop.wait(self.random.uniform(0.1, 0.6)):
            chart = self.random.choice(self.shared.spec.charts)
            deed = self.random.choice(("pause", "pause", "goto", "reset", "upgrade", "upgrade"))
            if deed == "pause":
                self.pause(chart)
            elif deed == "upgrade":
                self.upgrade(chart)
            else:
                self.act(deed, chart, self.random.choice(states_of(chart)))

    def pause(self, chart: str) -> None:
        """Pause a chart for a moment. It is resumed whatever becomes of the service meanwhile."""
        self.act("pause", chart)
        self.shared.stop.wait(self.random.uniform(0.05, 0.4))
        resumed = None
        while resumed is None or resumed.status not in (200, 409):
            resumed = self.act("resume", chart)
            if self.shared.stop.wait(PAUSE):
                return

    def act(self, deed: str, chart: str, state: str = "") -> Attempt | None:
        """Do what an operator does, with a reason by which the log's row is known."""
        self.sent += 1
        reason = f"{deed} {self.name}-{self.sent}"
        body = json.dumps({"reason": reason} | ({"state": state} if deed == "goto" else {}))
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        sent = Request("POST", f"/charts/{chart}/{deed}", headers, body)
        return self.send(deed.upper(), chart, state if deed == "goto" else "", sent, (None, None, reason))

    def upgrade(self, chart: str) -> None:
        """Import one of the chart's versions, perhaps the one that is in force."""
        text = self.random.choice(texts_of(chart))
        sent = Request("PUT", f"/charts/{chart}", {"Accept": "application/json"}, text)
        self.send("UPGRADE", chart, "", sent, (None, digest(text), None))

    def wait(self) -> None:
        """Wait for one state after another, and look once more as soon as the answer is there."""
        chart, number = self.random.choice(self.shared.spec.charts), 0
        states = states_of(chart)
        while not self.shared.stop.is_set():
            state = states[number % len(states)]
            waited = self.get(chart, state, is_plain=self.random.random() < 0.3, wait=1)
            if waited is not None and waited.is_yes:
                self.get(chart, state, is_plain=True)
                number += 1
            elif waited is not None and waited.status == 406:
                # A short visit may have been missed.
                number += self.random.randrange(2)
            else:
                time.sleep(PAUSE)

    def wait_for_last(self) -> None:
        """Wait for the last of the states, which lasts, and once it is over for its next visit."""
        chart = self.random.choice(self.shared.spec.charts)
        state = states_of(chart)[-1]
        while not self.shared.stop.is_set():
            found = self.get(chart, state, is_plain=False, wait=2)
            while found is not None and found.is_yes and not self.shared.stop.wait(PAUSE):
                found = self.get(chart, state, is_plain=True)
            if found is None or found.status != 406:
                time.sleep(PAUSE)


def _read_json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def run_process(spec: Spec, stop: Any, taken: Any) -> None:
    """One client process: run its threads until told to stop, then write down what they saw."""
    shared = Shared(spec, stop, taken)
    machines = [Machine(shared, number) for number in range(spec.threads + spec.waiters + spec.operators)]
    reporting, waiting = machines[: spec.threads], machines[spec.threads : spec.threads + spec.waiters]
    operating = machines[spec.threads + spec.waiters :]
    for machine in reporting if spec.has_twins else ():
        machine.twin = Machine(shared, len(machines))
        machines.append(machine.twin)
    works = [machine.report for machine in reporting]
    works += [
        machine.wait_for_last if spec.is_patient and number % 2 else machine.wait
        for number, machine in enumerate(waiting)
    ]
    works += [machine.operate for machine in operating]
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    parent = os.getppid()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.1)
        if os.getppid() != parent:
            os._exit(1)  # the process that asked for the load is gone
    for machine in machines:
        machine.connection.close()
    write_attempts(spec.path, shared.attempts)


class Load:
    """Client processes at work."""

    def __init__(self, stop: Any, taken: list[Any], processes: list[Any], paths: list[Path]) -> None:
        self._stop = stop
        self._taken = taken
        self._processes = processes
        self._paths = paths

    @property
    def taken(self) -> int:
        """How many PUTs were acknowledged so far, replays left out."""
        return sum(value.value for value in self._taken)

    def end(self) -> list[Attempt]:
        """Stop, and return every attempt."""
        self._stop.set()
        for process in self._processes:
            process.join(60)
            assert process.exitcode == 0, f"a client process ended with {process.exitcode}"
        return [attempt for path in self._paths for attempt in read_attempts(path)]

    def kill(self) -> None:
        """End what still runs."""
        for process in self._processes:
            process.kill()
            process.join(10)


@contextmanager
def loaded(
    port: int,
    charts: tuple[str, ...],
    folder: Path,
    processes: int = 2,
    threads: int = 6,
    waiters: int = 2,
    first: int = 0,
    rest: float = 0,
    operators: int = 0,
    has_twins: bool = False,
    is_patient: bool = False,
) -> Iterator[Load]:
    """Run client processes against a server while the block lasts.

    `first` numbers them apart from those of another call; each thread rests for `rest` seconds between two updates.
    Each process has so many `operators`. With `has_twins` each update with an identity is sent twice at once.
    With `is_patient` half of the waiting clients wait for the last state alone.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    taken: list[Any] = [context.Value("q", 0) for _ in range(processes)]
    paths = [folder / f"attempts-{number}.jsonl" for number in range(first, first + processes)]
    specs = [
        Spec(number, port, charts, threads, waiters, path, rest, operators, has_twins, is_patient)
        for number, path in enumerate(paths, first)
    ]
    started = [
        context.Process(target=run_process, args=(spec, stop, count)) for spec, count in zip(specs, taken, strict=True)
    ]
    for process in started:
        process.start()
    load = Load(stop, taken, started, paths)
    try:
        yield load
    finally:
        load.kill()
