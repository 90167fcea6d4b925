"""One entry of `states` to a state."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.chart_file.fields import list_nodes, read_map, read_scalar, read_word
from app.chart_file.guard_reader import Counted, read_guard
from app.chart_file.nodes import ListNode, MapNode, Node, ScalarNode
from app.chart_file.problems import Place, quote
from app.chart_file.scalars import to_integer, to_name
from app.chart_file.scope import Scope
from app.chart_file.slot_reader import SLOT_KEYS, read_slots
from app.core.chart import CLOCK_KEYS, Attribute, Func, State, Transition

STATE_KEYS = ("name", "description", "func", "current", "target", *SLOT_KEYS)
FUNC_WORDS = tuple(map(str, Func))
ATTRIBUTE_KEYS = ("key", "value")
TARGET_KEYS = ("name", "when")


@dataclass(frozen=True, slots=True)
class StateDraft:
    """A state as far as it could be read.

    `targets` holds for an unknown target the state that was probably meant; `is_doubtful`: it may lead
    elsewhere, too.
    """

    place: Place
    name: str | None
    state: State
    targets: tuple[str, ...]
    is_doubtful: bool


@dataclass(slots=True)
class _Targets:
    transitions: list[Transition] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    has_unknown: bool = False


def read_state(fields: MapNode, scope: Scope) -> StateDraft:
    """Return the state as far as it can be read."""
    name = _read_state_name(fields, scope)
    func = _read_func(fields, scope)
    start = _read_start(fields.find("current"), scope)
    _check_parts(fields, func, scope)
    targets = _read_targets(fields.find("target"), Counted(name or "", func, start), scope)
    state = State(
        name=name or "",
        func=func,
        attributes=tuple(Attribute(key, value) for key, value in (start or {}).items() if value is not None),
        transitions=tuple(targets.transitions),
        slots=read_slots(fields, func, start, scope),
        description=read_scalar(fields.find("description"), "description", str, scope.problems) or "",
    )
    is_final = "func" not in fields.entries and "target" not in fields.entries
    is_doubtful = targets.has_unknown or not (is_final or targets.names)
    return StateDraft(fields.find("name") or fields, name, state, tuple(targets.names), is_doubtful)


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
    if func is Func.TIME and has_attributes:
        scope.problems.add(fields.entries["current"][0], "a time state has no attributes")
    if func in {Func.INCREMENT, Func.DECREMENT} and not has_attributes:
        scope.problems.add(func_node, f"func {func} needs attributes: 'current' is missing")


def _read_start(node: Node | None, scope: Scope) -> dict[str, int | None] | None:
    """Return each attribute's starting value (None: unreadable); None where not all keys could be read."""
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
        scope.problems.add(node, f"{quote(key)} is the clock's and cannot be an attribute")
    elif key in start:
        scope.problems.add(node, f"a second attribute {quote(key)} in one state")
    return key


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
        meant = report_no_state(node, "target", scope)
        targets.names.extend([] if meant is None else [meant])
    return None


def report_no_state(node: ScalarNode, what: str, scope: Scope) -> str | None:
    """Note that the node names no state; return the state that was probably meant."""
    meant = scope.problems.find_nearest(node.text, scope.state_names.keys())
    hint = "" if meant is None else f" (did you mean {quote(meant)}?)"
    scope.problems.add(node, f"{what} {quote(node.text)} is no state{hint}")
    return meant
