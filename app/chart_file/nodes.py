"""Reads YAML as nodes that know their place and whose values are text; no other object is built from a chart file.

First come the problems that reading notes, then the checks of the text, then the nodes. Size and depth are limited,
and anchors, aliases, tags, repeated keys and second documents are refused here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import yaml

from app.core.errors import Problem

try:
    from yaml import CSafeLoader as EventParser
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeLoader as EventParser  # type: ignore[assignment]  # the same methods, no common base

MAX_PROBLEMS = 1000
MAX_QUOTED = 60
# Comparing words is slow, and a hostile file must not keep the server busy for minutes.
MAX_COMPARISONS = 10_000
MAX_COMPARED_LENGTH = 40
# Shorter words are too short for a guess.
MIN_COMPARED_LENGTH = 3


class Place(Protocol):
    """A place in the file; line and column count from 1."""

    @property
    def line(self) -> int:
        """The line, from 1."""

    @property
    def column(self) -> int:
        """The column, from 1."""


def quote(text: str) -> str:
    """Return `text` quoted, printable and cut to a length that fits a message."""
    return repr(text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 3] + "...")


class Problems:
    """The problems found so far; those after the first `MAX_PROBLEMS` are only counted."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._left_out = 0
        self._comparisons_left = MAX_COMPARISONS

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def count(self) -> int:
        """How many problems were noted."""
        return len(self._found) + self._left_out

    def add(self, place: Place, message: str) -> None:
        """Note a problem at `place`."""
        self.add_at(place.line, place.column, message)

    def add_at(self, line: int, column: int, message: str, story: str = "") -> None:
        """Note a problem at a line and column, both from 1, and the story that shows it."""
        if len(self._found) < MAX_PROBLEMS:
            self._found.append(Problem(line, column, message, story))
        else:
            self._left_out += 1

    def in_order(self) -> tuple[Problem, ...]:
        """Return the problems by position; if some were left out, the last one says how many."""
        found = sorted(self._found)
        if self._left_out:
            found.append(Problem(found[-1].line, found[-1].column, f"and {self._left_out} more problems"))
        return tuple(found)

    def find_nearest(self, word: str, known: Collection[str]) -> str | None:
        """Return which of `known` was probably meant by `word`, or None.

        It is always None after too many comparisons in one file.
        """
        if not MIN_COMPARED_LENGTH <= len(word) <= MAX_COMPARED_LENGTH:
            return None
        candidates = {name.lower(): name for name in islice(known, self._comparisons_left)}
        self._comparisons_left -= len(candidates)
        comparable = [name for name in candidates if len(name) <= MAX_COMPARED_LENGTH]
        nearest = difflib.get_close_matches(word.lower(), comparable, n=1)
        return candidates[nearest[0]] if nearest else None

    def add_unknown(self, place: Place, what: str, word: str, known: Collection[str]) -> str | None:
        """Note that `word` is not one of the words `known`; return the closest one, or None."""
        nearest = self.find_nearest(word, known)
        hint = f"did you mean {quote(nearest)}?" if nearest is not None else f"known: {', '.join(known)}"
        self.add(place, f"unknown {what} {quote(word)} ({hint})")
        return nearest


MAX_BYTES = 1024 * 1024
BYTE_ORDER_MARK = "\ufeff"
LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# Every character that YAML 1.1 does not call printable, lone surrogates included.
FORBIDDEN_CHARACTER = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def decode(source: str | bytes, problems: Problems) -> str | None:
    """Return the source as text; None, with a problem noted, if it is too big, not UTF-8 or not printable."""
    if _size(source) > MAX_BYTES:
        problems.add_at(1, 1, f"the chart file is over {MAX_BYTES} bytes")
        return None
    text = _decode_utf8(source, problems) if isinstance(source, bytes) else source
    if text is None:
        return None
    content = text.removeprefix(BYTE_ORDER_MARK)
    forbidden = FORBIDDEN_CHARACTER.search(content)
    if forbidden is None:
        return text
    line, column = find_position(content, forbidden.start())
    problems.add_at(line, column, f"the character U+{ord(forbidden[0]):04X} is not allowed")
    return None


