"""Walks over a graph of names; without recursion, for charts of 10,000 states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Graph = Mapping[str, Sequence[str]]


def reach(roots: Iterable[str], graph: Graph) -> set[str]:
    """Return the roots and every name that a path from one of them leads to."""
    reached = set(roots)
    waiting = list(reached)
    while waiting:
        for name in graph.get(waiting.pop(), ()):
            if name not in reached:
                reached.add(name)
                waiting.append(name)
    return reached


def reverse(graph: Graph) -> dict[str, list[str]]:
    """Return the graph with every arrow turned round."""
    turned: dict[str, list[str]] = {name: [] for name in graph}
    for name, targets in graph.items():
        for target in targets:
            turned.setdefault(target, []).append(name)
    return turned


def find_cycles(graph: Graph) -> list[list[str]]:
    """Return the groups of names that lead to each other or to themselves (Kosaraju's two walks)."""
    backward = reverse(graph)
    grouped: set[str] = set()
    cycles = []
    for root in reversed(_finish_order(graph)):
        if root in grouped:
            continue
        group = _collect(root, backward, grouped)
        if len(group) > 1 or root in graph.get(root, ()):
            cycles.append(group)
    return cycles


def _collect(root: str, graph: Graph, seen: set[str]) -> list[str]:
    seen.add(root)
    group = [root]
    for name in group:  # grows while it is walked
        fresh = [target for target in dict.fromkeys(graph.get(name, ())) if target not in seen]
        seen.update(fresh)
        group.extend(fresh)
    return group


def _finish_order(graph: Graph) -> list[str]:
    """Return the names in the order in which a depth-first walk leaves them."""
    order: list[str] = []
    seen: set[str] = set()
    for root in graph:
        if root in seen:
            continue
        seen.add(root)
        path = [(root, iter(graph[root]))]
        while path:
            name, targets = path[-1]
            target = next((target for target in targets if target not in seen), None)
            if target is None:
                order.append(name)
                path.pop()
            else:
                seen.add(target)
                path.append((target, iter(graph.get(target, ()))))
    return order
