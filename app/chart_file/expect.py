"""Reads who takes part: `expect` of a chart and of a state, `including`, and the groups under `slots`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.chart_file.fields import (
    Expect,
    ScalarError,
    Scope,
    expect_type,
    is_percentage,
    list_nodes,
    read_map,
    read_scalar,
    refuse_none,
    say_alike,
    spell_plainly,
    to_chart_name,
    to_count,
    to_machine_id,
    to_name,
    to_part,
)
from app.chart_file.nodes import ListNode, MapNode, Node, Problems, ScalarNode, quote
from app.core.chart import State
from app.core.expect import FromRoster, GroupLimit, Listed, Number, Reporters, Where

EXPECT_KEYS = ("roster", "where", "reported", "key")
LABEL = re.compile(r"[A-Za-z0-9_./-]{1,128}")
LABEL_RULE = "1 to 128 characters of A-Z a-z 0-9 _ . - /"
MAX_LABEL_VALUE = 128
# Characters of one condition on labels.
MAX_CONDITION = 4096


def to_label(text: str) -> str:
    """Return the text as the name of a label. Raises ScalarError, as the next function does."""
    if not LABEL.fullmatch(text):
        raise ScalarError(f"{quote(text)} is not the name of a label: {LABEL_RULE}")
    return text


def to_label_value(text: str) -> str:
    """Return the text as a value of a label."""
    if not 1 <= len(text) <= MAX_LABEL_VALUE or not text.isprintable() or " " in text or "," in text or "#" in text:
        raise ScalarError(
            f"{quote(text)} is not the value of a label: 1 to {MAX_LABEL_VALUE} printable characters without space,"
            " comma and #"
        )
    return text


def to_condition(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the label and the values of a condition such as `zone:a,b`. Raises ScalarError."""
    label, found, values = text.partition(":")
    if not found or len(text) > MAX_CONDITION:
        raise ScalarError(f"{text[:60]!r} is not LABEL:VALUE")
    return to_label(label), tuple(map(to_label_value, values.split(",")))


