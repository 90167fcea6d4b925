"""A machine counts once per visit: on random reports and retries, the core agrees with a dict."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.chart import Chart, Func, Op, Transition
from app.core.errors import KeyReusedError
from app.core.position import Verdict
from tests.core.support import NOON, chart, counted, final, when
from tests.support.happenings import RandomPut
from tests.support.model import Model

KEYS = ["count", "failed"]
# Round and round until four machines have failed.
FUNCS = {"a": Func.INCREMENT, "b": Func.DECREMENT}
LOOP = {"a": "b", "b": "a"}
GOAL, BUDGET = 3, 4


def looping_chart() -> Chart:
    states = [
        counted(name, *guards(name, Op.GE if func is Func.INCREMENT else Op.LE), func=func)
        for name, func in FUNCS.items()
    ]
    return chart(*states, final("end"))


def guards(name: str, op: Op) -> list[Transition]:
    sign = 1 if op is Op.GE else -1
    return [when("end", "failed", sign * BUDGET, op), when(LOOP[name], "count", sign * GOAL, op)]


@dataclass
class Visit:
    """The latest report of each machine in one visit, and the counts of reports without a machine."""

    state: str
    said: dict[str, str] = field(default_factory=dict)
    anonymous: Counter[str] = field(default_factory=Counter)

    def count(self, key: str) -> int:
        return sum(said == key for said in self.said.values()) + self.anonymous[key]


@dataclass
class Fleet:
    """A chart as the dict sees it."""

    visits: list[Visit] = field(default_factory=lambda: [Visit("a")])
    keys: dict[str, tuple[str, str | None, str]] = field(default_factory=dict)

    def put(self, put: RandomPut) -> bool | None:
        """Return whether the PUT is accepted; None if its Idempotency-Key belongs to another request."""
        key = put.key or "count"
        request = (put.state, put.machine, key)
        if put.idempotency_key in self.keys:
            return True if self.keys[put.idempotency_key] == request else None
        latest = next((visit for visit in reversed(self.visits) if visit.state == put.state), None)
        said = None if latest is None or put.machine is None else latest.said.get(put.machine)
        if latest is not None and put.machine is not None and said is not None and latest is not self.visits[-1]:
            # The chart has moved on: what the machine says now is recorded, and counts nothing.
            latest.said[put.machine] = key
        elif said != key:
            if latest is not self.visits[-1] or put.state == "end":
                return False
            self._count(latest, put.machine, key)
        if put.idempotency_key is not None:
            self.keys[put.idempotency_key] = request
        return True

    def _count(self, visit: Visit, machine: str | None, key: str) -> None:
        if machine is None:
            visit.anonymous[key] += 1
        else:
            visit.said[machine] = key
        if visit.count("failed") >= BUDGET:
            self.visits.append(Visit("end"))
        elif visit.count("count") >= GOAL:
            self.visits.append(Visit(LOOP[visit.state]))

    def values(self) -> dict[str, int]:
        here = self.visits[-1]
        sign = -1 if here.state == "b" else 1
        return {} if here.state == "end" else {key: sign * here.count(key) for key in KEYS}


PUTS = st.builds(
    RandomPut,
    st.sampled_from(["a", "b", "a", "b", "end"]),
    st.sampled_from(["m1", "m2", "m3", "m4", "m5", None]),
    st.sampled_from([None, *KEYS]),
    st.sampled_from([None, None, *(f"k{number}" for number in range(8))]),
)


@given(st.lists(st.tuples(PUTS, st.integers(0, 3)), max_size=60))
def test_core_agrees_with_a_dict_of_the_latest_reports(asked: list[tuple[RandomPut, int]]) -> None:
    fleet, made = Fleet(), Model()
    made.import_chart(looping_chart(), NOON)
    sent: list[RandomPut] = []
    for put, back in asked:
        # Three in four are retries of something sent before, whatever has happened in the meantime.
        chosen = sent[-back] if 0 < back <= len(sent) else put
        sent.append(chosen)
        assert answer(made, chosen) == fleet.put(chosen)
        assert (made.here.visit, dict(made.here.values)) == (len(fleet.visits), fleet.values())


def answer(made: Model, put: RandomPut) -> bool | None:
    try:
        step = made.put(put.state, NOON, put.machine, put.key, put.idempotency_key)
    except KeyReusedError:
        return None
    return step.verdict is Verdict.ACCEPTED


@pytest.mark.parametrize("retries", [1, 2, 5])
@given(sent=st.lists(PUTS, max_size=30))
def test_sending_everything_several_times_with_keys_counts_as_once(retries: int, sent: list[RandomPut]) -> None:
    once, often = Model(), Model()
    for made in (once, often):
        made.import_chart(looping_chart(), NOON)
    for number, put in enumerate(sent):
        keyed = RandomPut(put.state, put.machine, put.key, f"unique-{number}")
        expected = answer(once, keyed)
        answers = [answer(often, keyed) for _ in range(retries)]
        assert answers[0] is expected
        if expected:
            assert set(answers) == {True}
    assert (once.here, [row.value_after for row in once.rows]) == (often.here, [row.value_after for row in often.rows])