def blank_preamble(text: str) -> str:
    """Return the text without a byte order mark; a first line `--- NAME ---` is emptied, so that lines keep numbers."""
    text = text.removeprefix(BYTE_ORDER_MARK)
    first_break = LINE_BREAK.search(text)
    end = first_break.start() if first_break else len(text)
    first_line = text[:end].rstrip()
    is_heading = len(first_line) > len("---  ---") and first_line.startswith("--- ") and first_line.endswith(" ---")
    return text[end:] if is_heading else text


def find_position(text: str, offset: int) -> tuple[int, int]:
    """Return line and column, from 1, of the character at `offset`."""
    breaks = list(LINE_BREAK.finditer(text, 0, offset))
    return len(breaks) + 1, offset - (breaks[-1].end() if breaks else 0) + 1


def _size(source: str | bytes) -> int:
    return len(source if isinstance(source, bytes) else source.encode("utf-8", "surrogatepass"))


def _decode_utf8(source: bytes, problems: Problems) -> str | None:
    try:
        return source.decode("utf-8")
    except UnicodeDecodeError as error:
        before = source[: error.start].decode("utf-8").removeprefix(BYTE_ORDER_MARK)
        problems.add_at(*find_position(before, len(before)), f"not UTF-8: the byte 0x{source[error.start]:02X}")
        return None


MAX_DEPTH = 12


@dataclass(slots=True)
class ScalarNode:
    """A single value, as its text."""

    line: int
    column: int
    text: str


@dataclass(slots=True)
class ListNode:
    """A list of nodes."""

    line: int
    column: int
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class MapNode:
    """A mapping. `entries` has, by the text of each key, the key's node and the value's node."""

    line: int
    column: int
    entries: dict[str, tuple[ScalarNode, Node]] = field(default_factory=dict)

    def find(self, key: str) -> Node | None:
        """Return the node of the value of `key`, or None."""
        entry = self.entries.get(key)
        return entry[1] if entry else None

    def find_key(self, key: str) -> ScalarNode | None:
        """Return the node of the key itself, which has its place, or None."""
        entry = self.entries.get(key)
        return entry[0] if entry else None


@dataclass(slots=True)
class UnreadableNode:
    """Something that was reported as a problem already; readers report nothing more about it."""

    line: int
    column: int


Node = ScalarNode | ListNode | MapNode | UnreadableNode


