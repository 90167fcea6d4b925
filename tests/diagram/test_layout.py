"""Where states are placed, and how arrows run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.chart import Attribute, Chart, CountGuard, Func, Op, State, Transition
from app.diagram.layout import Way, lay_out
from tests.diagram.support import ROLLOUT, parsed


def test_main_path_is_straight() -> None:
    places = lay_out(parsed(ROLLOUT)).places
    main = [places[name] for name in ("canary", "fleet", "freeze", "done")]
    assert [(place.column, place.lane) for place in main] == [(0, 0), (1, 0), (2, 0), (3, 0)]


def test_failures_are_below_and_deadlines_above() -> None:
    places = lay_out(parsed(ROLLOUT)).places
    assert places["rolled_back"].lane > 0
    assert places["overdue"].lane < 0


def test_arrow_to_an_earlier_state_runs_below_everything() -> None:
    ways = {(arrow.source, arrow.target): arrow.way for arrow in lay_out(parsed(ROLLOUT)).arrows}
    assert ways["fleet", "canary"] is Way.ROUND
    assert ways["canary", "fleet"] is Way.STRAIGHT
    assert ways["canary", "rolled_back"] is Way.LANE


def test_transitions_between_two_states_share_an_arrow() -> None:
    text = ROLLOUT.replace(
        "{name: overdue, when: {key: elapsed, value: 1h}}", "{name: fleet, when: {key: elapsed, value: 1h}}"
    )
    text = text.replace("  - name: overdue\n", "")
    arrows = [arrow for arrow in lay_out(parsed(text)).arrows if arrow.target == "fleet"]
    assert [len(arrow.guards) for arrow in arrows] == [2]
    assert not arrows[0].is_clock


@st.composite
def charts(draw: st.DrawFn) -> Chart:
    """Draw any graph of counting states; a part of a chart may have states that cannot be reached."""
    count = draw(st.integers(1, 12))
    names = [f"s{number}" for number in range(count)]
    states = {}
    for name in names:
        targets = draw(st.lists(st.sampled_from(names), max_size=4))
        guards = [CountGuard("k", Op.GE, number, str(number)) for number in range(len(targets))]
        moves = tuple(Transition(target, guard) for target, guard in zip(targets, guards, strict=True))
        func = Func.INCREMENT if moves else None
        states[name] = State(name=name, func=func, attributes=(Attribute("k", 0),) if moves else (), transitions=moves)
    return Chart(name="any", initial=names[0], states=states)


@given(charts())
def test_states_do_not_share_a_place(chart: Chart) -> None:
    places = lay_out(chart).places
    assert places.keys() == chart.states.keys()
    assert len({(place.column, place.lane) for place in places.values()}) == len(places)


@given(charts())
def test_arrow_along_a_lane_does_not_cross_a_state(chart: Chart) -> None:
    layout = lay_out(chart)
    taken = {(place.column, place.lane) for place in layout.places.values()}
    for arrow in layout.arrows:
        here, there = layout.places[arrow.source], layout.places[arrow.target]
        if arrow.way is Way.LANE:
            assert all((column, there.lane) not in taken for column in range(here.column + 1, there.column))


@given(charts())
def test_every_pair_with_a_transition_has_one_arrow(chart: Chart) -> None:
    pairs = [(arrow.source, arrow.target) for arrow in lay_out(chart).arrows]
    wanted = {(name, item.target) for name, state in chart.states.items() for item in state.transitions}
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == wanted
