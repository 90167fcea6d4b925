"""Warnings about charts that can be read, but probably do not do what their author means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.chart_file.nodes import Place, Problems, quote
from app.core.chart import FAILED_KEY, Chart, CountGuard, Func, State
from app.core.counts import UNLIMITED, Budget, Counts, TooManyCountsError
from app.core.expect import FromRoster
from app.core.plan import list_planned
from app.core.proof import list_clock_moves

# What the check may cost: it runs at each import.
BUDGET = 100_000


def warn_of_meaning(chart: Chart, places: Mapping[str, Place], warnings: Problems) -> None:
    """Note what each state probably does not mean."""
    for name, message in _judge_twice(chart):
        warnings.add(places[name], message)
    if chart.looks_up:
        # The thresholds depend on who is on a roster.
        return
    budget = Budget(BUDGET)
    for name, state in chart.states.items():
        if state.is_final:
            continue
        try:
            counts = Counts(state, UNLIMITED if chart.expect is None else chart.expect, budget)
        except TooManyCountsError:
            return
        for message in (*_judge_slots(chart, state), *_judge_failures(chart, state, counts), *_judge_guards(counts)):
            warnings.add(places[name], message)


def _judge_twice(chart: Chart) -> Iterator[tuple[str, str]]:
    """Yield the states in which machines that are done in an earlier state must do the work again.

    Charts that go by rosters know their machines by name, and each state says whose turn it is.
    """
    if not chart.rosters:
        return
    for name, state in chart.states.items():
        expect = chart.expect_of(name)
        if not state.is_counting or state.approvers is not None or not isinstance(expect, FromRoster):
            continue
        for earlier, before in chart.states.items():
            own = chart.expect_of(earlier)
            if not isinstance(own, FromRoster) or not before.is_counting or before.approvers is not None:
                continue
            is_before = earlier != name and chart.can_reach(earlier, name) and not chart.can_reach(name, earlier)
            if is_before and _overlap(own, expect) and earlier not in _list_carried(chart, name):
                again = f"are asked to do the work again in {quote(name)}: 'including: [{earlier}]' counts them there"
                yield name, f"machines that are done in {quote(earlier)} {again}"
                break


def _overlap(one: FromRoster, other: FromRoster) -> bool:
    """Return whether a machine may be in both sets, as far as the labels that both name tell."""
    if one.roster != other.roster:
        return False
    values = dict(other.where)
    return all(not set(wanted).isdisjoint(values.get(label, wanted)) for label, wanted in one.where)


def _list_carried(chart: Chart, name: str) -> set[str]:
    """Return the states whose machines are counted on entry to a state, also by way of another state."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        more = set(chart.states[ahead.pop()].including) - found
        found |= more
        ahead += more
    return found


def _judge_slots(chart: Chart, state: State) -> Iterator[str]:
    if state.slots is not None:
        if chart.expect is not None and min(state.slots.stages) >= chart.expect:
            yield (
                f"the slots of {quote(state.name)} never bind: there are {min(state.slots.stages)},"
                f" and {chart.expect} machines take part"
            )
    elif state.is_counting and state.approvers is None and chart.expect is not None:
        for item in state.transitions:
            guard = item.guard
            if _counts_to(guard, state, chart.expect) and chart.states[item.target].is_counting:
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


def _judge_failures(chart: Chart, state: State, counts: Counts) -> Iterator[str]:
    if not state.has_attribute(FAILED_KEY):
        return
    if state.default_key == FAILED_KEY and len(state.attributes) > 1:
        yield (
            f"a plain PUT on {quote(state.name)} counts a failure, because its first attribute is 'failed';"
            " put the attribute that counts success first"
        )
    if not any(item.guard.key == FAILED_KEY for item in state.transitions):
        yield f"no guard of {quote(state.name)} reads 'failed': failures are counted, and nothing comes of it"
    if chart.expect is not None and state.default_key != FAILED_KEY and _needs_everyone(state, counts, chart.expect):
        yield (
            f"one failure that lasts leaves no way out of {quote(state.name)}:"
            " every machine must succeed, and no deadline ends it"
        )


def _needs_everyone(state: State, counts: Counts, machines: int) -> bool:
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
