"""Random lives: charts small enough that most of what happens matters, and whatever may happen to one."""

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
from app.core.position import Archive, Claim, Evict, Goto, Happening, Pause, Release, Reset, Resume, Step, Tick
from tests.core.support import NOON
from tests.support.model import Model

MACHINES = ["m1", "m2", "m3"]
STATES = ["a", "b", "c", "d"]
KEYS = ["count", "failed", "x"]


@st.composite
def small_charts(draw: st.DrawFn) -> Chart:
    """A chart of two to four states that a handful of machines moves about."""
    path = draw(st.permutations(STATES))[: draw(st.integers(2, 4))]
    states = [draw(_states(name, path, following)) for name, following in zip(path, [*path[1:], None], strict=True)]
    roster = draw(st.none() | st.just(("m1", "m2")))
    return Chart(
        "web",
        path[0],
        {state.name: state for state in states},
        expect=None if roster is None else len(roster),
        roster=roster,
        require_machine=draw(st.integers(0, 5)) == 0,
    )


@st.composite
def _states(draw: st.DrawFn, name: str, path: list[str], following: str | None) -> State:
    if following is None:
        return State(name)
    func = draw(st.sampled_from([Func.INCREMENT, Func.INCREMENT, Func.DECREMENT, Func.TIME]))
    keys = [] if func is Func.TIME else draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True))
    attributes = tuple(Attribute(key, draw(st.integers(0, 1))) for key in keys)
    targets = [following, *draw(st.lists(st.sampled_from(path), max_size=2))]
    transitions = [Transition(target, draw(_guards(attributes, func))) for target in targets]
    slots = draw(st.none() | _rules("failed" in keys)) if attributes else None
    return State(name, func, attributes, tuple(transitions), slots)


@st.composite
def _guards(draw: st.DrawFn, attributes: tuple[Attribute, ...], func: Func) -> Guard:
    if not attributes or draw(st.integers(0, 3)) == 0:
        seconds = draw(st.integers(0, 120))
        if draw(st.booleans()):
            return ElapsedGuard(timedelta(seconds=seconds), f"{seconds}s")
        instant = NOON + timedelta(seconds=10 * seconds)
        return ClockGuard(instant, instant.isoformat())
    attribute = draw(st.sampled_from(attributes))
    # At most as many reports as the shortest roster has machines, or the chart file would be refused.
    threshold = attribute.value + draw(st.integers(0, 2)) * (1 if func is Func.INCREMENT else -1)
    op = draw(st.sampled_from([Op.EQ, Op.GE if func is Func.INCREMENT else Op.LE]))
    return CountGuard(attribute.key, op, threshold, str(threshold))


@st.composite
def _rules(draw: st.DrawFn, has_failed: bool) -> SlotRule:
    stages = tuple(draw(st.lists(st.integers(1, 2), min_size=1, max_size=2)))
    written = tuple(map(str, stages))
    if draw(st.booleans()):
        return SlotRule(stages, written)
    seconds = draw(st.integers(1, 90))
    on_expire = draw(st.sampled_from(list(OnExpire) if has_failed else [OnExpire.HOLD, OnExpire.FREE]))
    return SlotRule(stages, written, timedelta(seconds=seconds), f"{seconds}s", on_expire)


@st.composite
def successors(draw: st.DrawFn, chart: Chart) -> Chart:
    """Another version of `chart`: a state or two of it changed, or another chart altogether."""
    other = draw(small_charts())
    if draw(st.integers(0, 3)) == 0:
        return replace(other, name=chart.name)
    names = list(chart.states)
    name = draw(st.sampled_from(names))
    following = dict(zip(names, [*names[1:], None], strict=True))[name]
    changed = draw(_states(name, names, following))
    return replace(chart, states={**chart.states, name: changed})


def random_homes(chart: Chart, new: Chart) -> st.SearchStrategy[dict[str, str]]:
    """New homes for states of `chart` that `new` lacks; or none."""
    gone = [name for name in chart.states if name not in new.states]
    home = st.sampled_from(list(new.states))
    return st.just({}) | st.fixed_dictionaries(dict.fromkeys(gone, home))


def acts(chart: Chart) -> st.SearchStrategy[Happening]:
    """Whatever may happen to `chart` besides a PUT and an import."""
    state, machine = st.sampled_from(list(chart.states)), st.sampled_from(MACHINES)
    slotted = [item.name for item in chart.states.values() if item.slots is not None]
    claims = [st.builds(Claim, st.sampled_from(slotted), machine)] * 3 if slotted else []
    releases = [st.builds(Release, st.sampled_from(slotted), machine), st.builds(Evict, machine, st.just("why"))]
    return st.one_of(
        st.just(Tick()),
        st.just(Pause("why")),
        st.just(Resume("why")),
        st.just(Reset("why")),
        st.builds(Goto, state, st.just("why")),
        *claims,
        *(releases if slotted else []),
    )


@dataclass
class Life:
    """A model and the clock that it lives by."""

    model: Model
    now: datetime = NOON

    def act(self, data: st.DataObject) -> Step | None:
        """Let one random thing happen, after a random time; None where it was an error."""
        self.now += timedelta(seconds=data.draw(st.sampled_from([0, 0, 1, 20, 100])))
        try:
            return self._choose(data)()
        except StateServiceError:
            return None

    def _choose(self, data: st.DataObject) -> Callable[[], Step]:
        model, now = self.model, self.now
        if model.is_archived:
            return lambda: model.import_chart(model.chart, now)
        choice = data.draw(st.sampled_from(["put"] * 6 + ["act"] * 4 + ["upgrade", "archive"]))
        if choice == "put":
            put = data.draw(puts(model.chart, model.here.state))
            return lambda: model.put(put.state, now, put.machine, put.key, put.idempotency_key)
        if choice == "act":
            act = data.draw(acts(model.chart))
            return lambda: model.do(act, now)
        if choice == "archive":
            return lambda: model.do(Archive("why"), now)
        new = data.draw(successors(model.chart))
        homes = data.draw(random_homes(model.chart, new))
        return lambda: model.import_chart(new, now, homes)


@dataclass(frozen=True)
class RandomPut:
    """A PUT as `service.update.Put` has it."""

    state: str
    machine: str | None
    key: str | None
    idempotency_key: str | None


@st.composite
def puts(draw: st.DrawFn, chart: Chart, current: str) -> RandomPut:
    """A PUT, most often on the current state, by one of few machines, with one of few keys."""
    state = draw(st.sampled_from([current] * 4 + list(chart.states)))
    keys = [item.key for item in chart.states[state].attributes]
    return RandomPut(
        state,
        draw(st.sampled_from([*MACHINES, None])),
        draw(st.none() | st.sampled_from(keys) if keys else st.none()),
        draw(st.sampled_from([None, None, None, "k1", "k2", "k3"])),
    )
