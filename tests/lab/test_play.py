"""Playing stories: the first difference and its place, what was covered, and that the core alone decides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.chart_file import parse
from app.core.chart import Attribute, Chart, Func, State
from app.core.errors import StateServiceError
from app.core.position import Archive, Claim, Goto, Kind, Reason, Step
from app.lab.play import Result, play
from app.lab.story import read_story
from app.lab.world import World
from tests.core.support import NOON
from tests.lab.test_story import load
from tests.support.apps import ROOT
from tests.support.examples import examples
from tests.support.happenings import acts, puts, random_homes, small_charts, successors
from tests.support.model import Model

STORIES = sorted((ROOT / "charts" / "stories").glob("*.yaml"))


def played(*steps: str, more: str = "") -> Result:
    lines = "".join(f"      - {step}\n" for step in steps)
    return play(read_story(f"chart: web.yaml\nstory:\n  - name: x\n    steps:\n{lines}{more}", load))


def difference(*steps: str, more: str = "") -> str | None:
    found = played(*steps, more=more).first_difference
    return None if found is None else f"{found.line}:{found.column}: {found.message}"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.name)
def test_sample_does_what_its_stories_say(path: Path) -> None:
    result = play(read_story(path.read_bytes(), lambda name: (path.parent / name).read_bytes()))
    assert [tale for tale in result.tales if tale.difference is not None] == []
    assert (result.coverage.states_left, result.coverage.transitions_left) == ([], [])


def test_every_sample_has_stories() -> None:
    assert {path.name.removesuffix(".story.yaml") for path in STORIES} == {
        path.stem for path in (ROOT / "charts").glob("*.yaml")
    }


WORK = ("work: {machine: [m1, m2]}", "claim: {machine: m3}")


def test_story_as_expected_differs_in_nothing() -> None:
    assert difference(*WORK, "expect: {state: reboot, values: {count: 2}, held: [m3], visit: 1, run: 1}") is None


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("put: {machine: m4}", "7:9: m4 was answered no_slot, expected a yes"),
        ("{put: {machine: m3}, answer: updated}", "7:9: m3 was answered transitioned, expected updated"),
        ("{claim: {machine: [m4, m5]}, answer: full}", "7:9: m4 was answered updated, expected full"),
        ("{claim: {machine: [m4, m5]}, answer: updated}", "7:9: m5 was answered full, expected updated"),
        ("{put: {machine: m3}, answer: error}", "7:9: m3 was answered transitioned, expected error"),
        ("{pause: why, answer: error}", "7:9: it was done, expected an error"),
        ("put: {machine: m3, key: nonsense}", "7:9: state 'reboot' has no attribute 'nonsense'"),
        ("resume: why", "7:9: chart 'web' is not paused"),
        ("expect: {state: done}", "7:25: state is reboot, expected done"),
        ("expect: {values: {count: 3, failed: 0}}", "7:26: count is 2, expected 3"),
        ("expect: {held: 2}", "7:24: held is 1, expected 2"),
        ("expect: {held: [m4]}", "7:24: slots are held by m3, expected m4"),
        ("expect: {paused: true}", "7:26: paused is False, expected True"),
    ],
)
def test_first_difference_is_told_at_its_place(step: str, message: str) -> None:
    assert difference(*WORK, step, "expect: {state: done}") == message


def test_error_that_is_expected_is_no_difference() -> None:
    assert difference("{resume: why, answer: error}", "expect: {state: reboot}") is None


def test_state_that_must_never_be_entered_is_a_difference() -> None:
    message = "5:9: the chart entered 'halted', which the story says never happens"
    assert difference("work: {machine: m1, key: failed}", more="never: [halted]") == message
    assert difference("work: {machine: m1}", more="never: [halted]") is None


def test_each_tale_begins_anew_and_covers_its_part() -> None:
    tale = "  - {name: y, steps: [{work: {machine: [m1, m2, m3]}}]}\n"
    result = played("work: {machine: m1, key: failed}", more=tale)
    assert result.first_difference is None
    assert (result.coverage.states_left, result.coverage.transitions_left) == ([], [])
    one = played("work: {machine: m1, key: failed}").coverage
    assert one.states_left == ["done"]
    assert [(name, item.target) for name, item in one.transitions_left] == [("reboot", "done")]
    assert "not done\n" in one.as_text()
    assert "    reboot -> done: count ≥ 3\n" in one.as_text()


def test_upgrade_takes_over_in_a_story() -> None:
    assert difference("work: {machine: m1}", "upgrade: web.yaml", "expect: {version: 2, values: {count: 1}}") is None


def test_upgrade_takes_the_new_homes_that_an_import_takes() -> None:
    said = "5:9: map 'reboot:done': the new version still has the state 'reboot'"
    assert difference("{upgrade: {file: web.yaml, map: ['reboot:done']}}") == said


TWO_STEPS = b"""\
chart: web
current_state: canary
expect: [m1, m2]
states:
- name: canary
  func: increment
  current: [{key: count, value: 0}, {key: failed, value: 0}]
  target: {name: rest, when: {key: count, value: 1}}
