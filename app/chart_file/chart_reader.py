"""A chart file's root to a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.chart_file.checks import check_paths, collect_warnings
from app.chart_file.fields import read_map, read_scalar, report_type
from app.chart_file.nodes import ListNode, MapNode, Node, ScalarNode
from app.chart_file.problems import Problems, quote
from app.chart_file.scalars import (
    NAME,
    ScalarError,
    to_boolean,
    to_chart_name,
    to_count,
    to_machine_id,
)
from app.chart_file.scope import Expect, Scope
from app.chart_file.state_reader import STATE_KEYS, StateDraft, read_state, report_no_state
from app.core.chart import Chart

CHART_KEYS = ("chart", "description", "current_state", "expect", "require_machine", "states")
MAX_STATES = 10_000


@dataclass(frozen=True, slots=True)
class Names:
    """What the chart may be called: by whoever imports it, and by its file's stem."""

    given: str | None
    fallback: str | None


def read_chart(root: Node, names: Names, problems: Problems, warnings: Problems) -> Chart | None:
    """Return the chart; None where problems were noted, by this or before it."""
    fields = read_map(root, "a chart file", CHART_KEYS, ("current_state", "states"), problems)
    if fields is None:
        return None
    name = _read_chart_name(fields, names, problems, warnings)
    description = read_scalar(fields.find("description"), "description", str, problems)
    require_machine = read_scalar(fields.find("require_machine"), "require_machine", to_boolean, problems)
    state_maps = _read_state_maps(fields.find("states"), problems)
    scope = Scope(problems, _read_expect(fields.find("expect"), problems), _find_state_names(state_maps))
    drafts = [read_state(state_map, scope) for state_map in state_maps]
    initial = _read_initial(fields.find("current_state"), drafts, scope)
    if problems or name is None or initial is None:
        return None
    states = {draft.state.name: draft.state for draft in drafts}
    collect_warnings(states, initial, scope.state_names, warnings)
    return Chart(
        name=name,
        initial=initial,
        states=states,
        description=description or "",
        expect=scope.expect.machines,
        roster=scope.expect.roster,
        require_machine=require_machine or False,
    )


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
            report_type(node, "states", "a list", problems)
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


def _read_expect(node: Node | None, problems: Problems) -> Expect:
    if node is None:
        return Expect()
    if isinstance(node, ListNode):
        roster = _read_roster(node, problems)
        return Expect(machines=len(roster), roster=roster) if roster else Expect(is_unreadable=True)
    if isinstance(node, MapNode):
        report_type(node, "expect", "a number or a list of machine ids", problems)
        return Expect(is_unreadable=True)
    machines = read_scalar(node, "expect", to_count, problems)
    return Expect(machines=machines, is_unreadable=machines is None)


def _read_roster(node: ListNode, problems: Problems) -> tuple[str, ...] | None:
    if not node.items:
        problems.add(node, "expect is an empty list")
    lines: dict[str, int] = {}
    for item in node.items:
        machine = read_scalar(item, "expect", to_machine_id, problems)
        if machine in lines:
            problems.add(item, f"the machine {quote(machine)} is listed twice (first at line {lines[machine]})")
        elif machine is not None:
            lines[machine] = item.line
    return tuple(lines) if len(lines) == len(node.items) else None


def _read_initial(node: Node | None, drafts: Sequence[StateDraft], scope: Scope) -> str | None:
    """Return the state that runs start in, or else the one that was probably meant; check the paths from it."""
    if not drafts:
        return None
    initial = read_scalar(node, "current_state", str, scope.problems)
    if isinstance(node, ScalarNode) and initial not in scope.state_names:
        initial = report_no_state(node, "current_state", scope)
    check_paths(drafts, initial, scope.problems)
    return initial
