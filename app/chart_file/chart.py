"""Reads the text of a chart file: `parse` returns the chart, or raises one error with every problem in the file.

The states come first, then the chart around them, then `parse` itself, which also decodes the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from app.chart_file.checks import (
    CHECKED_LATER,
    PROMISE_KEYS,
    PromiseNodes,
    StateDraft,
    check_paths,
    collect_warnings,
    hold_to_promises,
    read_promises,
    warn_of_meaning,
)
from app.chart_file.expect import (
    Spot,
    check_looking_back,
    expect_state,
    list_roster_spots,
    read_expect,
    read_state_names,
)
from app.chart_file.fields import (
    NAME,
    Expect,
    ScalarError,
    Scope,
    expect_type,
    list_nodes,
    read_map,
    read_scalar,
    read_word,
    to_boolean,
    to_chart_name,
    to_integer,
    to_machine_id,
    to_name,
)
from app.chart_file.guards import CLOCK_KEYS, SLOT_KEYS, Counted, read_guard, read_slots
from app.chart_file.nodes import (
    ListNode,
    MapNode,
    Node,
    Problems,
    ScalarNode,
    blank_preamble,
    decode,
    quote,
    read_nodes,
)
from app.chart_file.rosters import SetSpots, list_set_spots
from app.chart_file.windows import (
    PEOPLE_KEYS,
    SCHEDULE_KEYS,
    check_chart_schedule,
    check_state_schedule,
    read_approvers,
    read_schedule,
)
from app.core.chart import Attribute, Chart, Func, State, Transition
from app.core.errors import ChartFileError, Problem
from app.core.expect import FromRoster, Listed, as_people
from app.core.memory import Lists

STATE_KEYS = (
    "name",
    "description",
    "expect",
    "including",
    "func",
    "current",
    "reported",
    "target",
    *SLOT_KEYS,
    *SCHEDULE_KEYS,
    *PEOPLE_KEYS,
)
FUNC_WORDS = tuple(map(str, Func))
ATTRIBUTE_KEYS = ("key", "value")
TARGET_KEYS = ("name", "when")


@dataclass(slots=True)
class _Targets:
    transitions: list[Transition] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    has_unknown: bool = False


def read_state(fields: MapNode, scope: Scope) -> StateDraft:
    """Return the state as far as it can be read; problems are noted in `scope`."""
    name = _read_state_name(fields, scope)
    func = _read_func(fields, scope)
    start = _read_start(fields.find("current"), scope)
    own = read_expect(fields.find("expect"), scope.problems, scope.warnings, scope)
    scope = replace(scope, expect=_find_common(fields, scope) if fields.find("expect") is None else own)
    _check_parts(fields, func, scope)
    schedule_here = read_schedule(fields, scope)
    check_state_schedule(fields, schedule_here, scope)
    schedule = scope.schedule if schedule_here is None else schedule_here.within(scope.schedule)
    targets = _read_targets(fields.find("target"), Counted(name or "", func, start, schedule), scope)
    state = State(
        name=name or "",
        func=func,
        attributes=tuple(Attribute(key, value) for key, value in (start or {}).items() if value is not None),
        transitions=tuple(targets.transitions),
        slots=read_slots(fields, func, start, scope),
        description=read_scalar(fields.find("description"), "description", str, scope.problems) or "",
        reported=_read_reported(fields.find("reported"), start, scope),
        schedule=schedule_here,
        approvers=read_approvers(fields, func, scope),
        expect=own.expected,
        including=read_state_names(fields.find("including"), "including", scope),
    )
    is_final = "func" not in fields.entries and "target" not in fields.entries
    is_doubtful = targets.has_unknown or not (is_final or targets.names)
    return StateDraft(fields.find("name") or fields, name, state, tuple(targets.names), is_doubtful)


def _find_common(fields: MapNode, scope: Scope) -> Expect:
    """Return the chart's set as a state without a set of its own has it. People who approve are no machines."""
    common = scope.common
    if fields.find("who") is None:
        return common
    lacks = "people approve here, and 'expect' of the chart says nothing of them: give the state an 'expect'"
    return replace(common, expected=as_people(common.expected), lacks=lacks)


def _read_state_name(fields: MapNode, scope: Scope) -> str | None:
    node = fields.find("name")
    name = read_scalar(node, "name", to_name, scope.problems)
    if node is None or name is None:
        return None
    first = scope.state_names[name]
    if first is not node:
        scope.problems.add(node, f"duplicate state {quote(name)} (first at line {first.line})")
    return name


