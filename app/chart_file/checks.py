"""Checks of a chart as a whole: the paths between its states, and the warnings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.chart_file.nodes import Place, Problems, quote
from app.core.chart import State


@dataclass(frozen=True, slots=True)
class StateDraft:
    """A state as far as it could be read.

    If a target is unknown, `targets` has the state that was probably meant in its place. `is_doubtful` says that the
    state may also lead to states that could not be read.
    """

    place: Place
    name: str | None
    state: State
    targets: tuple[str, ...]
    is_doubtful: bool


Graph = Mapping[str, Sequence[str]]


def reach(roots: Iterable[str], graph: Graph) -> set[str]:
    """Return the roots and every name to which a path from one of them leads."""
    reached = set(roots)
    waiting = list(reached)
    while waiting:
        for name in graph.get(waiting.pop(), ()):
            if name not in reached:
                reached.add(name)
                waiting.append(name)
    return reached


def reverse(graph: Graph) -> dict[str, list[str]]:
    """Return the graph with every arrow reversed."""
    turned: dict[str, list[str]] = {name: [] for name in graph}
    for name, targets in graph.items():
        for target in targets:
            turned.setdefault(target, []).append(name)
    return turned


def find_cycles(graph: Graph) -> list[list[str]]:
    """Return the groups of names that lead to each other or to themselves (Kosaraju's algorithm)."""
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
    """Return the names in the order in which a depth-first walk finishes them."""
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


MAX_NAMED = 10


def check_paths(drafts: Sequence[StateDraft], initial: str | None, problems: Problems) -> None:
    """Note every state that no path reaches, and every state from which no final state can be reached.

    Paths start in the initial state and in every `time` state, which an operator may enter by `goto`. They also start
    in the file's first state if it leads to the initial one, because an exported chart is in the middle of its path.
    `initial` is None if it could not be read.
    """
    graph = _collect_targets(drafts)
    reached = _reach_all(drafts, initial, graph)
    # A state with a target that could not be read may well lead to a final state, so it gives no second problem.
    ends = [draft.name for draft in drafts if draft.name and (draft.state.is_final or draft.is_doubtful)]
    ending = reach(ends, reverse(graph))
    for draft in _list_first(drafts):
        if draft.state.name not in reached:
            problems.add(draft.place, f"no path reaches state {quote(draft.state.name)}")
        if draft.state.name not in ending:
            problems.add(draft.place, f"no final state can be reached from state {quote(draft.state.name)}")


def collect_warnings(
    states: Mapping[str, State], initial: str, places: Mapping[str, Place], warnings: Problems
) -> None:
    """Note what is allowed but may be a mistake.

    These are counting states that may wait without limit, `time` states that no transition enters, and cycles of
    clock transitions alone.
    """
    targets = {move.target for state in states.values() for move in state.transitions}
    for name, state in states.items():
        if _is_timed(state) and name != initial and name not in targets:
            warnings.add(places[name], f"no transition enters state {quote(name)}; only an operator's goto does")
    clock_graph = {
        name: [move.target for move in state.transitions if move.guard.is_clock] for name, state in states.items()
    }
    for name, state in states.items():
        if state.is_counting and not clock_graph[name]:
            message = f"state {quote(name)} has no transition by the clock: it may wait for ever"
            warnings.add(places[name], message)
    order = {name: number for number, name in enumerate(states)}
    for cycle in find_cycles(clock_graph):
        names = sorted(cycle, key=order.__getitem__)
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        listed = ", ".join(quote(name) for name in names[:MAX_NAMED])
        warnings.add(places[names[0]], f"a cycle of clock transitions alone, which repeats by itself: {listed}{more}")


def _is_timed(state: State) -> bool:
    return not state.is_final and not state.is_counting


def _reach_all(drafts: Sequence[StateDraft], initial: str | None, graph: Graph) -> set[str]:
    roots = [target for draft in drafts if draft.name is None for target in draft.targets]
    roots += [draft.name for draft in drafts if draft.name is not None and _is_timed(draft.state)]
    reached = reach(roots if initial is None else [initial, *roots], graph)
    first = drafts[0].name
    from_first = set() if first is None else reach([first], graph)
    return reached | from_first if initial is None or initial in from_first else reached


def _collect_targets(drafts: Sequence[StateDraft]) -> dict[str, list[str]]:
    graph: dict[str, list[str]] = {}
    for draft in drafts:
        if draft.name is not None:
            graph.setdefault(draft.name, []).extend(draft.targets)
    return graph


def _list_first(drafts: Sequence[StateDraft]) -> list[StateDraft]:
    """Return the named drafts, for each name only the first."""
    first: dict[str, StateDraft] = {}
    for draft in drafts:
        if draft.name is not None:
            first.setdefault(draft.name, draft)
    return list(first.values())
