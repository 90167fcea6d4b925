"""Counting alone comes to the same as `step`: both engines of the simulation live through the same random lives."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.chart import FAILED_KEY, Chart, OnExpire, State
from app.lab.tally import StepEngine, Tally, is_plain, make_engine
from tests.core.support import NOON, canary, chart, counted, final, rolling, when
from tests.support.examples import examples
from tests.support.happenings import MACHINES, small_charts

SECOND = 1_000_000


def stand(engine: Tally | StepEngine) -> tuple[object, ...]:
    if isinstance(engine, Tally):
        values, held, succeeded = (
            engine.values,
            {name: item[1] for name, item in engine.held.items()},
            engine._succeeded,
        )
    else:
        here = engine._world.position
        values, succeeded = dict(here.values), here.succeeded
        held = {name: slot.fence for name, slot in here.slots.items()}
    return engine.state, engine.visit, engine.due, engine.left_down, engine.has_room(), values, held, succeeded


@settings(max_examples=examples(60, few=20), deadline=None)
@given(definition=small_charts(), data=st.data())
def test_tally_stands_where_step_stands(definition: Chart, data: st.DataObject) -> None:
    assert is_plain(definition)
    tally, engine, now = Tally(definition, NOON), StepEngine(definition, NOON), 0
    for _ in range(25):
        if engine.visit > 90:
            # Its clock goes round in a circle.
            return
        assert stand(tally) == stand(engine)
        now += data.draw(st.sampled_from([0, 0, 1, 10, 45, 100])) * SECOND
        if engine.due is not None and engine.due < now:
            now = engine.due
        machine = data.draw(st.sampled_from(MACHINES))
        state = data.draw(st.sampled_from([engine.state] * 4 + list(definition.states)))
        keys = [item.key for item in definition.states[state].attributes]
        choice = data.draw(st.sampled_from(["claim", "claim", "report", "report", "report", "tick"]))
        if choice == "claim" and definition.states[engine.state].slots is not None:
            assert tally.claim(machine, now) == engine.claim(machine, now)
        elif choice == "report" and keys:
            key = data.draw(st.sampled_from(keys))
            found = tally.report(machine, state, key, now), engine.report(machine, state, key, now)
            # `step` knows the reports of earlier visits, too: repeating one is a yes that changes nothing.
            assert found[0] == found[1] or state != tally.state or tally.visit != engine.visit
        else:
            tally.tick(now)
            engine.tick(now)


def test_down_are_the_holders_and_the_failed_when_the_state_is_left() -> None:
    for engine in (Tally(rolling(3), NOON), StepEngine(rolling(3), NOON)):
        for name in ("m1", "m2", "m3"):
            assert engine.claim(name, 0)
        engine.report("m1", "reboot", FAILED_KEY, 1)
        assert engine.claim("m1", 2)
        engine.report("m2", "reboot", FAILED_KEY, 3)
        assert (engine.state, engine.left_down) == ("halted", 3)


def test_machine_that_says_more_after_the_state_was_left_was_down_when_it_was() -> None:
    definition = rolling(2, lease=1, on_expire=OnExpire.FAIL)
    for engine in (Tally(definition, NOON), StepEngine(definition, NOON)):
        for name in ("m1", "m2"):
            assert engine.claim(name, 0)
        # Both leases have ended, and the chart has moved, before this report.
        engine.report("m1", "reboot", "count", SECOND)
        assert (engine.state, engine.left_down) == ("halted", 2)


def test_chart_with_anything_else_is_left_to_step() -> None:
    assert isinstance(make_engine(canary(), NOON), Tally)
    one = canary().states["canary"]
    other = replace(one, reported=(("count", ("m1",)),))
    changed = chart(other, final("rollback"), final("done"))
    assert isinstance(make_engine(changed, NOON), StepEngine)
    assert isinstance(counted("x", when("done", "count", 1)), State)