def read_nodes(text: str, problems: Problems) -> Node | None:
    """Return the root of the only document; None, with a problem noted, if it cannot be read."""
    builder = _Builder(problems)
    parser = EventParser(text)
    try:
        while builder.wants_more and (event := parser.get_event()):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        _report_syntax(error, text, problems)
        return None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the pure Python parser, at an impossible "\U" escape
        problems.add_at(builder.line, builder.column, f"not YAML: {error}")
        return None
    finally:
        parser.dispose()
    if builder.root is None and not builder.has_given_up:
        problems.add_at(1, 1, _say_empty(text))
    return None if builder.has_given_up else builder.root


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not been read yet.

    In a mapping, `key` is the key whose value comes next; it is None if the entry will be dropped.
    """

    node: ListNode | MapNode
    key: ScalarNode | None = None
    is_value_next: bool = False


class _Builder:
    """Builds the tree from events, one by one, without recursion."""

    def __init__(self, problems: Problems) -> None:
        self.root: Node | None = None
        self.wants_more = True
        self.has_given_up = False
        self.line = 1
        self.column = 1
        self._problems = problems
        self._open: list[_Open] = []
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        """Add one event to the tree."""
        if event.start_mark is not None:
            self.line, self.column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, yaml.ScalarEvent):
            self._refuse_extras(event)
            self._place(self._make_scalar(event))
        elif isinstance(event, yaml.MappingStartEvent):
            self._start(event, MapNode(self.line, self.column))
        elif isinstance(event, yaml.SequenceStartEvent):
            self._start(event, ListNode(self.line, self.column))
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.AliasEvent):
            self._report(f"an alias ({quote(f'*{event.anchor}')}) is not allowed")
            self._place(UnreadableNode(self.line, self.column))
        elif isinstance(event, yaml.DocumentStartEvent):
            self._start_document(event)
        elif isinstance(event, yaml.StreamEndEvent):
            self.wants_more = False

    def _report(self, message: str) -> None:
        self._problems.add_at(self.line, self.column, message)

    def _give_up(self, message: str) -> None:
        self._report(message)
        self.has_given_up = True
        self.wants_more = False

    def _start_document(self, event: yaml.DocumentStartEvent) -> None:
        self._documents += 1
        if self._documents > 1:
            self._give_up("a second document is not allowed")
        elif event.tags:
            self._report("a %TAG directive is not allowed")

    def _start(self, event: yaml.CollectionStartEvent, node: ListNode | MapNode) -> None:
        self._refuse_extras(event)
        if len(self._open) == MAX_DEPTH:
            self._give_up(f"nested deeper than {MAX_DEPTH}")
            return
        self._place(node)
        self._open.append(_Open(node))

    def _refuse_extras(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.anchor is not None:
            self._report(f"an anchor ({quote(f'&{event.anchor}')}) is not allowed")
        if event.tag == UNQUOTED_OP:
            self._report('YAML takes != for a tag (write it in quotes: "!=")')
        elif event.tag is not None:
            self._report(f"a tag ({quote(event.tag)}) is not allowed")

    def _make_scalar(self, event: yaml.ScalarEvent) -> Node:
        if event.tag == UNQUOTED_OP:
            return UnreadableNode(self.line, self.column)  # its mistake has been reported
        # An escape in double quotes is the only way to write a character that the source itself must not contain.
        forbidden = FORBIDDEN_CHARACTER.search(event.value) if event.style == '"' else None
        if forbidden is None:
            return ScalarNode(self.line, self.column, event.value)
        self._report(f"the character U+{ord(forbidden[0]):04X} is not allowed")
        return UnreadableNode(self.line, self.column)

    def _place(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if isinstance(parent.node, ListNode):
            parent.node.items.append(node)
        elif parent.is_value_next:
            parent.is_value_next = False
            if parent.key is not None:
                parent.node.entries[parent.key.text] = (parent.key, node)
        else:
            parent.is_value_next = True
            parent.key = self._check_key(node, parent.node)

    def _check_key(self, node: Node, parent: MapNode) -> ScalarNode | None:
        if not isinstance(node, ScalarNode):
            if not isinstance(node, UnreadableNode):
                self._report("a key must be a plain word, not a list or mapping")
            return None
        first = parent.find_key(node.text)
        if first is None:
            return node
        self._report(f"repeated key {quote(node.text)} (first at line {first.line})")
        return None


# The op that YAML takes for a tag.
UNQUOTED_OP = "!="
# An op, or a percent sign, that YAML takes for one of its own signs.
_SIGN = re.compile(r"[>%@`][>=<!]*")


def _say_empty(text: str) -> str:
    if text.startswith("#") and len(LINE_BREAK.split(text.rstrip())) == 1:
        # `curl -d @FILE` takes the line ends out, so the comment at the top swallows the whole file.
        return "the chart file is empty: its only line is a comment. curl -d joins lines, --data-binary @FILE does not"
    return "the chart file is empty"


def _report_syntax(error: yaml.MarkedYAMLError, text: str, problems: Problems) -> None:
    mark = error.problem_mark or error.context_mark
    lines = LINE_BREAK.split(text)
    line, column = (mark.line, mark.column) if mark else (0, 0)
    if line >= len(lines):  # libyaml reports the end of the text one line too far
        line, column = len(lines) - 1, len(lines[-1])
    message = f"not YAML: {error.problem or error.context}"
    if error.context and error.context_mark and error.context_mark.line != line:
        message += f", {error.context} (from line {error.context_mark.line + 1} on)"
    if lines[line][column : column + 1] == "\t":
        message += " (a tab: YAML is indented with spaces)"
    if sign := _SIGN.match(lines[line], column):
        message += f' (write it in quotes: "{sign[0]}")'
    problems.add_at(line + 1, column + 1, message)
