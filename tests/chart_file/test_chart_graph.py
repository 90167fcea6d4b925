"""Which states can be reached, and which form cycles."""

from __future__ import annotations

from app.chart_file.checks import find_cycles, reach

LONG = 10_000


def test_reach_follows_a_long_path() -> None:
    graph = {str(number): [str(number + 1)] for number in range(LONG)}
    assert len(reach(["0"], graph)) == LONG + 1


def test_reach_returns_the_roots_if_nothing_leads_on() -> None:
    assert reach(["a"], {"a": [], "b": ["a"]}) == {"a"}


def test_find_cycles_returns_nothing_for_a_path_that_forks_and_joins() -> None:
    assert find_cycles({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}) == []


def test_find_cycles_returns_each_cycle_separately() -> None:
    graph = {"a": ["b"], "b": ["a", "c"], "c": ["d"], "d": ["e"], "e": ["c"], "f": ["f"], "g": ["a"]}
    assert sorted(sorted(cycle) for cycle in find_cycles(graph)) == [["a", "b"], ["c", "d", "e"], ["f"]]


def test_find_cycles_follows_a_long_cycle() -> None:
    graph = {str(number): [str((number + 1) % LONG)] for number in range(LONG)}
    assert [len(cycle) for cycle in find_cycles(graph)] == [LONG]
