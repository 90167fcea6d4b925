"""The rules of the simplest charts as a program, compared with the core on random charts and random requests.

GET S is yes if and only if S is the current state.
PUT S is yes if and only if S is the current state and not the last; it counts, and where the count is reached,
the next state is the current one.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from app.core.chart import Attribute, Chart, CountGuard, Func, Op, State, Transition
from app.core.position import Verdict
from tests.core.support import NOON
from tests.support.model import Model


@dataclass
class Line:
    """The states of a chart in a line: for each but the last, whether it counts up, its start and its goal."""

    steps: list[tuple[bool, int, int]]
    place: int = 0
    value: int | None = None

    def get(self, place: int) -> bool:
        return place == self.place

    def put(self, place: int) -> bool:
        if place != self.place or place == len(self.steps):
            return False
        up, start, goal = self.steps[place]
        value = (start if self.value is None else self.value) + (1 if up else -1)
        is_reached = value >= goal if up else value <= goal
        self.place, self.value = (place + 1, None) if is_reached else (place, value)
        return True


@st.composite
def steps(draw: st.DrawFn) -> tuple[bool, int, int]:
    """Return a direction, a start, and a goal, which is usually ahead of the start and sometimes behind it."""
    up, start, distance = draw(st.booleans()), draw(st.integers(-5, 5)), draw(st.integers(-1, 4))
    return up, start, start + distance if up else start - distance


def linear_chart(line: Line) -> Chart:
    states = [counting(place, *step) for place, step in enumerate(line.steps)]
    return Chart(
        name="web", initial="s0", states={state.name: state for state in [*states, State(name=f"s{len(states)}")]}
    )


def counting(place: int, up: bool, start: int, goal: int) -> State:
    func, op = (Func.INCREMENT, Op.GE) if up else (Func.DECREMENT, Op.LE)
    move = Transition(f"s{place + 1}", CountGuard("count", op, goal, str(goal)))
    return State(name=f"s{place}", func=func, attributes=(Attribute("count", start),), transitions=(move,))


@given(st.lists(steps(), max_size=5), st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=60))
def test_core_answers_as_the_seed_says(line_steps: list[tuple[bool, int, int]], asked: list[tuple[bool, int]]) -> None:
    line = Line(line_steps)
    made = Model()
    made.import_chart(linear_chart(line), NOON)
    for is_put, place in asked:
        # Half of all questions are about the current state, or random ones would rarely get anywhere.
        place = line.place if place > 3 else place
        if is_put:
            assert (made.put(f"s{place}", NOON).verdict is Verdict.ACCEPTED) is line.put(place)
        assert (made.here.state == f"s{place}") is line.get(place)


@given(st.lists(steps(), min_size=1, max_size=5))
def test_core_reaches_the_last_state_in_as_many_puts_as_the_seed(line_steps: list[tuple[bool, int, int]]) -> None:
    line = Line(line_steps)
    made = Model()
    made.import_chart(linear_chart(line), NOON)
    while line.place < len(line_steps):
        place = line.place
        assert line.put(place)
        assert made.put(f"s{place}", NOON).verdict is Verdict.ACCEPTED
    assert made.here.state == f"s{len(line_steps)}"
    assert made.put(made.here.state, NOON).verdict is Verdict.REFUSED
