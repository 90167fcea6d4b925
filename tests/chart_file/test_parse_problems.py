"""Reading a chart file with problems: each is reported at its place."""

from __future__ import annotations

import pytest

from app.chart_file import parse
from app.core.errors import ChartFileError, Problem
from tests.chart_file.support import SEED, counted, problems_of, timed

MARK = "¦"
ENDS = "states: [{name: a}]\n"
ELAPSED = "when: {key: elapsed, value: 1s}"
TO_B = f"target: {{name: b, {ELAPSED}}}"
ONE = "{key: count, value: 1}"


def chart_of(line: str) -> str:
    """Return a chart of one final state with one more line."""
    return f"current_state: a\n{ENDS}{line}"


def state_of(fields: str) -> str:
    """Return a chart whose one state has these fields."""
    return f"current_state: a\nstates:\n- {{name: a, {fields}}}\n"


def state_to_b(fields: str) -> str:
    """Return a chart whose first state has these fields, and that has a final state `b`."""
    return state_of(fields) + "- {name: b}\n"


# Each text has a mark at the place of the problem.
WORDS = {
    "unknown key": (chart_of("¦descripton: x"), "unknown key 'descripton' (did you mean 'description'?)"),
    "unknown key of a state": (
        SEED.replace("current: {key", "¦currnt: {key", 1),
        "unknown key 'currnt' (did you mean 'current'?)",
    ),
    "unknown key of a guard": (
        counted("{key: count, value: 1, ¦zzz: 2}"),
        "unknown key 'zzz' (known: key, value, op, of)",
    ),
    "unknown func": (
        SEED.replace("increment", "¦incremnt", 1),
        "unknown func 'incremnt' (did you mean 'increment'?)",
    ),
    "unknown func far from all": (
        SEED.replace("increment", "¦sum", 1),
        "unknown func 'sum' (known: increment, decrement, time)",
    ),
    "unknown op": (counted("{key: count, value: 1, op: ¦'='}"), "unknown op '=' (known: ==, !=, >=, <=, >, <)"),
    "unknown on_expire": (
        counted(ONE, more=", slots: 1, lease: 1m, on_expire: ¦fre"),
        "unknown on_expire 'fre' (did you mean 'free'?)",
    ),
    "duplicate state": (SEED + "  - name: ¦red_state\n", "duplicate state 'red_state' (first at line 9)"),
    "target that is not a state": (
        SEED.replace("name: blue_state,", "name: ¦blu_state,"),
        "target 'blu_state' is not a state of this chart (did you mean 'blue_state'?)",
    ),
    "current_state that is not a state": (
        SEED.replace("green_state", "¦gren_state", 1),
        "current_state 'gren_state' is not a state of this chart (did you mean 'green_state'?)",
    ),
    "guard on a key that the state lacks": (
        counted("{key: ¦cont, value: 1}"),
        "state 'a' has no attribute 'cont' (did you mean 'count'?)",
    ),
    "clock as an attribute": (
        state_of("current: {key: ¦clock, value: 1}"),
        "'clock' is a guard key of the clock and cannot be an attribute",
    ),
    "elapsed as an attribute": (
        state_of("current: {key: ¦elapsed, value: 1}"),
        "'elapsed' is a guard key of the clock and cannot be an attribute",
    ),
    "two attributes of one key": (
        state_of("current: [{key: c, value: 1}, {key: ¦c, value: 2}]"),
        "the state already has an attribute 'c'",
    ),
}