- name: rest
  func: increment
  expect: {reported: [canary]}
  current: [{key: count, value: 0}, {key: failed, value: 0}]
  target: {name: done, when: {key: count, value: 1}}
- name: done
"""


def test_upgrade_drops_an_attribute_from_the_reports_of_earlier_visits() -> None:
    new = TWO_STEPS.replace(b", {key: failed, value: 0}", b"", 1)
    world = World(parse(TWO_STEPS, default_name="web").chart, NOON)
    world.put("canary", "m1", "failed")
    world.do(Goto("rest", "on"))
    world.upgrade(parse(new, default_name="web").chart, {})
    (row,) = world.put("canary", "m1").entries

    assert (row.kind, row.reason) == (Kind.LATE, None)


def test_set_is_found_under_the_name_that_an_upgrade_gives_to_its_state() -> None:
    new = TWO_STEPS.replace(b"name: canary", b"name: first").replace(b"_state: canary", b"_state: first")
    world = World(parse(TWO_STEPS, default_name="web").chart, NOON)
    world.put("canary", "m1")
    world.upgrade(parse(new.replace(b"[canary]", b"[first]"), default_name="web").chart, {"canary": "first"})

    assert (world.position.state, world.position.expected) == ("rest", 1)


def test_repeated_key_is_answered_as_it_was_in_an_earlier_visit() -> None:
    attribute = Attribute("count", 0)
    chart = Chart(name="web", initial="a", states={"a": State(name="a", func=Func.INCREMENT, attributes=(attribute,))})
    world = World(chart, NOON)
    first = world.put("a", "m1", idempotency_key="k")
    world.do(Goto("a", "again"))
    repeated = world.put("a", "m1", idempotency_key="k")

    assert (first.value, world.position.values["count"]) == (1, 0)
    assert (repeated.reason, repeated.value) == (Reason.REPLAY, 1)


# A world is the core with a memory, and so is the model that the service is tested against.


def outcome(step: Step) -> tuple[object, ...]:
    return step.verdict, step.reason, step.key, step.value, step.repeated, step.entries, step.due_at


def both(world: World, model: Model, data: st.DataObject) -> Sequence[object]:
    """Let the same random thing happen in both; return what each made of it."""
    choice = data.draw(st.sampled_from(["put", "put", "put", "act", "act", "upgrade"]))
    if choice == "put":
        put = data.draw(puts(model.chart, model.here))
        arguments = (put.machine, put.key, put.idempotency_key)
        decide = (
            lambda: world.put(put.state, *arguments),
            lambda: model.put(put.state, world.now, *arguments),
        )
    elif choice == "act":
        act = data.draw(acts(model.chart, model.here).filter(lambda item: not isinstance(item, Archive)))
        claims = isinstance(act, Claim)
        decide = (
            lambda: world.claim(act.state, act.machine) if claims else world.do(act),
            lambda: model.do(act, world.now),
        )
    else:
        new = data.draw(successors(model.chart, model.here))
        homes = data.draw(random_homes(model.chart, new))
        decide = (lambda: world.upgrade(new, homes), lambda: model.import_chart(new, world.now, homes))
    found: list[object] = []
    for side in decide:
        try:
            found.append(outcome(side()))
        except StateServiceError as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


@settings(max_examples=examples(60, few=20), deadline=None)
@given(chart=small_charts(), data=st.data())
def test_world_agrees_with_the_model_of_the_service(chart: Chart, data: st.DataObject) -> None:
    model = Model()
    model.import_chart(chart, NOON)
    world = World(chart, NOON)
    for _ in range(12):
        world.now += timedelta(seconds=data.draw(st.sampled_from([0, 0, 1, 20, 100])))
        first, second = both(world, model, data)
        assert first == second
        assert dict(world.reports) == model.current_reports
        if model.chart.states[model.here.state].slots is not None:
            assert world.position == model.here
