"""Reads guards (`when`) and slot rules (`slots`, `lease`, `on_expire`): what depends on how a state counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from app.chart_file.expect import read_per
from app.chart_file.fields import (
    Scope,
    list_nodes,
    read_map,
    read_scalar,
    read_word,
    refuse_none,
    to_age,
    to_count,
    to_instant,
    to_integer,
    to_lease,
)
from app.chart_file.nodes import ListNode, MapNode, Node, ScalarNode, quote
from app.chart_file.windows import read_open_time
from app.core.chart import (
    FAILED_KEY,
    ClockGuard,
    CountGuard,
    ElapsedGuard,
    Func,
    Guard,
    OnExpire,
    Op,
    SlotRule,
)
from app.core.expect import GroupLimit
from app.core.window import Schedule

GUARD_KEYS = ("key", "value", "op", "of")
OP_WORDS = tuple(map(str, Op))
COUNTING_WORDS = tuple(str(func) for func in Func if func.is_counting)
ClockReader = Callable[[str], Guard]
# How the text of `value` becomes a guard, for each guard key that belongs to the clock.
CLOCK_READERS: Mapping[str, ClockReader] = {
    "clock": lambda text: ClockGuard(to_instant(text), text),
    "elapsed": lambda text: ElapsedGuard(to_age(text), text),
}
# An attribute cannot have one of these names.
CLOCK_KEYS = tuple(CLOCK_READERS)
# A func moves values up to a threshold or down to it. For each op that waits for this: how far past the threshold the
# value must be.
PAST_THRESHOLD = {Op.GE: {Op.GE: 0, Op.EQ: 0, Op.GT: 1}, Op.LE: {Op.LE: 0, Op.EQ: 0, Op.LT: -1}}


@dataclass(frozen=True, slots=True)
class Counted:
    """How the state of a guard counts: its func and its starting values, each None if it could not be read.

    `schedule` says when the state is open, if anything closes it.
    """

    state_name: str
    func: Func | None
    start: Mapping[str, int | None] | None
    schedule: Schedule | None = None


def read_guard(node: Node, counted: Counted, scope: Scope) -> Guard | None:
    """Return the guard; None if a problem was noted."""
    fields = read_map(node, "a guard", GUARD_KEYS, ("key", "value"), scope.problems)
    if fields is None:
        return None
    key = read_scalar(fields.find("key"), "key", str, scope.problems)
    if key in CLOCK_KEYS:
        return _read_clock_guard(key, fields, counted, scope)
    if "of" in fields.entries:
        scope.problems.add(fields.entries["of"][0], "'of' belongs to a guard on 'elapsed'")
    return _read_count_guard(key, fields, counted, scope)


def _read_clock_guard(key: str, fields: MapNode, counted: Counted, scope: Scope) -> Guard | None:
    op = read_word(fields.find("op"), "op", OP_WORDS, scope.problems)
    if op not in {None, Op.GE}:
        scope.problems.add(fields.entries["op"][1], f"a guard on {quote(key)} can only have the op '>=', not {op!r}")
    value = fields.find("value")
    guard = read_scalar(value, key, CLOCK_READERS[key], scope.problems)
    if isinstance(guard, ClockGuard) and value is not None and scope.now is not None and guard.instant <= scope.now:
        message = f"{quote(guard.written)} is past: the transition is taken as soon as its state is entered"
        scope.warnings.add(value, message)
    if isinstance(guard, ElapsedGuard):
        return replace(guard, schedule=read_open_time(fields.find("of"), counted.schedule, scope))
    if "of" in fields.entries:
        scope.problems.add(fields.entries["of"][0], "'of' belongs to a guard on 'elapsed'")
    return guard


def _read_count_guard(key: str | None, fields: MapNode, counted: Counted, scope: Scope) -> Guard | None:
    if key is not None:
        _check_key(key, fields, counted, scope)
    op = _read_op(fields.find("op"), counted, scope)
    value = fields.find("value")
    threshold = read_scalar(
        value, "value", lambda text: scope.expect.resolve(text, to_integer, op or Op.GE), scope.problems
    )
    if key is None or op is None or threshold is None or not isinstance(value, ScalarNode):
        return None
    guard = CountGuard(key, op, threshold, value.text, scope.expect.find_share(value.text))
    _check_threshold(guard, value, counted, scope)
    return guard


def _check_key(key: str, fields: MapNode, counted: Counted, scope: Scope) -> None:
    place = fields.entries["key"][1]
    if counted.func is not None and not counted.func.is_counting:
        allowed = " and ".join(map(quote, CLOCK_KEYS))
        scope.problems.add(place, f"a {counted.func} state has guards on {allowed} only, not on {quote(key)}")
    elif counted.start is not None and key not in counted.start:
        nearest = scope.problems.find_nearest(key, [*counted.start, *CLOCK_KEYS])
        hint = "" if nearest is None else f" (did you mean {quote(nearest)}?)"
        scope.problems.add(place, f"state {quote(counted.state_name)} has no attribute {quote(key)}{hint}")


def _read_op(node: Node | None, counted: Counted, scope: Scope) -> Op | None:
    if node is None:
        return counted.func.reached_op if counted.func else None
    word = read_word(node, "op", OP_WORDS, scope.problems)
    return None if word is None else Op(word)


def _check_threshold(guard: CountGuard, place: ScalarNode, counted: Counted, scope: Scope) -> None:
    machines = scope.expect.machines
    start = counted.start.get(guard.key) if counted.start else None
    if machines is None or start is None:
        return
    needed = _count_needed(guard, start, counted.func)
    if needed > machines:
        why = f"it needs {needed} machines, but {machines} take part"
        scope.problems.add(place, f"the threshold {quote(guard.written)} is above expect: {why}")


def _count_needed(guard: CountGuard, start: int, func: Func | None) -> int:
    """Return how many reports make the guard hold; 0 if the func leads away from it."""
    if func is None or func.reached_op is None:
        return 0
    past = PAST_THRESHOLD[func.reached_op].get(guard.op)
    return 0 if past is None else func.count_missing(start, guard.threshold + past)


SLOT_KEYS = ("slots", "lease", "on_expire")
TOTAL_KEYS = ("total", "per")
ON_EXPIRE_WORDS = tuple(map(str, OnExpire))


def read_slots(fields: MapNode, func: Func | None, attributes: Collection[str] | None, scope: Scope) -> SlotRule | None:
    """Return the state's slot rule; None if it has no slots.

    `attributes` is None if they could not be read.
    """
    lease = read_scalar(fields.find("lease"), "lease", to_lease, scope.problems)
    on_expire = _read_on_expire(fields, attributes, scope)
    if fields.find_key("slots") is None:
        _refuse_without_slots(fields, scope)
        return None
    if func is None or not func.is_counting:
        scope.problems.add(fields.entries["slots"][0], f"'slots' needs func {' or '.join(COUNTING_WORDS)}")
    total, per = _read_total(fields.entries["slots"][1], scope)
    stages = [] if total is None else _read_stages(total, scope)
    shares = tuple(scope.expect.find_share(text) for text, _ in stages)
    lease_node = fields.find("lease")
    return SlotRule(
        stages=tuple(limit for _, limit in stages),
        written=tuple(text for text, _ in stages),
        lease=lease,
        lease_written=lease_node.text if isinstance(lease_node, ScalarNode) else None,
        on_expire=on_expire,
        shares=shares if any(shares) else (),
        per=per,
    )


def _read_total(node: Node, scope: Scope) -> tuple[Node | None, tuple[GroupLimit, ...]]:
    """Return the limits of the state's slots, and the limits of the groups if there are any."""
    if not isinstance(node, MapNode):
        return node, ()
    fields = read_map(node, "slots", TOTAL_KEYS, ("total",), scope.problems)
    return (None, ()) if fields is None else (fields.find("total"), read_per(fields.find("per"), scope))