def join_conditions(conditions: Iterable[tuple[str, tuple[str, ...]]]) -> Where:
    """Return the conditions as one; of a label that is given several times, any value will do."""
    wanted: dict[str, tuple[str, ...]] = {}
    for label, values in conditions:
        wanted[label] = (*wanted.get(label, ()), *values)
    return tuple(wanted.items())


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in the file that the service may have something to say about: line and column count from 1."""

    line: int
    column: int


def read_expect(node: Node | None, problems: Problems, warnings: Problems, scope: Scope | None = None) -> Expect:
    """Return the set that `expect` names. With `scope` it is that of a state, which may look back at other states."""
    if node is None:
        return Expect()
    if isinstance(node, ListNode):
        machines = _read_machines(node, problems, warnings)
        return Expect(Listed(machines)) if machines else Expect(is_unreadable=True)
    if isinstance(node, MapNode):
        return _read_looked_up(node, problems, scope)
    count = read_scalar(node, "expect", to_count, problems)
    return Expect(is_unreadable=True) if count is None else Expect(Number(count))


def _read_machines(node: ListNode, problems: Problems, warnings: Problems) -> tuple[str, ...] | None:
    if not node.items:
        problems.add(node, "expect is an empty list")
    lines: dict[str, int] = {}
    spellings: dict[str, str] = {}
    for item in node.items:
        machine = read_scalar(item, "expect", to_machine_id, problems)
        if machine in lines:
            problems.add(item, f"the machine {quote(machine)} is listed twice (first at line {lines[machine]})")
        elif machine is not None:
            lines[machine] = item.line
            other = spellings.setdefault(spell_plainly(machine), machine)
            if other != machine:
                warnings.add(item, say_alike(quote(other), quote(machine)))
    return tuple(lines) if len(lines) == len(node.items) else None


def _read_looked_up(node: MapNode, problems: Problems, scope: Scope | None) -> Expect:
    fields = read_map(node, "expect", EXPECT_KEYS, (), problems)
    unreadable = Expect(is_unreadable=True)
    if fields is None:
        return unreadable
    is_roster, is_reported = "roster" in fields.entries, "reported" in fields.entries
    if is_roster == is_reported:
        problems.add(node, "expect must have either 'roster' or 'reported'")
        return unreadable
    for name, owner, is_allowed in (("where", "roster", is_roster), ("key", "reported", is_reported)):
        key = fields.find_key(name)
        if key is not None and not is_allowed:
            problems.add(key, f"{quote(name)} needs {quote(owner)}")
    if is_roster:
        roster = read_scalar(fields.find("roster"), "roster", to_chart_name, problems)
        where = read_where(fields.find("where"), problems)
        return unreadable if roster is None or where is None else Expect(FromRoster(roster, where))
    if scope is None:
        problems.add(fields.entries["reported"][0], "only a state can expect who reported in other states")
        return unreadable
    states = read_state_names(fields.find("reported"), "reported", scope)
    key_name = read_scalar(fields.find("key"), "key", to_name, problems)
    return Expect(Reporters(states, key_name)) if states else unreadable


def read_where(node: Node | None, problems: Problems) -> Where | None:
    """Return the labels that machines must have; None if a problem was noted."""
    if node is None:
        return ()
    if not isinstance(node, MapNode):
        expect_type(node, "where", "a mapping from labels to values", problems)
        return None
    where: list[tuple[str, tuple[str, ...]]] = []
    before = problems.count
    for key, value in node.entries.values():
        label = read_scalar(key, "where", to_label, problems)
        if isinstance(value, ListNode) and not value.items:
            problems.add(value, f"where {quote(key.text)} is an empty list: no machine would match")
        values = [read_scalar(item, "where", to_label_value, problems) for item in list_nodes(value)]
        if label is not None:
            where.append((label, tuple(dict.fromkeys(item for item in values if item is not None))))
    return tuple(where) if problems.count == before else None


def read_state_names(node: Node | None, what: str, scope: Scope) -> tuple[str, ...]:
    """Return the states that a list, or a single value, names."""
    if isinstance(node, ListNode) and not node.items:
        scope.problems.add(node, f"{what} is an empty list")
    names: list[str] = []
    for item in list_nodes(node):
        found = read_scalar(item, what, str, scope.problems)
        if found is None or not isinstance(item, ScalarNode):
            continue
        if found not in scope.state_names:
            expect_state(item, what, scope)
        elif found not in names:
            names.append(found)
    return tuple(names)


def expect_state(node: ScalarNode, what: str, scope: Scope) -> str | None:
    """Note that the node does not name a state; return the state that was probably meant, or None."""
    meant = scope.problems.find_nearest(node.text, scope.state_names.keys())
    hint = "" if meant is None else f" (did you mean {quote(meant)}?)"
    scope.problems.add(node, f"{what} {quote(node.text)} is not a state of this chart{hint}")
    return meant


def read_per(node: Node | None, scope: Scope) -> tuple[GroupLimit, ...]:
    """Return the limits of the groups under `slots`."""
    if node is None:
        return ()
    if not isinstance(node, MapNode):
        expect_type(node, "per", "a mapping from labels to limits", scope.problems)
        return ()
    if not isinstance(scope.expect.expected, FromRoster) and not isinstance(scope.common.expected, FromRoster):
        scope.problems.add(node, "'per' needs machines with labels: expect: {roster: NAME}")
    limits = []
    for key, value in node.entries.values():
        label = read_scalar(key, "per", to_label, scope.problems)
        limit = read_scalar(value, f"per {key.text}", _to_limit, scope.problems)
        if label is not None and limit is not None and isinstance(value, ScalarNode):
            limits.append(limit(label, value.text))
    return tuple(limits)


class _Limit:
    """The limit of a group, before it is known whose."""

    def __init__(self, text: str) -> None:
        refuse_none(text)
        self._share = to_part(text, "25%") if is_percentage(text) else None
        self._machines = to_count(text) if self._share is None else None

    def __call__(self, label: str, written: str) -> GroupLimit:
        return GroupLimit(label, written, self._machines, self._share)


def _to_limit(text: str) -> _Limit:
    return _Limit(text)


def check_looking_back(state_maps: Sequence[MapNode], states: Mapping[str, State], problems: Problems) -> None:
    """Note what `including` and `reported` cannot mean: a state itself, and states on which no machine reports."""
    for fields in state_maps:
        name = fields.find("name")
        state = states.get(name.text) if isinstance(name, ScalarNode) else None
        if state is None:
            continue
        expect = fields.find("expect")
        reported = expect.find("reported") if isinstance(expect, MapNode) else None
        for what, node in (("including", fields.find("including")), ("reported", reported)):
            for item in list_nodes(node):
                if isinstance(item, ScalarNode) and item.text in states:
                    _check_named(item, what, state, states[item.text], problems)
        if isinstance(state.expect, Reporters) and state.expect.key is not None and isinstance(expect, MapNode):
            known = [states[item] for item in state.expect.states if item in states]
            if not any(item.has_attribute(state.expect.key) for item in known):
                message = f"none of these states has an attribute {quote(state.expect.key)}"
                problems.add(expect.entries["key"][1], message)


def _check_named(node: ScalarNode, what: str, state: State, named: State, problems: Problems) -> None:
    if named.name == state.name:
        problems.add(node, f"{what} {quote(node.text)} is the state itself")
    elif not named.is_counting:
        problems.add(node, f"{what} {quote(node.text)}: machines do not report on that state")
    elif what == "including" and not state.is_counting:
        problems.add(node, f"state {quote(state.name)} counts nothing, so it can include no machine")


def list_roster_spots(root: MapNode, state_maps: Sequence[MapNode]) -> dict[str, Spot]:
    """Return where each roster is named first."""
    spots: dict[str, Spot] = {}
    for fields in (root, *state_maps):
        expect = fields.find("expect")
        node = expect.find("roster") if isinstance(expect, MapNode) else None
        if isinstance(node, ScalarNode):
            spots.setdefault(node.text, Spot(node.line, node.column))
    return spots
