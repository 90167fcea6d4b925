"""The proof finds what trying everything finds; and each mistake that is put into it on purpose is noticed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from app.core import counts, memory, proof
from app.core.chart import Chart, OnExpire, SlotRule, State
from tests.core.brute import Found, Grouped, explore, random_chart, random_grouped_chart
from tests.support.examples import IS_ALL

CHARTS = 300 if IS_ALL else 60
# Charts on which a mistake must show.
JUDGES = 80


def with_slots(state: State) -> State:
    """Return the state so that nobody begins in it unnoticed: with slots that are given back by reports alone."""
    if not state.is_counting:
        return state
    slots = (
        SlotRule(stages=(1,), written=("1",)) if state.slots is None else replace(state.slots, on_expire=OnExpire.HOLD)
    )
    return replace(state, slots=slots)


@cache
def try_everything(seed: int, most_machines: int) -> tuple[Chart, int, Found]:
    chart, machines = random_chart(seed, most_machines)
    return chart, machines, explore(chart, machines)


@cache
def try_everything_for_begun(seed: int) -> tuple[Chart, int, Found]:
    chart, machines = random_chart(seed, 3)
    chart = replace(chart, states={name: with_slots(state) for name, state in chart.states.items()})
    return chart, machines, explore(chart, machines, counts_begun=True)


def compare(seed: int, most_machines: int, module: Any = proof) -> Iterator[str]:
    """Yield how the proof of a random chart differs from what trying everything finds."""
    chart, machines, found = try_everything(seed, most_machines)
    proved = module.Proof(chart, machines)
    taken = {(state, move) for state, moves in proved.moves.items() for move in moves}
    yield from (f"{seed}: {edge} is taken or not" for edge in taken ^ found.taken)
    for state, move in sorted(taken & found.taken):
        peak = proved.find_peak(state, move, module.Measure.DOWN) if chart.states[state].slots is not None else None
        if peak is not None and peak.value != found.down[state, move]:
            yield f"{seed}: {state} {move}: {peak.value} are down, tried {found.down[state, move]}"
    for name in proved.shortest:
        if chart.states[name].slots is not None and name in found.down_within:
            within = proved.find_bound_within(module.Measure.DOWN, name).most
            if within != found.down_within[name]:
                yield f"{seed}: in {name} {within} are down, tried {found.down_within[name]}"


def compare_begun(seed: int, module: Any = proof) -> Iterator[str]:
    """Yield where the proof differs in how many have begun when an ending is reached."""
    chart, machines, found = try_everything_for_begun(seed)
    proved = module.Proof(chart, machines)
    for name in proved.list_endings():
        most = proved.find_bound(module.Measure.BEGUN, name).most
        if name in found.begun and (most or 0) != found.begun[name]:
            yield f"{seed}: {most} have begun at {name}, tried {found.begun[name]}"


@cache
def try_everything_with_groups(seed: int) -> tuple[Grouped, Found, Found]:
    grouped = random_grouped_chart(seed)
    found = explore(grouped.chart, grouped.machines, rosters=grouped.rosters)
    begun = explore(grouped.chart, grouped.machines, rosters=grouped.rosters, counts_begun=True)
    return grouped, found, begun


def compare_groups(seed: int, module: Any = proof) -> Iterator[str]:
    """Yield where the proof of a chart with limits of groups says too few machines; or too many, where it is exact."""
    grouped, found, with_begun = try_everything_with_groups(seed)
    chart, down = grouped.chart, module.Measure.DOWN
    proved = module.Proof(chart, grouped.machines, rosters=grouped.rosters)
    taken = {(state, move) for state, moves in proved.moves.items() for move in moves}
    yield from (f"{seed}: {edge} is taken" for edge in found.taken - taken)
    for state, move in sorted(found.taken & taken):
        peak = proved.find_peak(state, move, down)
        is_exact = grouped.is_exact and chart.states[state].transitions[move].guard.is_clock
        yield from judge(f"{seed}: {state} {move}", peak.value, found.down[state, move], is_exact)
    for name in sorted(found.down_within.keys() - set(proved.list_endings())):
        within = proved.find_bound_within(down, name).most
        yield from judge(f"{seed}: in {name}", within, found.down_within[name], grouped.is_exact)
    for name in proved.list_endings():
        most = proved.find_bound(module.Measure.BEGUN, name).most
        yield from judge(f"{seed}: begun at {name}", most, with_begun.begun.get(name, 0), False)


def judge(what: str, proved: int | None, tried: int, is_exact: bool) -> Iterator[str]:
    if proved is not None and (proved < tried or (is_exact and proved > tried)):
        yield f"{what}: {proved}, tried {tried}"


@pytest.mark.parametrize("seed", range(20))
def test_proof_finds_what_trying_everything_finds(seed: int) -> None:
    assert [*compare(seed, 2)] == []


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, CHARTS, 30))
def test_proof_finds_what_trying_everything_finds_on_many_charts(start: int) -> None:
    assert [text for seed in range(start, start + 30) for text in compare(seed, 6)] == []


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, CHARTS // 3, 20))
def test_proof_counts_who_has_begun_as_trying_everything_does(start: int) -> None:
    assert [text for seed in range(start, start + 20) for text in compare_begun(seed)] == []


@pytest.mark.parametrize("seed", range(1, 8))
def test_proof_knows_the_limits_of_groups(seed: int) -> None:
    assert [*compare_groups(seed)] == []


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, CHARTS, 30))
def test_proof_knows_the_limits_of_groups_on_many_charts(start: int) -> None:
    assert [text for seed in range(start, start + 30) for text in compare_groups(seed)] == []


# What is put in the place of what, in which module.
MISTAKES = {
    "the end of a track is one too far": (counts, "return count - 1, move", "return count, move"),
    "a guard with > is met too early": (counts, "(met - 1, met, met + 1)", "(met - 1, met)"),
    "the machine that reports last is still at work": (counts, "held - (end is not None), others", "held, others"),
    "slots that are held on are forgotten": (counts, "if held > best:", "if held > best + 10**9:"),
    "a report gives no slot back": (counts, "self.machines) - away", "self.machines)"),
    "there is always another machine": (
        counts,
        "return self.machines - 1, low, high",
        "return self.machines, low, high",
    ),
    "the last guard that holds is taken": (counts, "yield Exit(min(moves)", "yield Exit(max(moves)"),
    "a count never falls": (
        counts,
        "if self._holding:\n            yield from self._list_falling",
        "if ():\n            yield from self._list_falling",
    ),
    "a report may always move": (counts, "2 if track.key in self._holding else 1", "1"),
    "the last machine is not needed": (
        counts,
        "sum(low.values()) <= room:\n                found",
        "sum(low.values()) < room:\n                found",
    ),
    "the first of two equal deadlines waits": (proof, "earlier.age <= later.age", "earlier.age < later.age"),
    "every deadline may come first": (
        proof,
        "if not any(_comes_first(earlier, guard)",
        "if True or any(_comes_first(earlier, guard)",
    ),
    "nobody has begun before": (proof, "(best.value or 0) + peak.value", "peak.value"),
    "a failed machine is not down": (counts, "after.get(FAILED_KEY, 0)", "0 * after.get(FAILED_KEY, 0)"),
}


MISTAKES_IN_GROUPS = {
    "the limits of groups are forgotten": (proof, "if most is None or peak.value <= most", "if True"),
    "a group has more machines than it has": (memory, "min(size, limit.of(size))", "limit.of(size)"),
    "a machine in no group is never down": (memory, "return free + sum(", "return sum("),
    "a share is one of all machines": (memory, "limit.of(size))", "limit.of(len(members)))"),
    "every machine of a roster takes part": (memory, "if matches(labels, where))", "if True)"),
}


def load(module: ModuleType, source: str) -> ModuleType:
    made = ModuleType(f"mistaken_{module.__name__.rpartition('.')[2]}")
    sys.modules[made.__name__] = made
    exec(compile(source, made.__name__, "exec"), made.__dict__)
    return made


def read_source(module: ModuleType) -> str:
    return Path(str(module.__file__)).read_text()


def put_in(module: ModuleType, old: str, new: str) -> ModuleType:
    """Return the proof with a mistake in one of its modules."""
    sources = {one: read_source(one) for one in (counts, memory, proof)}
    assert sources[module].count(old) == 1
    sources[module] = sources[module].replace(old, new)
    load(counts, sources[counts])
    load(memory, sources[memory])
    source = sources[proof].replace("from app.core.counts import", "from mistaken_counts import")
    return load(proof, source.replace("from app.core.memory import", "from mistaken_memory import"))


@pytest.mark.slow
@pytest.mark.parametrize(("module", "old", "new"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_in_the_proof_is_noticed(module: ModuleType, old: str, new: str) -> None:
    mistaken = put_in(module, old, new)
    differences = (
        text for seed in range(JUDGES) for text in (*compare(seed, 4, mistaken), *compare_begun(seed, mistaken))
    )
    assert next(differences, None) is not None


@pytest.mark.slow
@pytest.mark.parametrize(("module", "old", "new"), MISTAKES_IN_GROUPS.values(), ids=MISTAKES_IN_GROUPS)
def test_mistake_in_the_limits_of_groups_is_noticed(module: ModuleType, old: str, new: str) -> None:
    mistaken = put_in(module, old, new)
    differences = (text for seed in range(JUDGES) for text in compare_groups(seed, mistaken))
    assert next(differences, None) is not None