SHAPES = {
    "empty file": ("¦", "the chart file is empty"),
    "!= without quotes": (
        counted("{key: count, op: ¦!=, value: 3}"),
        'YAML takes != for a tag (write it in quotes: "!=")',
    ),
    "only a comment": ("¦# nothing\n", "the chart file is empty"),
    "list for a chart": ("¦- a\n", "a chart file must be a mapping, not a list"),
    "word for a chart": ("\n\n¦hello\n", "a chart file must be a mapping, not 'hello'"),
    "current_state is missing": ("¦" + ENDS, "a chart file lacks the key 'current_state'"),
    "states is missing": ("¦current_state: a\n", "a chart file lacks the key 'states'"),
    "empty states": ("current_state: a\nstates: ¦[]\n", "states is an empty list"),
    "mapping for states": ("current_state: a\nstates: ¦{}\n", "states must be a list, not a mapping"),
    "word for a state": ("current_state: a\nstates: [{name: a}, ¦b]\n", "a state must be a mapping, not 'b'"),
    "name is missing": ("current_state: a\nstates: [{name: a}, ¦{}]\n", "a state lacks the key 'name'"),
    "list for a name": (
        "current_state: a\nstates: [{name: a}, {name: ¦[b]}]\n",
        "name must be a single value, not a list",
    ),
    "bad name": (
        "current_state: a\nstates: [{name: a}, {name: ¦a/b}]\n",
        "name: 'a/b' is not 1 to 128 characters of A-Z a-z 0-9 _ . - : and space",
    ),
    "name too long": (
        f"current_state: a\nstates: [{{name: a}}, {{name: ¦{'x' * 129}}}]\n",
        "name: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...' is not 1 to 128 characters",
    ),
    "name with a line break": (
        'current_state: a\nstates: [{name: a}, {name: ¦"b\\n"}]\n',
        "name: 'b\\n' is not 1 to 128 characters",
    ),
    "word for current": (state_of("current: ¦x"), "an attribute must be a mapping, not 'x'"),
    "empty current": (
        "current_state: a\nstates:\n- name: a\n  current:¦\n",
        "an attribute must be a mapping, not empty",
    ),
    "attribute without value": (state_of("current: ¦{key: x}"), "an attribute lacks the key 'value'"),
    "word for a value": (state_of("current: {key: x, value: ¦one}"), "value: 'one' is not an integer"),
    "fraction for a value": (state_of("current: {key: x, value: ¦1.0}"), "value: '1.0' is not an integer"),
    "value out of range": (
        state_of("current: {key: x, value: ¦9223372036854775808}"),
        "value: '9223372036854775808' is out of the 64-bit range",
    ),
    "threshold out of range": (
        counted("{key: count, value: ¦-9223372036854775809}"),
        "value: '-9223372036854775809' is out of the 64-bit range",
    ),
    "target without when": (state_to_b("func: time, target: ¦{name: b}"), "a target lacks the key 'when'"),
    "list for when": (timed("¦[]"), "a guard must be a mapping, not a list"),
    "expect of zero machines": (chart_of("expect: ¦0"), "expect: '0' is less than 1"),
    "word for expect": (chart_of("expect: ¦many"), "expect: 'many' is not an integer"),
    "mapping for expect": (chart_of("expect: ¦{}"), "expect must have either 'roster' or 'reported'"),
    "empty roster": (chart_of("expect: ¦[]"), "expect is an empty list"),
    "machine listed twice": (chart_of("expect: [a,\n b, ¦a]"), "the machine 'a' is listed twice (first at line 3)"),
    "empty machine id": (chart_of("expect: [¦'']"), "expect: '' is not 1 to 255 printable characters"),
    "machine id with a tab": (
        chart_of('expect: [¦"a\\tb"]'),
        "expect: 'a\\tb' is not 1 to 255 printable characters",
    ),
    "machine id with a space at its end": (
        chart_of("expect: [¦'web-01 ']"),
        "expect: 'web-01 ' has a space at one of its ends",
    ),
    "machine id too long": (chart_of(f"expect: [¦{'x' * 256}]"), "expect: 'xxx"),
    "not a boolean": (
        chart_of("require_machine: ¦maybe"),
        "require_machine: 'maybe' is not true or false",
    ),
    "chart name with a space": (
        chart_of("chart: ¦a b"),
        "chart: 'a b' is not 1 to 128 characters of A-Z a-z 0-9 _ . - : (nor '.' or '..')",
    ),
    "dots for a chart name": (
        chart_of("chart: ¦.."),
        "chart: '..' is not 1 to 128 characters of A-Z a-z 0-9 _ . - : (nor '.' or '..')",
    ),
    "bad instant": (
        timed("{key: clock, value: ¦soon}"),
        "clock: 'soon' is not an ISO 8601 instant such as 2030-01-31T22:00:00+01:00",
    ),
    "instant out of range": (
        timed("{key: clock, value: ¦'0001-01-01T00:00:00+10:00'}"),
        "clock: '0001-01-01T00:00:00+10:00' is out of the range of instants",
    ),
    "bad age": (
        timed("{key: elapsed, value: ¦5 minutes}"),
        "elapsed: '5 minutes' is not a length of time such as 90s, 30m, 6h, 2d or PT30M",
    ),
    "age in months": (timed("{key: elapsed, value: ¦P1M}"), "elapsed: 'P1M' is not a length of time"),
    "age without a number": (timed("{key: elapsed, value: ¦PT}"), "elapsed: 'PT' is not a length of time"),
    "age below zero": (timed("{key: elapsed, value: ¦-5s}"), "elapsed: '-5s' is not a length of time"),
    "age over a century": (timed("{key: elapsed, value: ¦36526d}"), "elapsed: '36526d' is over 100 years"),
    "age over all limits": (
        timed("{key: elapsed, value: ¦99999999999999999999d}"),
        "elapsed: '99999999999999999999d' is over 100 years",
    ),
}

