"""Writes a chart, with its current state and values, as a chart file that can be imported again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from app.chart_file.checks import reach
from app.chart_file.windows import APPROVERS, IMPORTER, OPEN
from app.core.chart import Attribute, Chart, ElapsedGuard, Func, Guard, OnExpire, SlotRule, State, Transition
from app.core.expect import Expect, FromRoster, Listed, Number, Reporters
from app.core.promises import Promises
from app.core.window import DAYS, Schedule, Window

try:
    from yaml import CSafeDumper as Dumper
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeDumper as Dumper  # type: ignore[assignment]  # the same methods, no common base

TEXT_TAG, INTEGER_TAG, BOOLEAN_TAG = (f"tag:yaml.org,2002:{name}" for name in ("str", "int", "bool"))
LIST_TAG = "tag:yaml.org,2002:seq"
# The widest line there is, so that lines are never folded.
LINE_WIDTH = 2**31 - 1

Pairs = list[tuple[str, yaml.Node]]


def dump(
    chart: Chart, *, state: str, values: Mapping[str, int], reports: Mapping[str, str | None] | None = None
) -> str:
    """Return the chart file with `state` as its current state and with `values` in that state's attributes.

    `reports` has the attribute on which each machine is counted there, or None if its report counts nothing.
    """
    live = [
        _dump_state(one, values, reports or {}) if one.name == state else _dump_state(one, {}, {})
        for one in _order_states(chart)
    ]
    pairs: Pairs = [("chart", _text(chart.name))]
    if chart.description:
        pairs.append(("description", _text(chart.description)))
    pairs.append(("current_state", _text(state)))
    pairs.extend(_dump_expect(chart.common))
    if chart.require_machine:
        pairs.append(("require_machine", _boolean(True)))
    pairs.extend(_dump_schedule(chart.schedule))
    pairs += _dump_promises(chart.promises)
    pairs.append(("states", yaml.SequenceNode(LIST_TAG, live, flow_style=False)))
    written: str = yaml.serialize(_map(pairs, is_flow=False), Dumper=Dumper, allow_unicode=True, width=LINE_WIDTH)
    return written


def _dump_promises(promises: Promises) -> Pairs:
    never = [_map([(one.measure, _text(one.written)), (one.place, _text(one.state))]) for one in promises.never]
    always = [
        _map(
            [("ends", _one_or_list([_text(name) for name in one.ends]))]
            + ([("within", _text(one.within_written))] if one.within_written is not None else [])
        )
        for one in promises.always
    ]
    kinds = (("never", never), ("always", always))
    return [(kind, yaml.SequenceNode(LIST_TAG, nodes, flow_style=False)) for kind, nodes in kinds if nodes]


def _order_states(chart: Chart) -> list[State]:
    """Return the states in their order, or with the initial one first if the first does not lead to all others.

    The file's `current_state` is where the chart is now, so `parse` has to find the paths from the file's first state.
    """
    states = list(chart.states.values())
    graph = {one.name: [transition.target for transition in one.transitions] for one in states}
    if len(reach([states[0].name], graph)) == len(states):
        return states
    return sorted(states, key=lambda one: one.name != chart.initial)


def _dump_state(state: State, values: Mapping[str, int], reports: Mapping[str, str | None]) -> yaml.Node:
    pairs: Pairs = [("name", _text(state.name))]
    if state.description:
        pairs.append(("description", _text(state.description)))
    pairs.extend(_dump_expect(state.expect))
    if state.including:
        pairs.append(("including", _list([_text(name) for name in state.including])))
    if state.func is not None:
        pairs.append(("func", _text(state.func)))
    if state.slots is not None:
        pairs.extend(_dump_slots(state.slots))
    pairs.extend(_dump_schedule(state.schedule))
    if state.approvers is not None:
        pairs.append(("who", _text(APPROVERS)))
        if state.approvers.not_importer:
            pairs.append(("not", _text(IMPORTER)))
    if state.attributes:
        pairs.append(("current", _one_or_list([_dump_attribute(one, values) for one in state.attributes])))
    reported = _dump_reported(state, reports)
    if reported:
        pairs.append(("reported", _map(reported)))
    if state.transitions:
        pairs.append(("target", _one_or_list([_dump_transition(one, state.func) for one in state.transitions])))
    return _map(pairs, is_flow=False)


def _dump_expect(expect: Expect | None) -> Pairs:
    match expect:
        case Number(machines):
            return [("expect", _integer(machines))]
        case Listed():
            return [("expect", _list([_text(machine) for machine in expect.machines]))]
        case FromRoster(roster, where):
            labels = [(label, _one_or_list([_text(value) for value in values])) for label, values in where]
            return [("expect", _map([("roster", _text(roster)), *([("where", _map(labels))] if where else [])]))]
        case Reporters(states, key):
            names = _list([_text(name) for name in states])
            return [("expect", _map([("reported", names), *([("key", _text(key))] if key is not None else [])]))]
    return []


def _dump_slots(slots: SlotRule) -> Pairs:
    total = _one_or_list([_number_or_text(text) for text in slots.written])
    per = _map([(limit.label, _number_or_text(limit.written)) for limit in slots.per])
    pairs: Pairs = [("slots", _map([("total", total), ("per", per)]) if slots.per else total)]
    if slots.lease_written is not None:
        pairs.append(("lease", _text(slots.lease_written)))
    if slots.on_expire is not OnExpire.HOLD:
        pairs.append(("on_expire", _text(slots.on_expire)))
    return pairs


def _dump_reported(state: State, reports: Mapping[str, str | None]) -> Pairs:
    machines: dict[str, list[str]] = {attribute.key: [] for attribute in state.attributes if state.is_counting}
    for machine, key in sorted(reports.items()):
        if key in machines:
            machines[key].append(machine)
    return [(key, _list([_text(machine) for machine in names])) for key, names in machines.items() if names]


def _dump_schedule(schedule: Schedule | None) -> Pairs:
    pairs: Pairs = []
    if schedule is None:
        return pairs
    if schedule.windows is not None:
        pairs.append(("windows", _list([_dump_window(window) for window in schedule.windows])))
    if schedule.calendars is not None:
        pairs.append(("except", _list([_text(name) for name in schedule.calendars])))
    if schedule.fit is not None:
        pairs.append(("fit", _boolean(schedule.fit)))
    return pairs


def _dump_window(window: Window) -> yaml.Node:
    days: Pairs = [("days", _list([_text(DAYS[day]) for day in window.days]))] if window.days else []
    # In quotes: YAML 1.1 takes 22:00 for a number in base 60.
    start, end = (yaml.ScalarNode(TEXT_TAG, f"{clock:%H:%M}", style='"') for clock in (window.start, window.end))
    return _map([*days, ("from", start), ("to", end), ("zone", _text(window.zone))])


def _dump_attribute(attribute: Attribute, values: Mapping[str, int]) -> yaml.Node:
    value = values.get(attribute.key, attribute.value)
    return _map([("key", _text(attribute.key)), ("value", _integer(value))])


def _dump_transition(transition: Transition, func: Func | None) -> yaml.Node:
    return _map([("name", _text(transition.target)), ("when", _dump_guard(transition.guard, func))])


def _dump_guard(guard: Guard, func: Func | None) -> yaml.Node:
    pairs: Pairs = [("key", _text(guard.key))]
    if not guard.is_clock and (func is None or guard.op is not func.reached_op):
        pairs.append(("op", _text(guard.op)))
    pairs.append(("value", _number_or_text(guard.written)))
    if isinstance(guard, ElapsedGuard) and guard.schedule is not None:
        pairs.append(("of", _text(OPEN)))
    return _map(pairs)


def _text(text: str) -> yaml.Node:
    # Only escapes in double quotes keep line breaks exactly.
    return yaml.ScalarNode(TEXT_TAG, str(text), style=None if text.isprintable() else '"')


def _boolean(flag: bool) -> yaml.Node:
    return yaml.ScalarNode(BOOLEAN_TAG, "true" if flag else "false")


def _integer(number: int) -> yaml.Node:
    return yaml.ScalarNode(INTEGER_TAG, str(number))


def _number_or_text(written: str) -> yaml.Node:
    is_canonical = written.isascii() and written.isdigit() and str(int(written)) == written
    return _integer(int(written)) if is_canonical else _text(written)


def _list(nodes: Sequence[yaml.Node]) -> yaml.Node:
    return yaml.SequenceNode(LIST_TAG, list(nodes), flow_style=True)


def _one_or_list(nodes: Sequence[yaml.Node]) -> yaml.Node:
    return nodes[0] if len(nodes) == 1 else _list(nodes)


def _map(pairs: Pairs, *, is_flow: bool = True) -> yaml.Node:
    return yaml.MappingNode("tag:yaml.org,2002:map", [(_text(key), node) for key, node in pairs], flow_style=is_flow)
