"""Stories of charts whose machines differ: true, and with as many machines as trying everything finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from app.core.proof import Measure, Proof
from app.core.telling import show_most
from app.core.witness import play
from tests.core.brute import explore, random_grouped_chart


def compare(seed: int) -> Iterator[tuple[int, int]]:
    """Yield, for each ending, how many machines a story shows that are down there, and how many ever are."""
    grouped = random_grouped_chart(seed)
    chart, proof = grouped.chart, Proof(grouped.chart, grouped.machines, rosters=grouped.rosters)
    down = explore(chart, grouped.machines, rosters=grouped.rosters).down
    for name in proof.list_endings():
        tried = [most for (state, move), most in down.items() if chart.states[state].transitions[move].target == name]
        bound = proof.find_bound(Measure.DOWN, name)
        story, shown = show_most(proof, bound.legs, Measure.DOWN, bound.most or 0)
        if story is not None:
            course = play(chart, story, grouped.rosters)
            assert course is not None
            assert (course.position.state, course.left_down) == (name, shown)
        yield shown, max(tried, default=0)


def judge(seeds: Iterable[int]) -> None:
    found = [one for seed in seeds for one in compare(seed)]
    assert all(shown <= most for shown, most in found)
    # Which machines are down together is a problem of packing, and the story takes them as they come.
    assert sum(shown == most for shown, most in found) >= 0.85 * len(found) > 10


def test_story_shows_as_many_as_can_be_down() -> None:
    judge(seed for seed in range(1, 18) if random_grouped_chart(seed).machines < 4)


@pytest.mark.slow
def test_story_shows_as_many_as_can_be_down_of_more_machines() -> None:
    judge(range(31, 55))