def _read_func(fields: MapNode, scope: Scope) -> Func | None:
    word = read_word(fields.find("func"), "func", FUNC_WORDS, scope.problems)
    return None if word is None else Func(word)


def _is_given(node: Node | None) -> bool:
    return node is not None and not (isinstance(node, ListNode) and not node.items)


def _check_parts(fields: MapNode, func: Func | None, scope: Scope) -> None:
    func_node = fields.find("func")
    has_attributes, has_target = _is_given(fields.find("current")), _is_given(fields.find("target"))
    if func_node is None:
        if has_target:
            scope.problems.add(fields.entries["target"][0], "a state with a target needs a func")
        return
    if not has_target:
        scope.problems.add(func_node, "a state with a func needs a target")
    if func is None:
        return
    if not func.is_counting and has_attributes:
        scope.problems.add(fields.entries["current"][0], f"a {func} state has no attributes")
    if func.is_counting and not has_attributes:
        scope.problems.add(func_node, f"func {func} needs attributes: 'current' is missing")


def _read_start(node: Node | None, scope: Scope) -> dict[str, int | None] | None:
    """Return each attribute's starting value, or None if a key could not be read.

    A value of None means that the value could not be read.
    """
    start: dict[str, int | None] = {}
    are_keys_readable = True
    for item in list_nodes(node):
        fields = read_map(item, "an attribute", ATTRIBUTE_KEYS, ATTRIBUTE_KEYS, scope.problems)
        key = _read_attribute_key(fields, start, scope) if fields else None
        value = read_scalar(fields.find("value"), "value", to_integer, scope.problems) if fields else None
        if key is None:
            are_keys_readable = False
        else:
            start.setdefault(key, value)
    return start if are_keys_readable else None


def _read_attribute_key(fields: MapNode, start: dict[str, int | None], scope: Scope) -> str | None:
    node = fields.find("key")
    key = read_scalar(node, "key", to_name, scope.problems)
    if node is None or key is None:
        return None
    if key in CLOCK_KEYS:
        scope.problems.add(node, f"{quote(key)} is a guard key of the clock and cannot be an attribute")
    elif key in start:
        scope.problems.add(node, f"the state already has an attribute {quote(key)}")
    return key


Reported = tuple[tuple[str, tuple[str, ...]], ...]


def _read_reported(node: Node | None, start: Mapping[str, int | None] | None, scope: Scope) -> Reported:
    """Return, for each attribute, the machines whose reports its starting value includes."""
    fields = None if node is None or start is None else read_map(node, "reported", tuple(start), (), scope.problems)
    if fields is None or start is None:
        return ()
    lists = {key: fields.entries[key][1] for key in start if key in fields.entries}
    for name, one in lists.items():
        if not isinstance(one, ListNode):
            expect_type(one, f"reported: {name}", "a list of machine ids", scope.problems)
    lines: dict[str, int] = {}
    expected = scope.expect.expected
    roster = frozenset(expected.machines) if isinstance(expected, Listed) else None
    reported = []
    for key, one in lists.items():
        machines = [_read_reporter(item, lines, roster, scope) for item in list_nodes(one)]
        reported.append((key, tuple(machine for machine in machines if machine is not None)))
    return tuple(reported)


def _read_reporter(node: Node, lines: dict[str, int], roster: frozenset[str] | None, scope: Scope) -> str | None:
    """Return a machine's id; `lines` has the line of each that was read before in this state."""
    machine = read_scalar(node, "reported", to_machine_id, scope.problems)
    if machine is None:
        return None
    if machine in lines:
        scope.problems.add(node, f"the machine {quote(machine)} is listed twice (first at line {lines[machine]})")
    elif roster is not None and machine not in roster:
        scope.problems.add(node, f"the machine {quote(machine)} is not on the roster")
    lines.setdefault(machine, node.line)
    return machine


def _read_targets(node: Node | None, counted: Counted, scope: Scope) -> _Targets:
    targets = _Targets()
    for item in list_nodes(node):
        fields = read_map(item, "a target", TARGET_KEYS, TARGET_KEYS, scope.problems)
        if fields is None:
            targets.has_unknown = True
            continue
        name = _read_target_name(fields.find("name"), targets, scope)
        when = fields.find("when")
        guard = None if when is None else read_guard(when, counted, scope)
        if name is not None and guard is not None:
            targets.transitions.append(Transition(name, guard))
    return targets


