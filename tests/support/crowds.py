"""Random charts whose states go by rosters and by who reported before, random rosters, and lives of such charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction

from hypothesis import strategies as st

from app.core.chart import Attribute, Chart, CountGuard, ElapsedGuard, Func, OnExpire, Op, SlotRule, State, Transition
from app.core.errors import StateServiceError
from app.core.expect import Expect, FromRoster, GroupLimit, Labels, Listed, Reporters, Where
from app.core.position import Claim, Goto, Pause, Position, Release, Reset, Resume, Step, Tick
from tests.core.support import NOON
from tests.support.model import Model

MACHINES = [f"m{number}" for number in range(1, 8)]
PATH = ["canary", "fleet", "backout", "done"]
ROSTERS = ["web", "db"]
SHARES = ["10%", "34%", "50%", "100%"]

labels = st.fixed_dictionaries(
    {},
    optional={
        "zone": st.sampled_from([("a",), ("b",)]),
        "rack": st.sampled_from([("r1",), ("r2",), ("r1", "r2")]),
    },
)
lines = st.dictionaries(st.sampled_from(MACHINES), labels, max_size=7)
wheres: st.SearchStrategy[Where] = st.sampled_from([(), (("zone", ("a",)),), (("zone", ("a", "b")),)])


@st.composite
def _sets(draw: st.DrawFn, before: list[str]) -> Expect | None:
    kinds = ["none", "roster", "roster", "list", *["reported"] * bool(before)]
    match draw(st.sampled_from(kinds)):
        case "roster":
            return FromRoster(draw(st.sampled_from(ROSTERS)), draw(wheres))
        case "list":
            return Listed(tuple(draw(st.lists(st.sampled_from(MACHINES), min_size=1, unique=True))))
        case "reported":
            states = draw(st.lists(st.sampled_from(before), min_size=1, unique=True))
            return Reporters(tuple(states), draw(st.sampled_from([None, None, "failed"])))
    return None


def _guard(key: str, written: str, op: Op, expect: Expect) -> CountGuard:
    share = Fraction(written[:-1]) / 100
    guard = CountGuard(key, op, 0, written, share)
    return guard.sized(expect.size) if isinstance(expect, Listed) else guard


@st.composite
def _limits(draw: st.DrawFn) -> GroupLimit:
    label = draw(st.sampled_from(["zone", "rack"]))
    if draw(st.booleans()):
        return GroupLimit(label, "1", machines=1)
    return GroupLimit(label, "50%", share=Fraction(1, 2))


@st.composite
def _rules(draw: st.DrawFn, expect: Expect) -> SlotRule:
    limits = draw(st.lists(_limits(), max_size=2, unique_by=lambda item: item.label))
    rule = SlotRule(
        stages=(0, 2),
        written=("50%", "2"),
        lease=timedelta(seconds=60),
        lease_written="60s",
        on_expire=draw(st.sampled_from(list(OnExpire))),
        shares=(Fraction(1, 2), None),
        per=tuple(limits),
    )
    return rule.sized(expect.size) if isinstance(expect, Listed) else rule


@st.composite
def crowded_charts(draw: st.DrawFn) -> Chart:
    """Draw a chart of three counting states and an end; the chart itself goes by the roster `web`."""
    common = FromRoster("web", draw(wheres))
    states = {}
    for place, name in enumerate(PATH[:-1]):
        own = draw(_sets(PATH[:place]))
        expect = own or common
        targets = [
            Transition(PATH[place + 1], _guard("count", draw(st.sampled_from(SHARES)), Op.GE, expect)),
            Transition("backout" if place < 2 else "done", _guard("failed", "34%", Op.GT, expect)),
        ]
        if draw(st.booleans()):
            targets.append(Transition(PATH[place + 1], ElapsedGuard(timedelta(seconds=300), "300s")))
        including = draw(st.lists(st.sampled_from(PATH[:place]), max_size=2, unique=True)) if place else []
        states[name] = State(
            name=name,
            func=Func.INCREMENT,
            attributes=(Attribute("count", 0), Attribute("failed", 0)),
            transitions=tuple(draw(st.permutations(targets))),
            slots=draw(_rules(expect)) if draw(st.booleans()) else None,
            expect=own,
            including=tuple(including),
        )
    return Chart(name="web", initial="canary", states={**states, "done": State(name="done")}, follows=common)


@dataclass
class CrowdedLife:
    """A model of a chart that follows rosters, and its clock."""

    model: Model
    now: datetime = NOON

    def begin(self, data: st.DataObject) -> None:
        """Write the rosters, and import the chart."""
        for name in ROSTERS:
            self.model.import_roster(name, data.draw(lines), self.now)
        self.model.import_chart(data.draw(crowded_charts()), self.now)

    def act(self, data: st.DataObject) -> Step | None:
        """Let one random thing happen after a random time; return None if it was an error."""
        self.now += timedelta(seconds=data.draw(st.sampled_from([0, 1, 1, 20, 100])))
        try:
            return self._choose(data)()
        except StateServiceError:
            return None

    def _choose(self, data: st.DataObject) -> Callable[[], Step | None]:
        model, now, here = self.model, self.now, self.model.here
        name = data.draw(st.sampled_from([*list(here.slots) * 3, *MACHINES]))
        kinds = (
            ["put"] * 6
            + ["claim"] * 6
            + ["roster"] * 3
            + ["upgrade", "reset", "goto", "goto", "pause", "tick", "release"]
        )
        match data.draw(st.sampled_from(["resume", *kinds] if here.is_paused else kinds)):
            case "put":
                key = data.draw(st.sampled_from(["count", "count", "failed"]))
                return lambda: model.put(here.state, now, name, key)
            case "claim":
                return lambda: model.do(Claim(here.state, name, again=data.draw(st.booleans())), now)
            case "release":
                return lambda: model.do(Release(here.state, name), now)
            case "roster":
                roster, new = data.draw(st.sampled_from(ROSTERS)), data.draw(lines)
                return lambda: model.import_roster(roster, new, now)
            case "upgrade":
                new_chart = data.draw(crowded_charts())
                return lambda: model.import_chart(new_chart, now)
            case "reset":
                return lambda: model.do(Reset("why"), now)
            case "goto":
                return lambda: model.do(Goto(data.draw(st.sampled_from(PATH)), "why"), now)
            case "pause":
                return lambda: model.do(Pause("why"), now)
            case "resume":
                return lambda: model.do(Resume("why"), now)
        return lambda: model.do(Tick(), now)


def roster_of(model: Model, name: str) -> Mapping[str, Labels]:
    """Return the lines of the version that the chart goes by."""
    return model.book[name][model.here.rosters[name]]


def without_reads(position: Position) -> Position:
    """Return the position without what is read from the table of reports instead of the log."""
    return replace(position, succeeded=0, holder_reports={})