MEANINGS = {
    "func without attributes": (
        state_to_b(f"func: ¦increment, {TO_B}"),
        "func increment needs attributes: 'current' is missing",
    ),
    "func without target": (
        state_of("func: ¦increment, current: {key: c, value: 0}"),
        "a state with a func needs a target",
    ),
    "time without target": (state_of("func: ¦time, target: []"), "a state with a func needs a target"),
    "target without func": (state_to_b(f"¦{TO_B}"), "a state with a target needs a func"),
    "time with attributes": (
        state_to_b(f"func: time, ¦current: {{key: c, value: 0}}, {TO_B}"),
        "a time state has no attributes",
    ),
    "time with a count guard": (
        timed("{key: ¦count, value: 1}"),
        "a time state has guards on 'clock' and 'elapsed' only, not on 'count'",
    ),
    "op on a clock guard": (
        timed("{key: clock, value: '3000-01-01', op: ¦'=='}"),
        "a guard on 'clock' can only have the op '>=', not '=='",
    ),
    "percentage without expect": (
        counted("{key: count, value: ¦5%}"),
        "value: '5%' is a percentage, but the chart has no 'expect'",
    ),
    "percentage of a roster of machines where people approve": (
        counted("{key: count, value: ¦5%}", head="expect: {roster: web}", more=", who: approvers"),
        (
            "value: '5%' is a percentage, but people approve here, and 'expect' of the chart says nothing of them: give"
            " the state an 'expect'"
        ),
    ),
    "== with a share that is no whole number": (
        counted("{key: count, value: ¦15%, op: '=='}", head="expect: 14"),
        "value: '15%' of 14: it is 2.1 machines, which is not a whole number, so the op '==' never holds",
    ),
    "!= with a share that is no whole number": (
        counted("{key: count, value: ¦15%, op: '!='}", head="expect: 14"),
        "value: '15%' of 14: it is 2.1 machines, which is not a whole number, so the op '!=' always holds",
    ),
    "threshold above expect": (
        counted("{key: count, value: ¦6}", head="expect: 5"),
        "the threshold '6' is above expect: it needs 6 machines, but 5 take part",
    ),
    "threshold at expect with >": (
        counted("{key: count, value: ¦5, op: '>'}", head="expect: 5"),
        "the threshold '5' is above expect: it needs 6 machines, but 5 take part",
    ),
    "threshold above a roster": (
        counted("{key: count, value: ¦6, op: '=='}", head="expect: [a, b, c]"),
        "the threshold '6' is above expect: it needs 6 machines, but 3 take part",
    ),
    "percentage over 100": (
        counted("{key: count, value: ¦101%}", head="expect: 5"),
        "the threshold '101%' is above expect: it needs 6 machines, but 5 take part",
    ),
    "threshold below what decrement reaches": (
        counted("{key: count, value: ¦-6}", head="expect: 5", func="decrement"),
        "the threshold '-6' is above expect: it needs 6 machines, but 5 take part",
    ),
    "threshold at expect with <": (
        counted("{key: count, value: ¦-5, op: '<'}", head="expect: 5", func="decrement"),
        "the threshold '-5' is above expect: it needs 6 machines, but 5 take part",
    ),
    "state that no path reaches": (SEED + "  - name: ¦alone\n", "no path reaches state 'alone'"),
    "first state that does not lead to current_state": (
        "current_state: b\nstates: [{name: ¦a}, {name: b}]\n",
        "no path reaches state 'a'",
    ),
    "state that leads to no final state": (
        state_to_b(f"func: time, target: [{{name: c, {ELAPSED}}}, {{name: b, {ELAPSED}}}]")
        + f"- {{name: ¦c, func: time, target: {{name: c, {ELAPSED}}}}}\n",
        "no final state can be reached from state 'c'",
    ),
    "slots without a counting func": (
        state_to_b(f"func: time, ¦slots: 2, {TO_B}"),
        "'slots' needs func increment or decrement",
    ),
    "zero slots": (counted(ONE, more=", slots: ¦0"), "slots: '0' is less than 1"),
    "slots of no share": (counted(ONE, more=", slots: ¦0%"), "slots: '0%' lets no machine work"),
    "group limit of no share": (
        counted(ONE, head="expect: {roster: web}", more=", slots: {total: 1, per: {rack: ¦0%}}"),
        "per rack: '0%' lets no machine work",
    ),
    "group limit over all": (
        counted(ONE, head="expect: {roster: web}", more=", slots: {total: 1, per: {rack: ¦101%}}"),
        "per rack: '101%' is over 100%",
    ),
    "empty slots": (counted(ONE, more=", slots: ¦[]"), "slots is an empty list"),
    "slots in percent without expect": (
        counted(ONE, more=", slots: [1, ¦5%]"),
        "slots: '5%' is a percentage, but the chart has no 'expect'",
    ),
    "reported on a key that the state lacks": (
        counted(ONE, more=", reported: {¦x: [m1]}"),
        "unknown key 'x' (known: count, failed)",
    ),
    "reported that is no list": (
        counted(ONE, more=", reported: {count: ¦m1}"),
        "reported: count must be a list of machine ids, not 'm1'",
    ),
    "a machine that reported twice": (
        counted(ONE, more=", reported: {count: [m1], failed: [¦m1]}"),
        "the machine 'm1' is listed twice (first at line 4)",
    ),
    "a reporter that is not on the roster": (
        "expect: [m2]\n" + counted(ONE, more=", reported: {count: [¦m1]}"),
        "the machine 'm1' is not on the roster",
    ),
    "reported in a state where no run starts": (
        SEED.replace("  - name: red_state", "  - name: ¦red_state\n    reported: {count: [m1]}"),
        "'reported' is for the current_state alone, and 'red_state' is not that",
    ),
    "lease without slots": (counted(ONE, more=", ¦lease: 5m"), "'lease' needs 'slots'"),
    "on_expire without slots": (counted(ONE, more=", ¦on_expire: hold"), "'on_expire' needs 'slots'"),
    "lease of zero length": (counted(ONE, more=", slots: 1, lease: ¦0s"), "lease: '0s' is not longer than zero"),
    "on_expire without a lease": (
        counted(ONE, more=", slots: 1, on_expire: ¦free"),
        "on_expire free needs a 'lease'",
    ),
    "on_expire fail without failed": (
        counted(ONE, more=", slots: 1, lease: 1m, on_expire: ¦fail").replace("failed", "bad"),
        "on_expire fail needs an attribute 'failed'",
    ),
}