def _read_target_name(node: Node | None, targets: _Targets, scope: Scope) -> str | None:
    name = read_scalar(node, "name", str, scope.problems)
    if name is not None and name in scope.state_names:
        targets.names.append(name)
        return name
    targets.has_unknown = True
    if isinstance(node, ScalarNode):
        meant = expect_state(node, "target", scope)
        targets.names.extend([] if meant is None else [meant])
    return None


CHART_KEYS = (
    "chart",
    "description",
    "current_state",
    "expect",
    "require_machine",
    *SCHEDULE_KEYS,
    *PROMISE_KEYS,
    "states",
)
MAX_STATES = 10_000


@dataclass(frozen=True, slots=True)
class Names:
    """Names for the chart from outside its file: `given` by the caller, or `fallback`, which is the file's stem."""

    given: str | None
    fallback: str | None


@dataclass(frozen=True, slots=True)
class ReadChart:
    """A chart, and the places of the rosters and labels that it names, and of its promises."""

    chart: Chart
    rosters: Mapping[str, Spot]
    sets: SetSpots
    promises: PromiseNodes


def read_chart(
    root: Node,
    names: Names,
    problems: Problems,
    warnings: Problems,
    now: datetime | None = None,
    *,
    calendars: dict[str, Node],
    rosters: Lists | None = None,
) -> ReadChart | None:
    """Return the chart; None if there are problems, noted here or before. `calendars` gets the place of each name.

    `rosters` has the lines of those rosters that are known.
    """
    fields = read_map(root, "a chart file", CHART_KEYS, ("current_state", "states"), problems)
    if fields is None:
        return None
    name = _read_chart_name(fields, names, problems, warnings)
    description = read_scalar(fields.find("description"), "description", str, problems)
    require_machine = read_scalar(fields.find("require_machine"), "require_machine", to_boolean, problems)
    state_maps = _read_state_maps(fields.find("states"), problems)
    expect = read_expect(fields.find("expect"), problems, warnings)
    scope = Scope(
        problems=problems,
        expect=expect,
        state_names=_find_state_names(state_maps),
        warnings=warnings,
        now=now,
        common=expect,
        calendars=calendars,
    )
    schedule = read_schedule(fields, scope)
    check_chart_schedule(fields, schedule, scope)
    scope = replace(scope, schedule=schedule)
    drafts = [read_state(state_map, scope) for state_map in state_maps]
    check_looking_back(state_maps, {draft.state.name: draft.state for draft in drafts}, problems)
    initial = _read_initial(fields.find("current_state"), drafts, scope)
    states = {draft.state.name: draft.state for draft in drafts}
    found = read_promises(fields, states, scope)
    if problems or name is None or initial is None:
        return None
    collect_warnings(states, initial, scope.state_names, warnings)
    chart = Chart(
        name=name,
        initial=initial,
        states=states,
        description=description or "",
        expect=expect.machines,
        roster=expect.expected.machines if isinstance(expect.expected, Listed) else None,
        require_machine=require_machine or False,
        schedule=schedule,
        promises=found.promises,
        follows=expect.expected if isinstance(expect.expected, FromRoster) else None,
    )
    warn_of_meaning(chart, scope.state_names, warnings)
    hold_to_promises(chart, found, problems, warnings, now=now, rosters=rosters)
    if problems:
        return None
    return ReadChart(chart, list_roster_spots(fields, state_maps), list_set_spots(fields, state_maps), found)


def _read_chart_name(fields: MapNode, names: Names, problems: Problems, warnings: Problems) -> str | None:
    node = fields.find("chart")
    written = read_scalar(node, "chart", to_chart_name, problems)
    if names.given is not None:
        if node is not None and written is not None and written != names.given:
            warnings.add(node, f"the file calls the chart {quote(written)}; it is imported as {quote(names.given)}")
        return _check_outer_name(names.given, "the chart's name", problems)
    if node is not None:
        return written
    if names.fallback is not None:
        return _check_outer_name(names.fallback, "the chart has no 'chart:', and its file's name", problems)
    problems.add(fields, "the chart has no name: add 'chart: NAME'")
    return None


def _check_outer_name(name: str, what: str, problems: Problems) -> str | None:
    try:
        return to_chart_name(name)
    except ScalarError as error:
        problems.add_at(1, 1, f"{what}: {error}")
        return None


