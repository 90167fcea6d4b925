"""A state's `slots`, `lease` and `on_expire` to a slot rule."""

from __future__ import annotations

from collections.abc import Collection

from app.chart_file.fields import list_nodes, read_scalar, read_word
from app.chart_file.nodes import ListNode, MapNode, Node, ScalarNode
from app.chart_file.problems import quote
from app.chart_file.scalars import to_count, to_lease
from app.chart_file.scope import Scope
from app.core.chart import Func, OnExpire, SlotRule

SLOT_KEYS = ("slots", "lease", "on_expire")
ON_EXPIRE_WORDS = tuple(map(str, OnExpire))
FAILED_KEY = "failed"


def read_slots(fields: MapNode, func: Func | None, attributes: Collection[str] | None, scope: Scope) -> SlotRule | None:
    """Return the state's slot rule; None where it has none or a problem was noted.

    `attributes` None: they could not be read.
    """
    lease = read_scalar(fields.find("lease"), "lease", to_lease, scope.problems)
    on_expire = _read_on_expire(fields, attributes, scope)
    if fields.find_key("slots") is None:
        _refuse_without_slots(fields, scope)
        return None
    if func not in {Func.INCREMENT, Func.DECREMENT}:
        scope.problems.add(fields.entries["slots"][0], "'slots' needs func increment or decrement")
    stages = _read_stages(fields.entries["slots"][1], scope)
    lease_node = fields.find("lease")
    return SlotRule(
        stages=tuple(limit for _, limit in stages),
        written=tuple(text for text, _ in stages),
        lease=lease,
        lease_written=lease_node.text if isinstance(lease_node, ScalarNode) else None,
        on_expire=on_expire,
    )


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
    for item in list_nodes(node):
        limit = read_scalar(item, "slots", lambda text: scope.expect.resolve(text, to_count), scope.problems)
        if limit is not None and isinstance(item, ScalarNode):
            stages.append((item.text, limit))
    return stages