SAFETY = {
    "not YAML": (SEED + "  - [¦}\n", "not YAML: did not find expected node content"),
    "tab": (
        "a:\n¦\t- b",
        "not YAML: found character that cannot start any token (a tab: ",
    ),
    "op without quotes": (
        "a: {op: ¦>=, value: 1}",
        'not YAML: found character that cannot start any token (write it in quotes: ">=")',
    ),
    "only a comment": (
        "¦# a chart that curl -d has joined: a: b",
        "the chart file is empty: its only line is a comment. ",
    ),
    "unclosed quote": (
        'a: "b\nc: d¦',
        "not YAML: found unexpected end of stream, while scanning a quoted scalar (from line 1 on)",
    ),
    "repeated key": (chart_of("¦current_state: a"), "repeated key 'current_state' (first at line 1)"),
    "repeated key of a state": (state_of("¦name: a"), "repeated key 'name' (first at line 3)"),
    "list for a key": (chart_of("? ¦[a]\n: b"), "a key must be a plain word, not a list or mapping"),
    "anchor": (chart_of("description: ¦&x y"), "an anchor ('&x') is not allowed"),
    "anchor on a mapping": ("current_state: a\nstates: [¦&x {name: a}]", "an anchor ('&x') is not allowed"),
    "alias": (chart_of("description: ¦*x"), "an alias ('*x') is not allowed"),
    "merge key": (chart_of("¦<<: {a: b}"), "unknown key '<<'"),
    "tag": (chart_of("description: ¦!!python/name:os.system x"), "a tag ('tag:yaml.org,2002:python/name:os.system')"),
    "tag for text": (chart_of("description: ¦!!str x"), "a tag ('tag:yaml.org,2002:str') is not allowed"),
    "tag on a list": (
        "current_state: a\nstates: ¦!!set\n- name: a\n",
        "a tag ('tag:yaml.org,2002:set') is not allowed",
    ),
    "tag directive": ("¦%TAG ! tag:x,2000:\n---\n" + chart_of(""), "a %TAG directive is not allowed"),
    "second document": (chart_of("¦---\na: b"), "a second document is not allowed"),
    "NUL": (chart_of("description: a¦\0"), "the character U+0000 is not allowed"),
    "control character": (chart_of("description: a¦\x07"), "the character U+0007 is not allowed"),
    "escaped NUL": (chart_of(r'description: ¦"a\0"'), "the character U+0000 is not allowed"),
    "lone surrogate": (chart_of("description: ¦\ud800"), "the character U+D800 is not allowed"),
    "escaped surrogate": (chart_of(r'description: "\u¦d800"'), "not YAML: found invalid Unicode character escape code"),
    "character beyond the last": (chart_of(r'description: "\U¦00110000"'), "not YAML: found invalid Unicode character"),
    "too big": ("¦" + SEED + "#" * (1 << 20), "the chart file is over 1048576 bytes"),
    "too many bytes but not too many characters": ("¦# " + "é" * (1 << 19), "the chart file is over 1048576 bytes"),
    "too deep": (chart_of("description: " + "[" * 11 + "¦[" + "]" * 12), "nested deeper than 12"),
}