def _read_state_maps(node: Node | None, problems: Problems) -> list[MapNode]:
    if not isinstance(node, ListNode):
        if node is not None:
            expect_type(node, "states", "a list", problems)
        return []
    if not node.items:
        problems.add(node, "states is an empty list")
    if len(node.items) > MAX_STATES:
        problems.add(node.items[MAX_STATES], f"the chart has {len(node.items)} states, over {MAX_STATES}")
        return []
    state_maps = [read_map(item, "a state", STATE_KEYS, ("name",), problems) for item in node.items]
    return [state_map for state_map in state_maps if state_map is not None]


def _find_state_names(state_maps: Sequence[MapNode]) -> dict[str, ScalarNode]:
    names: dict[str, ScalarNode] = {}
    for state_map in state_maps:
        name = state_map.find("name")
        if isinstance(name, ScalarNode) and NAME.fullmatch(name.text):
            names.setdefault(name.text, name)
    return names


def _read_initial(node: Node | None, drafts: Sequence[StateDraft], scope: Scope) -> str | None:
    """Return the state that runs start in, or the one that was probably meant; check the paths from it."""
    if not drafts:
        return None
    initial = read_scalar(node, "current_state", str, scope.problems)
    if isinstance(node, ScalarNode) and initial not in scope.state_names:
        initial = expect_state(node, "current_state", scope)
    for draft in drafts:
        if draft.state.reported and draft.name != initial:
            message = f"'reported' is for the current_state alone, and {quote(draft.state.name)} is not that"
            scope.problems.add(draft.place, message)
    check_paths(drafts, initial, scope.problems)
    return initial


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedChart:
    """A chart, warnings about what it may not mean, and the text from which it was read.

    `calendars` has for each calendar that the file names what to say at its place if there is no such calendar.
    `rosters` has the place of each roster that the chart goes by, `sets` those where it speaks of labels, `promises`
    those of what it promises.
    """

    chart: Chart
    warnings: tuple[Problem, ...]
    text: str
    calendars: Mapping[str, Problem] = field(default_factory=dict)
    rosters: Mapping[str, Spot] = field(default_factory=dict)
    sets: SetSpots = field(default_factory=SetSpots)
    promises: PromiseNodes = field(default_factory=PromiseNodes)

    @property
    def sha256(self) -> str:
        """The text's hash, which the log keeps."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def parse(
    text: str | bytes,
    *,
    name: str | None = None,
    default_name: str | None = None,
    now: datetime | None = None,
    rosters: Lists | None = None,
) -> ParsedChart:
    """Return the chart that the file's text defines. Raises ChartFileError with every problem in it.

    The chart is called `name` if that is given, else what the file's `chart:` says, else `default_name`. With `now`,
    there is a warning about each instant of a `clock` guard that is past then. `rosters` has the lines of rosters: with
    those of each roster that it goes by, the chart is held to its promises; else that waits until they are known.
    """
    problems, warnings = Problems(), Problems()
    decoded = decode(text, problems)
    root = None if decoded is None else read_nodes(blank_preamble(decoded), problems)
    calendars: dict[str, Node] = {}
    names = Names(name, default_name)
    read = (
        None if root is None else read_chart(root, names, problems, warnings, now, calendars=calendars, rosters=rosters)
    )
    if decoded is None or read is None:
        raise ChartFileError(problems.in_order())
    missing = {
        name: Problem(node.line, node.column, f"there is no calendar {quote(name)}: import it first")
        for name, node in calendars.items()
    }
    return ParsedChart(
        chart=read.chart,
        warnings=warnings.in_order(),
        text=decoded,
        calendars=missing,
        rosters=read.rosters,
        sets=read.sets,
        promises=read.promises,
    )


def hold_to_rosters(parsed: ParsedChart, rosters: Lists, now: datetime) -> ParsedChart:
    """Return the chart with the warnings about its promises, now that the lines of its rosters are known.

    Raises ChartFileError with each promise that it can break.
    """
    problems, warnings = Problems(), Problems()
    hold_to_promises(parsed.chart, parsed.promises, problems, warnings, now=now, rosters=rosters)
    if problems:
        raise ChartFileError(problems.in_order())
    others = (warning for warning in parsed.warnings if warning.message != CHECKED_LATER)
    return replace(parsed, warnings=tuple(sorted((*others, *warnings.in_order()))))
