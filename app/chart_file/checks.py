"""Checks of a chart as a whole: the paths between its states, the warnings, and what it promises.

A chart that can break a promise (`never`, `always`) is refused. Warnings are about charts that can be read, but
probably do not do what their author means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.chart_file.fields import (
    ScalarError,
    Scope,
    expect_type,
    list_nodes,
    read_map,
    read_scalar,
    to_age,
)
from app.chart_file.nodes import MapNode, Node, Place, Problems, ScalarNode, quote
from app.core.breaking import Broken, check_promises
from app.core.chart import FAILED_KEY, Chart, CountGuard, Func, State
from app.core.counts import UNLIMITED, Budget, Counts, TooManyCountsError
from app.core.expect import Expect, FromRoster, Listed, Reporters
from app.core.memory import Lists, find_uncovered
from app.core.plan import list_planned
from app.core.promises import LIMIT, MEASURES, Always, Never, Promises
from app.core.proof import list_clock_moves


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


# Warnings of meaning

# What the check may cost: it runs at each import.
BUDGET = 100_000
# Stands for the number of machines that take part if a roster or earlier reports will say it.
MANY = 1_000_000


def warn_of_meaning(chart: Chart, places: Mapping[str, Place], warnings: Problems) -> None:
    """Note what each state probably does not mean, as far as that can be found out in a moment."""
    for judge in (_judge_twice, _judge_states):
        with suppress(TooManyCountsError):
            for name, message in judge(chart, Budget(BUDGET)):
                warnings.add(places[name], message)


def _judge_states(chart: Chart, budget: Budget) -> Iterator[tuple[str, str]]:
    for name, state in chart.states.items():
        if not state.is_final:
            yield from ((name, message) for message in _judge_state(chart, state, budget))


def _judge_state(chart: Chart, state: State, budget: Budget) -> Iterator[str]:
    expect = chart.expect_of(state.name)
    if expect is None or expect.is_fixed:
        machines = None if expect is None else expect.size
        counts = Counts(state, UNLIMITED if machines is None else machines, budget)
        guards = counts
    else:
        # How many machines take part is not known here. What is said of percentages holds of any large number, and
        # which guard comes first is said only of those that are numbers.
        machines = MANY
        counts = Counts(state.sized(MANY), MANY, budget)
        numbers = tuple(move for move in state.transitions if move.guard.is_clock or move.guard.share is None)
        guards = Counts(replace(state, transitions=numbers), UNLIMITED, budget)
    yield from _judge_slots(chart, counts.state, machines)
    # Machines that back out may fail at that; a person decides when the time is up.
    is_backing_out = isinstance(expect, Reporters)
    yield from _judge_failures(counts.state, counts, machines, is_backing_out=is_backing_out)
    yield from _judge_guards(guards)


def _judge_twice(chart: Chart, budget: Budget) -> Iterator[tuple[str, str]]:
    """Yield the states in which machines that are done in an earlier state must do the work again.

    Only of charts that know their machines by name. Each state for machines of a roster says whose turn it is; a list
    is every state's, so a state for all of its machines is taken to be for other work.
    """
    for name, state in chart.states.items():
        expect = chart.expect_of(name)
        if not state.is_for_machines or not isinstance(expect, FromRoster | Listed):
            continue
        for earlier, before in chart.states.items():
            budget.spend()
            own = chart.expect_of(earlier)
            if not before.is_for_machines:
                continue
            is_before = earlier != name and chart.can_reach(earlier, name) and not chart.can_reach(name, earlier)
            if is_before and _overlap(own, before, expect) and earlier not in _list_carried(chart, name):
                again = f"are asked to do the work again in {quote(name)}: 'including: [{earlier}]' counts them there"
                yield name, f"machines that are done in {quote(earlier)} {again}"
                break


def _overlap(own: Expect | None, before: State, expect: FromRoster | Listed) -> bool:
    """Return whether a machine of the set `own`, that of the state `before`, may be in the later set `expect`, too."""
    if isinstance(own, Listed) and isinstance(expect, Listed):
        is_for_some = any(_counts_to(item.guard, before, own.size) for item in before.transitions)
        return is_for_some and not set(own.machines).isdisjoint(expect.machines)
    if not isinstance(own, FromRoster) or not isinstance(expect, FromRoster) or own.roster != expect.roster:
        return False
    # As far as the labels that both name tell.
    values = dict(expect.where)
    return all(not set(wanted).isdisjoint(values.get(label, wanted)) for label, wanted in own.where)


def _list_carried(chart: Chart, name: str) -> set[str]:
    """Return the states whose machines are counted on entry to a state, also by way of another state."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        more = set(chart.states[ahead.pop()].including) - found
        found |= more
        ahead += more
    return found


