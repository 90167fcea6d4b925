"""A chart that is written as a file is read as the same chart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.chart_file import dump, parse
from app.core.chart import Attribute, Chart, State
from tests.chart_file.support import SAMPLES, SEED, read
from tests.strategies import charts, live_values
from tests.support.examples import examples


def _with_values(chart: Chart, state: str, values: dict[str, int]) -> Chart:
    old = chart.states[state]
    attributes = tuple(Attribute(one.key, values.get(one.key, one.value)) for one in old.attributes)
    return replace(chart, initial=state, states={**chart.states, state: replace(old, attributes=attributes)})


@given(st.data())
@settings(max_examples=examples(150, few=50), deadline=None)
def test_dump_reads_back_as_the_same_chart_at_its_live_state(data: st.DataObject) -> None:
    chart = data.draw(charts())
    state = data.draw(st.sampled_from(list(chart.states)))
    values = data.draw(live_values(chart.states[state]))

    text = dump(chart, state=state, values=values)

    assert parse(text).chart == _with_values(chart, state, values)


@given(st.data())
@settings(max_examples=examples(75, few=25), deadline=None)
def test_dump_reads_back_when_dumped_again_in_another_state(data: st.DataObject) -> None:
    chart = data.draw(charts())
    first, second = (data.draw(st.sampled_from(list(chart.states))) for _ in range(2))

    again = parse(dump(chart, state=first, values={})).chart

    assert parse(dump(again, state=second, values={})).chart == replace(chart, initial=second)


def test_dump_names_who_reported_in_the_current_state_alone() -> None:
    chart = read(SEED)
    text = dump(chart, state="red_state", values={"count": 7}, reports={"off": "count", "b": "count", "gone": None})
    states = parse(text).chart.states
    assert states["red_state"].reported == (("count", ("b", "off")),)
    assert not any(state.reported for name, state in states.items() if name != "red_state")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_dump_keeps_a_sample(path: Path) -> None:
    chart = parse(path.read_bytes(), default_name=path.stem).chart
    assert parse(dump(chart, state=chart.initial, values={})).chart == chart


def test_dump_keeps_the_order_of_states_when_the_run_has_moved_on() -> None:
    text = dump(read(SEED), state="red_state", values={"count": 7})
    chart = parse(text).chart
    assert list(chart.states) == ["green_state", "red_state", "blue_state"]
    assert chart.states["red_state"].attributes == (Attribute("count", 7),)
    assert chart.states["green_state"].attributes == (Attribute("count", 0),)


def test_dump_puts_the_initial_state_first_when_the_first_does_not_lead_to_it() -> None:
    chart = read("current_state: a\nstates: [{name: b}, {name: a, func: time, target: " + A_TO_B + "}]")
    assert list(parse(dump(chart, state="b", values={})).chart.states) == ["a", "b"]


A_TO_B = "{name: b, when: {key: elapsed, value: 1s}}"


@pytest.mark.parametrize("op", ["", ", op: '>='"], ids=["default", "given"])
def test_dump_leaves_out_an_op_that_is_the_default(op: str) -> None:
    chart = read(SEED.replace("{key: count, value: 1}", f"{{key: count, value: 1{op}}}"))
    assert "op" not in dump(chart, state="green_state", values={})


def test_dump_writes_an_op_that_is_not_the_default() -> None:
    chart = read(SEED.replace("{key: count, value: 1}", "{key: count, value: 1, op: '=='}"))
    assert "op: ==" in dump(chart, state="green_state", values={})


def test_dump_is_flow_style_within_a_state() -> None:
    assert "  current: {key: count, value: 3}\n" in dump(read(SEED), state="green_state", values={"count": 3})


MACHINES = [
    "off",
    "12:30",
    "017",
    "~",
    "null",
    "a: b",
    "a #b",
    "#",
    "'",
    '"',
    "it's",
    "ü",
    "機",
    "😀",
    "- a",
    "*a",
    "&a",
]
MACHINES += [
    "!a",
    "%a",
    "@a",
    "`a",
    "{a",
    "[a",
    "a,b",
    "a  b",
    "a  c",
    "\\",
    "\\n",
    "---",
    "...",
    "?",
    "a:",
    ":a",
    "<<",
    "=",
]


@pytest.mark.parametrize("machine", MACHINES)
def test_dump_quotes_a_machine_id_that_needs_it(machine: str) -> None:
    chart = Chart(name="c", initial="a", states={"a": State(name="a")}, expect=1, roster=(machine,))
    assert parse(dump(chart, state="a", values={})).chart.roster == (machine,)


@pytest.mark.parametrize(
    "text", ["a\nb", "a \n b", "\n", "a\n", " a\t", "a\rb", "\x85", "\u2028a", "--- a ---", "x" * 300]
)
def test_dump_keeps_a_description(text: str) -> None:
    chart = Chart(name="c", initial="a", states={"a": State(name="a", description=text)}, description=text)
    assert parse(dump(chart, state="a", values={})).chart == chart
