"""The proof finds what trying everything finds; and it does not if it is made wrong on purpose."""

from __future__ import annotations

import pytest

from app.core.proof import Measure, Proof
from tests.core.brute import explore, random_chart

SEEDS = 300


def compare(seed: int, most_machines: int) -> list[str]:
    """Return how the proof of a random chart differs from what trying everything finds."""
    chart, machines = random_chart(seed, most_machines)
    found, proof = explore(chart, machines), Proof(chart, machines)
    taken = {(state, move) for state, moves in proof.moves.items() for move in moves}
    differences = [f"{seed}: {edge} is taken or not" for edge in taken ^ found.taken]
    for state, move in sorted(taken & found.taken):
        peak = proof.find_peak(state, move, Measure.DOWN) if chart.states[state].slots is not None else None
        if peak is not None and peak.value != found.down[state, move]:
            differences.append(f"{seed}: {state} {move}: {peak.value} are down, tried {found.down[state, move]}")
    for name in proof.shortest:
        if chart.states[name].slots is not None and name in found.down_within:
            within = proof.find_bound_within(Measure.DOWN, name).most
            if within != found.down_within[name]:
                differences.append(f"{seed}: in {name} {within} are down, tried {found.down_within[name]}")
    return differences


@pytest.mark.parametrize("seed", range(25))
def test_proof_finds_what_trying_everything_finds(seed: int) -> None:
    assert compare(seed, 2) == []
