"""Hypothesis strategies for what happens to a chart; the charts are so small that most happenings have an effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from hypothesis import strategies as st

from app.core.chart import (
    Attribute,
    Chart,
    ClockGuard,
    CountGuard,
    ElapsedGuard,
    Func,
    Guard,
    OnExpire,
    Op,
    SlotRule,
    State,
    Transition,
)
from app.core.errors import StateServiceError
from app.core.position import (
    Archive,
    Claim,
    Evict,
    Goto,
    Happening,
    Pause,
    Position,
    Release,
    Reset,
    Resume,
    Step,
    Tick,
)
from tests.core.support import NOON
from tests.support.model import Model

MACHINES = ["m1", "m2", "m3", "m4"]
STATES = ["a", "b", "c", "d"]
KEYS = ["count", "failed", "x"]


@st.composite
def small_charts(draw: st.DrawFn) -> Chart:
    """Draw a chart of two to four states."""
    path = draw(st.permutations(STATES))[: draw(st.integers(2, 4))]
    states = [draw(_states(name, path, following)) for name, following in zip(path, [*path[1:], None], strict=True)]
    roster = draw(st.sampled_from([None, None, None, ("m1", "m2", "m3")]))
    return Chart(
        name="web",
        initial=path[0],
        states={state.name: state for state in states},
        expect=None if roster is None else len(roster),
        roster=roster,
        require_machine=draw(st.integers(0, 5)) == 0,
    )


@st.composite
def _states(draw: st.DrawFn, name: str, path: list[str], following: str | None) -> State:
    if following is None:
        return State(name=name)
    func = draw(st.sampled_from([Func.INCREMENT] * 4 + [Func.DECREMENT] * 2 + [Func.TIME]))
    keys = [] if func is Func.TIME else draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True))
    attributes = tuple(Attribute(key, draw(st.integers(0, 1))) for key in keys)
    targets = [following, *draw(st.lists(st.sampled_from(path), max_size=2))]
    transitions = [Transition(target, draw(_guards(attributes, func))) for target in draw(st.permutations(targets))]
    has_slots = bool(attributes) and draw(st.integers(0, 3)) == 0
    return State(
        name=name,
        func=func,
        attributes=attributes,
        transitions=tuple(transitions),
        slots=draw(_rules("failed" in keys)) if has_slots else None,
    )


@st.composite
def _guards(draw: st.DrawFn, attributes: tuple[Attribute, ...], func: Func) -> Guard:
    if not attributes or draw(st.integers(0, 5)) == 0:
        seconds = draw(st.sampled_from([10, 30, 60, 120, 30, 60, 120, 0]))
        if draw(st.booleans()):
            return ElapsedGuard(timedelta(seconds=seconds), f"{seconds}s")
        instant = NOON + timedelta(seconds=10 * seconds)
        return ClockGuard(instant, instant.isoformat())
    attribute = draw(st.sampled_from(attributes))
    # The roster has three machines, and a chart file whose threshold needs more reports would be refused.
    threshold = attribute.value + draw(st.sampled_from([3, 2, 3, 1, 3, 0])) * (1 if func is Func.INCREMENT else -1)
    op = draw(st.sampled_from([Op.EQ, Op.GE if func is Func.INCREMENT else Op.LE]))
    return CountGuard(attribute.key, op, threshold, str(threshold))


@st.composite
def _rules(draw: st.DrawFn, has_failed: bool) -> SlotRule:
    stages = tuple(draw(st.lists(st.integers(1, 2), min_size=1, max_size=2)))
    written = tuple(map(str, stages))
    if draw(st.booleans()):
        return SlotRule(stages=stages, written=written)
    seconds = draw(st.integers(1, 90))
    on_expire = draw(st.sampled_from(list(OnExpire) if has_failed else [OnExpire.HOLD, OnExpire.FREE]))
    return SlotRule(
        stages=stages,
        written=written,
        lease=timedelta(seconds=seconds),
        lease_written=f"{seconds}s",
        on_expire=on_expire,
    )


@st.composite
def successors(draw: st.DrawFn, chart: Chart, here: Position) -> Chart:
    """Draw another version of `chart`: with one state changed, usually the current one, or a new chart."""
    if draw(st.integers(0, 3)) == 0:
        return replace(draw(small_charts()), name=chart.name)
    names = list(chart.states)
    name = draw(st.sampled_from([here.state, here.state, *names]))
    following = dict(zip(names, [*names[1:], None], strict=True))[name]
    changed = draw(_states(name, names, following))
    rosters = [chart.roster, chart.roster, ("m1", "m2", "m3"), ("m2", "m3", "m4"), None]
    roster = draw(st.sampled_from(rosters))
    return replace(chart, states={**chart.states, name: changed}, roster=roster, expect=len(roster) if roster else None)


def random_homes(chart: Chart, new: Chart) -> st.SearchStrategy[dict[str, str]]:
    """Return new homes for the states of `chart` that `new` lacks, or an empty map."""
    gone = [name for name in chart.states if name not in new.states]
    home = st.sampled_from(list(new.states))
    return st.just({}) | st.fixed_dictionaries(dict.fromkeys(gone, home))


def takes_puts(model: Model) -> bool:
    """Return whether a PUT could be accepted now."""
    here, state = model.here, model.chart.states[model.here.state]
    is_full = state.slots is not None and not here.slots
    return not (model.is_archived or is_full or state.func in (None, Func.TIME))


def likely(model: Model) -> list[str]:
    """Return choices that make an act likely if a PUT would be refused, and a PUT likely otherwise."""
    return ["put"] * 5 + ["act"] if takes_puts(model) else ["act"] * 5 + ["put"]


@st.composite
def acts(draw: st.DrawFn, chart: Chart, here: Position) -> Happening:
    """Draw a happening other than a PUT and an import, usually one that makes sense at `here`."""
    if here.is_paused and draw(st.booleans()):
        return Resume("why")
    choices = ["goto", "goto", "reset", "pause", "resume", "tick"]
    if chart.states[here.state].is_final:
        choices = ["goto"] * 4 + ["reset"] * 2 + choices
    if chart.states[here.state].slots is not None:
        choices = ["claim"] * 8 + ["release", "release", "evict", *choices]
    choice = draw(st.sampled_from(choices))
    if choice == "goto":
        return Goto(draw(st.sampled_from(list(chart.states))), "why")
    if choice in SIMPLE:
        return SIMPLE[choice]
    machine = draw(_machines(here))
    state = draw(st.sampled_from([here.state] * 5 + [item.name for item in chart.states.values() if item.slots]))
    return {"claim": Claim(state, machine), "release": Release(state, machine), "evict": Evict(machine, "why")}[choice]


SIMPLE: dict[str, Happening] = {
    "reset": Reset("why"),
    "pause": Pause("why"),
    "resume": Resume("why"),
    "tick": Tick(),
}


def _machines(here: Position) -> st.SearchStrategy[str]:
    return st.sampled_from([*list(here.slots) * 6, *MACHINES])


@dataclass
class Life:
    """A model and its clock."""

    model: Model
    now: datetime = NOON

    def act(self, data: st.DataObject) -> Step | None:
        """Let one random thing happen after a random time; return None if it was an error."""
        self.now += timedelta(seconds=data.draw(st.sampled_from([0, 0, 1, 20, 100])))
        try:
            return self._choose(data)()
        except StateServiceError:
            return None

    def _choose(self, data: st.DataObject) -> Callable[[], Step]:
        model, now = self.model, self.now
        if model.is_archived:
            return lambda: model.import_chart(model.chart, now)
        choice = data.draw(st.sampled_from(likely(model) * 4 + ["upgrade"] * 3 + ["archive"]))
        if choice == "put":
            put = data.draw(puts(model.chart, model.here))
            return lambda: model.put(put.state, now, put.machine, put.key, put.idempotency_key)
        if choice == "act":
            act = data.draw(acts(model.chart, model.here))
            return lambda: model.do(act, now)
        if choice == "archive":
            return lambda: model.do(Archive("why"), now)
        new = data.draw(successors(model.chart, model.here))
        homes = data.draw(random_homes(model.chart, new))
        return lambda: model.import_chart(new, now, homes)


@dataclass(frozen=True)
class RandomPut:
    """A PUT with the fields of `app.service.put.Put`."""

    state: str
    machine: str | None
    key: str | None
    idempotency_key: str | None


@st.composite
def puts(draw: st.DrawFn, chart: Chart, here: Position) -> RandomPut:
    """Draw a PUT, usually on the current state, from one of few machines, sometimes with one of few keys."""
    state = draw(st.sampled_from([here.state] * 9 + list(chart.states) + list(here.renamed) * 3))
    keys = [item.key for item in chart.states[here.renamed.get(state, state)].attributes]
    return RandomPut(
        state,
        draw(_machines(here) if draw(st.integers(0, 3)) else st.none()),
        draw(st.none() | st.sampled_from(keys) if keys else st.none()),
        draw(st.sampled_from([None] * 8 + [f"k{number}" for number in range(8)])),
    )
