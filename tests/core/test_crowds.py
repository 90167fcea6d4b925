"""Who takes part: a simple oracle for random lives of charts that go by rosters, and replays of their logs."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.expect import FromRoster, Listed, Reporters
from app.core.position import Kind, Step
from app.core.replay import Replay
from tests.support.crowds import CrowdedLife, roster_of, without_reads
from tests.support.examples import examples
from tests.support.model import Model

LIVES = settings(max_examples=examples(150, few=15))


def find_members(model: Model, frozen: set[str] | None) -> set[str]:
    """Return who takes part now, by the words of the contract; `frozen` are those of a visit that looks back."""
    chart, here = model.chart, model.here
    expect = chart.states[here.state].expect or chart.follows
    match expect:
        case Listed(machines):
            return set(machines)
        case FromRoster(roster, where):
            found = set()
            for machine, labels in roster_of(model, roster).items():
                if all(set(labels.get(label, ())) & set(values) for label, values in where):
                    found.add(machine)
            return found
        case Reporters(states, key):
            words: dict[str, str | None] = {}
            for visit in model.visits:
                if visit.run == here.run and visit.visit < here.visit and visit.state in states:
                    words.update(model.reports.get((visit.run, visit.visit), {}))
            return {machine for machine, said in words.items() if key is None or said == key}
    raise AssertionError(expect)


def check(model: Model, step: Step | None) -> None:
    """Compare the model's position with what an oracle makes of its reports, rosters and slots."""
    here, state = model.here, model.chart.states[model.here.state]
    if state.is_final:
        return
    members = find_members(model, None)
    reports = model.current_reports
    assert set(reports) <= members, "a machine counts that does not take part"
    for key in ("count", "failed"):
        assert here.values[key] == sum(said == key for said in reports.values())
    is_fixed = isinstance(state.expect, Listed)
    assert here.expected == (None if is_fixed else len(members))
    if step is not None and step.entries and not here.is_paused:
        check_groups(model, members, may_be_over=any(entry.kind in OVER for entry in step.entries))


# After these a group may be over its limit: the rosters or the limits have changed under the machines at work.
OVER = {Kind.ROSTER, Kind.UPGRADE}


def check_groups(model: Model, members: set[str], *, may_be_over: bool) -> None:
    here, state = model.here, model.chart.states[model.here.state]
    assert state.slots is not None or not here.slots
    failed = {machine for machine, key in model.current_reports.items() if key == "failed"}
    if state.slots is None or not state.slots.per:
        return
    assert here.failed == failed
    roster = roster_of(model, str(model.chart.find_label_roster(state.name)))
    down = failed | set(here.slots)
    assert set(here.down.groups) == down
    for limit in state.slots.per:
        groups = {value for machine in down for value in roster.get(machine, {}).get(limit.label, ())}
        for value in groups:
            count = sum(value in roster.get(machine, {}).get(limit.label, ()) for machine in down)
            assert here.down.counts[limit.label, value] == count
            size = sum(value in roster.get(machine, {}).get(limit.label, ()) for machine in members)
            most = limit.machines or max(1, -(-size * Fraction(1, 2) // 1))
            was_over = (here.run, here.visit) in OVERFULL
            if count > most and (may_be_over or was_over):
                OVERFULL.add((here.run, here.visit))
            else:
                assert count <= most, f"{limit.label}={value}: {count} of {size} are down, {most} may be"


OVERFULL: set[tuple[int, int]] = set()


@LIVES
@given(st.data())
def test_machines_count_as_a_simple_oracle_says(data: st.DataObject) -> None:
    OVERFULL.clear()
    life = CrowdedLife(Model())
    life.begin(data)
    check(life.model, None)
    for _ in range(data.draw(st.integers(0, 30))):
        check(life.model, life.act(data))


@LIVES
@given(st.data())
def test_replay_ends_where_a_crowded_life_does(data: st.DataObject) -> None:
    life = CrowdedLife(Model())
    life.begin(data)
    for _ in range(data.draw(st.integers(0, 30))):
        life.act(data)
    model = life.model
    replay = Replay(chart_of=model.versions.__getitem__, rosters=model)
    for row in model.rows:
        replay.apply(row)
    assert replay.position is not None
    assert without_reads(replay.position) == without_reads(model.here)
    assert replay.reports == model.current_reports
