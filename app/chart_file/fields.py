"""Reading a node as what is expected in its place; a node that is something else is a problem.

A misspelt word is a problem once: reading goes on as if it said what was probably meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from app.chart_file.nodes import ListNode, MapNode, Node, ScalarNode, UnreadableNode
from app.chart_file.problems import Problems, quote
from app.chart_file.scalars import ScalarError

Value = TypeVar("Value")


def describe(node: Node) -> str:
    """Return what a node is, for a message."""
    if isinstance(node, ScalarNode):
        return quote(node.text) if node.text else "empty"
    return "a mapping" if isinstance(node, MapNode) else "a list"


def read_map(
    node: Node, what: str, known: tuple[str, ...], required: tuple[str, ...], problems: Problems
) -> MapNode | None:
    """Return the node as a mapping of `known` keys, of which none of `required` is missing."""
    if not isinstance(node, MapNode):
        report_type(node, what, "a mapping", problems)
        return None
    for key, value in [entry for name, entry in node.entries.items() if name not in known]:
        meant = problems.add_unknown(key, "key", key.text, known)
        if meant is not None:
            node.entries.setdefault(meant, (key, value))
    for name in required:
        if name not in node.entries:
            problems.add(node, f"{what} lacks the key {quote(name)}")
    return node


def read_scalar(node: Node | None, what: str, convert: Callable[[str], Value], problems: Problems) -> Value | None:
    """Return the node's text converted; None where there is no node or a problem was noted."""
    if isinstance(node, ScalarNode):
        try:
            return convert(node.text)
        except ScalarError as error:
            problems.add(node, f"{what}: {error}")
    elif node is not None:
        report_type(node, what, "a single value", problems)
    return None


def read_word(node: Node | None, what: str, known: tuple[str, ...], problems: Problems) -> str | None:
    """Return the one of the few words `known` that the node's text is, or was probably meant to be."""
    word = read_scalar(node, what, str, problems)
    if isinstance(node, ScalarNode) and word not in known:
        return problems.add_unknown(node, what, node.text, known)
    return word


def list_nodes(node: Node | None) -> list[Node]:
    """Return one node or many as a list; none for a missing one."""
    if node is None:
        return []
    return node.items if isinstance(node, ListNode) else [node]


def report_type(node: Node, what: str, expected: str, problems: Problems) -> None:
    """Note that the node is not what is expected, unless it is already known to be unreadable."""
    if not isinstance(node, UnreadableNode):
        problems.add(node, f"{what} must be {expected}, not {describe(node)}")