def _refuse_without_slots(fields: MapNode, scope: Scope) -> None:
    for name in ("lease", "on_expire"):
        key = fields.find_key(name)
        if key is not None:
            scope.problems.add(key, f"{quote(name)} needs 'slots'")


def _read_on_expire(fields: MapNode, attributes: Collection[str] | None, scope: Scope) -> OnExpire:
    node = fields.find("on_expire")
    word = read_word(node, "on_expire", ON_EXPIRE_WORDS, scope.problems)
    if node is None or word is None or word == OnExpire.HOLD:
        return OnExpire.HOLD
    if fields.find_key("lease") is None:
        scope.problems.add(node, f"on_expire {word} needs a 'lease'")
    if word == OnExpire.FAIL and attributes is not None and FAILED_KEY not in attributes:
        scope.problems.add(node, f"on_expire {word} needs an attribute {FAILED_KEY!r}")
    return OnExpire(word)


def _read_stages(node: Node, scope: Scope) -> list[tuple[str, int]]:
    if isinstance(node, ListNode) and not node.items:
        scope.problems.add(node, "slots is an empty list")
    stages = []

    def to_limit(text: str) -> int | None:
        refuse_none(text)
        return scope.expect.resolve(text, to_count)

    for item in list_nodes(node):
        limit = read_scalar(item, "slots", to_limit, scope.problems)
        if limit is not None and isinstance(item, ScalarNode):
            stages.append((item.text, limit))
    return stages