def _judge_slots(chart: Chart, state: State, machines: int | None) -> Iterator[str]:
    if machines is None:
        return
    if state.slots is not None:
        if min(state.slots.stages) >= machines:
            few = f"there are {min(state.slots.stages)}, and {machines} machines take part"
            many = "there are as many as machines that take part"
            yield f"the slots of {quote(state.name)} never bind: {many if machines == MANY else few}"
    elif state.is_for_machines:
        for item in state.transitions:
            guard = item.guard
            if _counts_to(guard, state, machines) and _is_for_more(chart, state.name, item.target):
                yield (
                    f"{quote(guard.log_text)} does not keep {quote(state.name)} to {guard.written} machines:"
                    " all that ask before so many have reported may act; 'slots' limits how many do at a time"
                )
                return


def _counts_to(guard: object, state: State, machines: int) -> bool:
    """Return whether the guard waits for a number of machines that is written as such, and is not all of them."""
    if not isinstance(guard, CountGuard) or guard.written.endswith("%") or guard.key != state.default_key:
        return False
    return guard.key != FAILED_KEY and state.func is Func.INCREMENT and 1 < guard.threshold < machines


def _is_for_more(chart: Chart, name: str, target: str) -> bool:
    """Return whether machines work in `target`, too; a set of unknown size must be that of `name`."""
    own = chart.expect_of(name)
    is_known = own is None or own.is_fixed or own == chart.expect_of(target)
    return is_known and chart.states[target].is_counting


def _judge_failures(state: State, counts: Counts, machines: int | None, *, is_backing_out: bool) -> Iterator[str]:
    if not state.has_attribute(FAILED_KEY):
        return
    if state.default_key == FAILED_KEY:
        is_alone = len(state.attributes) == 1
        yield (
            f"a plain PUT on {quote(state.name)} counts a failure, because its first attribute is 'failed';"
            f" put {'an' if is_alone else 'the'} attribute that counts success first"
        )
    if not is_backing_out and not any(item.guard.key == FAILED_KEY for item in state.transitions):
        yield f"no guard of {quote(state.name)} reads 'failed': failures are counted, and nothing comes of it"
    if machines is not None and state.default_key != FAILED_KEY and _needs_everyone(state, counts):
        yield (
            f"one failure that lasts leaves no way out of {quote(state.name)}:"
            " every machine must succeed, and no deadline ends it"
        )


def _needs_everyone(state: State, counts: Counts) -> bool:
    """Return whether one machine that fails for good keeps the state from ever being left."""
    if list_clock_moves(state)[0] or counts.find_most(FAILED_KEY) < 1:
        return False
    planned = {item.guard for item in list_planned(state)}
    ends = [end for end in counts.exits if FAILED_KEY not in (end.key, end.moved_from)]
    is_planned = any(state.transitions[end.move].guard in planned for end in ends)
    return is_planned and all(counts.find_spare(end, FAILED_KEY) == 0 for end in ends if _can_happen(counts, end.move))


def _can_happen(counts: Counts, move: int) -> bool:
    return counts.find_shortest(move) is not None


def _judge_guards(counts: Counts) -> Iterator[str]:
    """Yield the transitions that another one always comes before."""
    state = counts.state
    clock, is_passed_through = list_clock_moves(state)
    taken = {end.move for end in counts.exits} | clock
    for number, item in enumerate(state.transitions):
        if number in taken or is_passed_through:
            continue
        what = f"the transition to {quote(item.target)} at {quote(item.guard.log_text)} is never taken"
        if item.guard.is_clock:
            yield f"{what}: a deadline that is listed before it comes first"
            continue
        other = next((end.move for end in counts.exits if end.key == item.guard.key), None)
        if other is not None:
            nearer = state.transitions[other]
            yield f"{what}: {quote(nearer.guard.log_text)} holds before, and leads to {quote(nearer.target)}"


# Promises

PROMISE_KEYS = ("never", "always")
PLACES = ("while", "at")
CHECKED_LATER = (
    "this promise is checked when the rosters are known: with --roster here, at the import, and when a roster changes"
)
NEVER_KEYS = (*MEASURES, *PLACES)
ALWAYS_KEYS = ("ends", "within")


@dataclass(slots=True)
class PromiseNodes:
    """The promises of a chart file, each with its place in the file."""

    never: list[tuple[Never, Node]] = field(default_factory=list)
    always: list[tuple[Always, Node]] = field(default_factory=list)

    @property
    def promises(self) -> Promises:
        """The promises alone."""
        return Promises(tuple(one for one, _ in self.never), tuple(one for one, _ in self.always))

    def find_place(self, promise: Never | Always) -> Node:
        """Return where the promise stands in the file."""
        return next(node for one, node in (*self.never, *self.always) if one is promise)


def read_promises(fields: MapNode, states: Mapping[str, State], scope: Scope) -> PromiseNodes:
    """Return the promises that can be read; problems are noted in `scope`."""
    found = PromiseNodes()
    for node in list_nodes(fields.find("never")):
        never = _read_never(node, states, scope)
        if never is not None:
            found.never.append((never, node))
    for node in list_nodes(fields.find("always")):
        always = _read_always(node, states, scope)
        if always is not None:
            found.always.append((always, node))
    return found