CASES = WORDS | SHAPES | MEANINGS | SAFETY


def split_mark(marked: str) -> tuple[str, tuple[int, int]]:
    """Return the text without its mark, and the mark's line and column."""
    before, after = marked.split(MARK)
    return before + after, (before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


@pytest.mark.parametrize(("marked", "message"), CASES.values(), ids=CASES.keys())
def test_parse_reports_a_problem_at_its_place(marked: str, message: str) -> None:
    text, position = split_mark(marked)
    found = problems_of(text)
    at_place = [problem.message for problem in found if (problem.line, problem.column) == position]
    assert [one for one in at_place if one.startswith(message)], found


@pytest.mark.parametrize(
    ("source", "position", "message"),
    [
        (chart_of("description: é").encode("latin-1"), (3, 14), "not UTF-8: the byte 0xE9"),
        (SEED.encode("utf-16"), (1, 1), "not UTF-8: the byte 0xFF"),
    ],
    ids=["latin-1", "utf-16"],
)
def test_parse_reports_bytes_that_are_not_utf_8(source: bytes, position: tuple[int, int], message: str) -> None:
    assert problems_of(source) == (Problem(*position, message),)


FOLLOWED = {"states is missing", "empty states", "current_state is missing", "list for a name", "name is missing"}


@pytest.mark.parametrize("name", [name for name in CASES if name not in FOLLOWED])
def test_parse_reports_one_mistake_once(name: str) -> None:
    text, _ = split_mark(CASES[name][0])
    assert len(problems_of(text)) == 1, problems_of(text)


def test_parse_reports_every_problem_in_order() -> None:
    text = (
        "--- states.yaml ---\n"
        "current_state: gren\n"
        "expect: 3\n"
        "expect: 4\n"
        "states:\n"
        "  - name: green\n"
        "    func: incremnt\n"
        "    currnt: {key: count, value: 0}\n"
        "    target: &x {name: blue, when: {key: count, value: 1}}\n"
        "  - name: blue\n"
        "  - name: blue\n"
        "  - name: alone\n"
        "    description: *x\n"
    )
    assert [(problem.line, problem.column) for problem in problems_of(text)] == [
        (2, 16),
        (4, 1),
        (7, 11),
        (8, 5),
        (9, 13),
        (11, 11),
        (12, 11),
        (13, 18),
    ]


def test_parse_reports_correct_line_numbers_below_a_heading() -> None:
    assert problems_of("--- states.yaml ---\n" + chart_of("x: 1"))[0].line == 4


def test_parse_reports_a_misspelt_target_only_once() -> None:
    assert len(problems_of(SEED.replace("name: red_state\n      when", "name: red_stat\n      when"))) == 1


def test_parse_reports_a_missing_name() -> None:
    with pytest.raises(ChartFileError) as caught:
        parse("\n" + SEED)
    assert caught.value.problems == (Problem(2, 1, "the chart has no name: add 'chart: NAME'"),)


@pytest.mark.parametrize("names", [{"name": "a/b"}, {"default_name": "a b"}, {"name": ".."}], ids=str)
def test_parse_reports_a_bad_name_given_by_the_caller(names: dict[str, str]) -> None:
    with pytest.raises(ChartFileError) as caught:
        parse("\n" + SEED, **names)
    assert [(problem.line, problem.column) for problem in caught.value.problems] == [(1, 1)]


def test_parse_reports_too_many_states() -> None:
    text = "current_state: a\nstates:\n" + "- {name: a}\n" * 10_001
    assert problems_of(text) == (Problem(10_003, 3, "the chart has 10001 states, over 10000"),)


def test_parse_limits_the_list_of_problems() -> None:
    found = problems_of("\n".join(f"k{number}: 1" for number in range(1500)))
    assert len(found) == 1001
    assert found[-1].message == "and 502 more problems"
