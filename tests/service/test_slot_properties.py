"""Whatever happens in whatever order: no claim goes past the limit in force, and the log says what the tables say."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.chart import Chart, OnExpire
from app.core.errors import StateServiceError
from app.core.position import Claim, Evict, Goto, Happening, Pause, Release, Reset, Resume, Tick
from app.service import operate
from app.service import put as putting
from app.service.context import Service
from app.service.upkeep import verify
from tests.core.support import NOON, after, rolling
from tests.service.support import ANN, NOBODY, Clock, import_text, put, rows
from tests.support import requests
from tests.support import slots as support
from tests.support.examples import examples
from tests.support.model import Model
from tests.support.slots import Ledger

MACHINES = [f"m{number}" for number in range(8)]
COUNT, FAILED = 12, 4

stage_lists = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)
machines = st.sampled_from(MACHINES)


@dataclass(frozen=True)
class Op:
    """One thing that happens, `seconds` after the one before."""

    name: str
    machine: str
    seconds: int
    stages: tuple[int, ...]


WEIGHTED = (
    ["claim"] * 8 + ["count"] * 3 + ["failed", "release", "evict", "pause", "resume", "upgrade", "again", "reset"]
)
ops = st.builds(Op, st.sampled_from(WEIGHTED), machines, st.sampled_from([0, 0, 1, 30, 101]), stage_lists)


def is_within(ledger: Ledger) -> bool:
    """True where every number of a new slot was higher than all before."""
    return ledger.fences == sorted(set(ledger.fences))


# The core alone


def core_chart(stages: tuple[int, ...], on_expire: OnExpire) -> Chart:
    return rolling(*stages, lease=100, on_expire=on_expire, target=COUNT)


def happening(op: Op) -> Happening:
    plain: dict[str, Happening] = {
        "claim": Claim("reboot", op.machine),
        "release": Release("reboot", op.machine),
        "evict": Evict(op.machine, "why"),
        "pause": Pause("why"),
        "resume": Resume("why"),
        "again": Goto("reboot", "why"),
        "reset": Reset("why"),
    }
    return plain.get(op.name, Tick())


@dataclass
class CoreLife:
    """A chart in the core's own model, and the limits of its versions."""

    on_expire: OnExpire
    model: Model = field(default_factory=Model)
    stages: dict[int, tuple[int, ...]] = field(default_factory=dict)
    seconds: int = 0

    def begin(self, stages: tuple[int, ...]) -> None:
        self.model.import_chart(core_chart(stages, self.on_expire), after(self.seconds))
        self.stages[self.model.here.version] = stages

    def act(self, op: Op) -> None:
        self.seconds += op.seconds
        now = after(self.seconds)
        try:
            if op.name == "upgrade":
                self.begin(op.stages)
            elif op.name in ("count", "failed"):
                self.model.put("reboot", now, op.machine, op.name)
            else:
                self.model.do(happening(op), now)
        except StateServiceError:
            pass


@given(stage_lists, st.sampled_from(OnExpire), st.lists(ops, max_size=60))
def test_claims_stay_within_the_limit_in_the_core(
    stages: tuple[int, ...], on_expire: OnExpire, happened: list[Op]
) -> None:
    life = CoreLife(on_expire)
    life.begin(stages)
    for op in happened:
        life.act(op)
    ledger = Ledger(life.stages).read(life.model.rows)
    assert is_within(ledger)
    assert ledger.holders == set(life.model.here.slots)


# The service, on each database

Act = Callable[[Service, str, str], object]

SERVICE_ACTS: dict[str, Act] = {
    "claim": lambda service, chart, machine: requests.claim(service, chart, "reboot", machine, NOBODY),
    "count": lambda service, chart, machine: put(service, "reboot", machine, "count", chart=chart),
    "failed": lambda service, chart, machine: put(service, "reboot", machine, "failed", chart=chart),
    "release": lambda service, chart, machine: requests.release(service, chart, "reboot", machine, NOBODY),
    "evict": lambda service, chart, machine: operate.evict(service, chart, machine, "why", ANN),
    "pause": lambda service, chart, machine: operate.pause(service, chart, "why", ANN),
    "resume": lambda service, chart, machine: operate.resume(service, chart, "why", ANN),
    "again": lambda service, chart, machine: operate.goto(service, chart, "reboot", "why", ANN),
    "reset": lambda service, chart, machine: operate.reset(service, chart, "why", ANN),
}


def service_chart(stages: tuple[int, ...], on_expire: OnExpire) -> str:
    return support.rolling(str(list(stages)), lease="100s", on_expire=on_expire, count=str(COUNT), failed=str(FAILED))


@dataclass
class ServiceLife:
    """A chart of its own on a real database, and the limits of its versions."""

    service: Service
    clock: Clock
    chart: str
    on_expire: OnExpire
    stages: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def begin(self, stages: tuple[int, ...]) -> None:
        imported = import_text(self.service, service_chart(stages, self.on_expire), name=self.chart)
        self.stages[imported.status.version] = stages

    def act(self, op: Op) -> None:
        self.clock.advance(op.seconds)
        try:
            if op.name == "upgrade":
                self.begin(op.stages)
            else:
                SERVICE_ACTS[op.name](self.service, self.chart, op.machine)
        except StateServiceError:
            pass
        if op.seconds == 101:
            putting.sweep(self.service)


# A chart of its own for every example, also while Hypothesis looks for a smaller one.
numbers = itertools.count()


@settings(max_examples=examples(25, few=5), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stage_lists, st.sampled_from(OnExpire), st.lists(ops, min_size=10, max_size=30))
def test_claims_stay_within_the_limit_in_the_service(
    service: Service, clock: Clock, stages: tuple[int, ...], on_expire: OnExpire, happened: list[Op]
) -> None:
    life = ServiceLife(service, clock, f"web-{next(numbers)}", on_expire)
    life.begin(stages)
    for op in happened:
        life.act(op)
    ledger = Ledger(life.stages).read(rows(service, life.chart))
    assert is_within(ledger)
    assert verify(service, life.chart).differences == ()


def test_ledger_notices_a_claim_too_many() -> None:
    life = CoreLife(OnExpire.HOLD)
    life.begin((2,))
    for machine in MACHINES[:2]:
        life.model.do(Claim("reboot", machine), NOON)
    life.begin((1,))
    life.model.do(Evict("m0", "why"), NOON)
    rows_of_two = [*life.model.rows[:3], *life.model.rows[:3]]
    with pytest.raises(AssertionError):
        Ledger({1: (1,), 2: (1,)}).read(rows_of_two)