def _read_never(node: Node, states: Mapping[str, State], scope: Scope) -> Never | None:
    fields = read_map(node, "a promise of 'never'", NEVER_KEYS, (), scope.problems)
    if fields is None:
        return None
    measure, place = _find_one(fields, MEASURES, scope.problems), _find_one(fields, PLACES, scope.problems)
    if measure is None or place is None:
        return None
    limit = fields.find(measure)
    written = read_scalar(limit, measure, _to_limit, scope.problems)
    name = _read_state(fields.find(place), place, states, scope)
    if written is None or name is None or limit is None:
        return None
    never = Never(measure, written, place, name)
    is_sized = scope.expect.machines is not None or scope.expect.is_looked_up or scope.expect.is_unreadable
    if never.is_share and not is_sized:
        scope.problems.add(limit, f"{measure}: {quote(written)} is a percentage, but the chart has no 'expect'")
        return None
    if never.is_while and states[name].is_final:
        scope.problems.add(
            fields.entries[place][1], f"while: {quote(name)} is final, so nothing happens in it; say 'at'"
        )
        return None
    return never


def _find_one(fields: MapNode, words: tuple[str, ...], problems: Problems) -> str | None:
    given = [word for word in words if fields.find(word) is not None]
    if len(given) == 1:
        return given[0]
    problems.add(fields, f"a promise of 'never' needs {' or '.join(map(repr, words))}{', not both' if given else ''}")
    return None


def _to_limit(text: str) -> str:
    if not LIMIT.fullmatch(text):
        raise ScalarError(f"{quote(text)} is not a limit such as '>5', '>=6' or '>2%'")
    return text


def _read_state(node: Node | None, what: str, states: Mapping[str, State], scope: Scope) -> str | None:
    name = read_scalar(node, what, str, scope.problems)
    if name is None or name in states:
        return name
    if isinstance(node, ScalarNode):
        meant = scope.problems.find_nearest(name, states.keys())
        hint = "" if meant is None else f" (did you mean {quote(meant)}?)"
        scope.problems.add(node, f"{what} {quote(name)} is not a state of this chart{hint}")
    return None


def _read_always(node: Node, states: Mapping[str, State], scope: Scope) -> Always | None:
    fields = read_map(node, "a promise of 'always'", ALWAYS_KEYS, ("ends",), scope.problems)
    if fields is None:
        return None
    ends = [_read_ending(item, states, scope) for item in list_nodes(fields.find("ends"))]
    within = fields.find("within")
    length = read_scalar(within, "within", _to_length, scope.problems)
    if "ends" in fields.entries and not ends:
        expect_type(fields.entries["ends"][1], "ends", "a final state, or a list of them", scope.problems)
    if not ends or None in ends or (within is not None and length is None):
        return None
    written = within.text if isinstance(within, ScalarNode) else None
    return Always(tuple(name for name in ends if name is not None), length, written)


def _read_ending(node: Node, states: Mapping[str, State], scope: Scope) -> str | None:
    name = _read_state(node, "ends", states, scope)
    if name is None or states[name].is_final:
        return name
    scope.problems.add(node, f"ends: {quote(name)} is not a final state")
    return None


def _to_length(text: str) -> timedelta:
    age = to_age(text)
    if not age:
        raise ScalarError(f"{quote(text)} is not longer than zero")
    return age


def hold_to_promises(
    chart: Chart,
    found: PromiseNodes,
    problems: Problems,
    warnings: Problems,
    *,
    now: datetime | None = None,
    rosters: Lists | None = None,
) -> None:
    """Note each promise that the chart can break, with the story that breaks it; doubts are warnings.

    A chart that goes by rosters is judged if `rosters` has the lines of all. Else a warning says when it will be.
    """
    if not chart.promises:
        return
    if not set(chart.rosters).issubset(rosters or ()):
        for place in (node for _, node in (*found.never, *found.always)):
            warnings.add_at(place.line, place.column, CHECKED_LATER)
        return
    uncovered = find_uncovered(chart, rosters)
    if uncovered is not None:
        promises: list[Never | Always] = [*chart.promises.never, *chart.promises.always]
        for place in map(found.find_place, promises):
            why = f"a promise cannot be proved of a chart that {uncovered}; leave the promise out"
            problems.add_at(place.line, place.column, why)
        return
    checked = check_promises(chart, now, rosters)
    for broken in checked.broken:
        _note(broken, found, problems)
    for broken in checked.doubtful:
        _note(broken, found, warnings)


def keeps_promises(chart: Chart, now: datetime, rosters: Lists) -> bool:
    """Return whether `hold_to_promises` has no problem to note; the places in the file are not needed for that."""
    if not chart.promises:
        return True
    return find_uncovered(chart, rosters) is None and not check_promises(chart, now, rosters).broken


def _note(broken: Broken, found: PromiseNodes, problems: Problems) -> None:
    place = found.find_place(broken.promise)
    problems.add_at(place.line, place.column, broken.because, broken.story)
