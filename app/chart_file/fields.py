"""Reads a node as what is expected in its place, and notes a problem if it is something else.

The functions `to_...` convert a single value's text. The functions `read_...` read a node: they report a misspelt
word once, then continue with the closest match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TypeVar

from app.chart_file.nodes import ListNode, MapNode, Node, Problems, ScalarNode, UnreadableNode, quote
from app.core.chart import CHART_NAME, CHART_NAME_RULE, INT64_MAX, INT64_MIN, Op, round_share
from app.core.expect import Expect as ExpectedSet
from app.core.expect import Fixed
from app.core.window import Schedule

NAME = re.compile(r"[A-Za-z0-9_.: -]{1,128}")
INTEGER = re.compile(r"[+-]?[0-9]+")
PERCENTAGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")
# `1h30m`, as Go, systemd and Prometheus write it: each unit once, the largest first.
SIMPLE_AGE = re.compile(
    r"(?=[0-9])(?:(?P<days>[0-9]+)d)?(?:(?P<hours>[0-9]+)h)?(?:(?P<minutes>[0-9]+)m)?(?:(?P<seconds>[0-9]+)s)?"
)
ISO_AGE = re.compile(
    r"P(?=[0-9T])(?:(?P<weeks>[0-9]+)W)?(?:(?P<days>[0-9]+)D)?"
    r"(?:T(?=[0-9])(?:(?P<hours>[0-9]+)H)?(?:(?P<minutes>[0-9]+)M)?"
    r"(?:(?P<seconds>[0-9]+)(?:\.(?P<fraction>[0-9]{1,6}))?S)?)?"
)
TRUE_WORDS = frozenset({"true", "yes", "on"})
FALSE_WORDS = frozenset({"false", "no", "off"})
MAX_MACHINE_ID = 255
# Python refuses to convert very long digit strings, and a meaningful number, time or instant is never this long.
MAX_LENGTH = 64
MAX_AGE = timedelta(days=36525)


class ScalarError(Exception):
    """The text is not what is expected; the message quotes it."""


def to_name(text: str) -> str:
    """Return the text as the name of a state or a key. Raises ScalarError, like all of these functions."""
    if not NAME.fullmatch(text):
        raise ScalarError(f"{quote(text)} is not 1 to 128 characters of A-Z a-z 0-9 _ . - : and space")
    return text


def to_chart_name(text: str) -> str:
    """Return the text as the name of a chart."""
    if not CHART_NAME.fullmatch(text):
        raise ScalarError(f"{quote(text)} is not {CHART_NAME_RULE}")
    return text


def to_machine_id(text: str) -> str:
    """Return the text as a machine's id."""
    if not 1 <= len(text) <= MAX_MACHINE_ID or not text.isprintable():
        raise ScalarError(f"{quote(text)} is not 1 to {MAX_MACHINE_ID} printable characters")
    if text != text.strip():
        raise ScalarError(f"{quote(text)} has a space at one of its ends")
    return text


def to_boolean(text: str) -> bool:
    """Return the boolean that true, yes, on, false, no or off stands for, in upper or lower case."""
    word = text.lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ScalarError(f"{quote(text)} is not true or false")
    return word in TRUE_WORDS


def to_integer(text: str) -> int:
    """Return the text as a signed 64-bit integer."""
    if not INTEGER.fullmatch(text):
        raise ScalarError(f"{quote(text)} is not an integer")
    if len(text) > MAX_LENGTH or not INT64_MIN <= int(text) <= INT64_MAX:
        raise ScalarError(f"{quote(text)} is out of the 64-bit range")
    return int(text)


def to_count(text: str) -> int:
    """Return the text as a number of machines, at least 1."""
    number = to_integer(text)
    if number < 1:
        raise ScalarError(f"{quote(text)} is less than 1")
    return number


def is_percentage(text: str) -> bool:
    """Return whether the text is a share of `expect`, such as `95%` or `0.5%`."""
    return PERCENTAGE.fullmatch(text) is not None


def spell_plainly(machine: str) -> str:
    """Return the id as others may spell it: in lower case, and without a dot at its end."""
    return machine.casefold().rstrip(".")


def say_alike(one: str, other: str) -> str:
    """Return the warning about two ids, both quoted, that have the same plain spelling."""
    return f"the machines {one} and {other} may be one: the ids are compared exactly"


def to_share(text: str) -> Fraction:
    """Return a percentage as an exact fraction: 1/2 for `50%`."""
    match = PERCENTAGE.fullmatch(text)
    if not match:
        raise ScalarError(f"{quote(text)} is not a percentage")
    if len(text) > MAX_LENGTH:
        raise ScalarError(f"{quote(text)} has too many digits")
    return Fraction(match[1]) / 100


def refuse_none(text: str) -> None:
    """Raise ScalarError if the text, a limit of machines at work, is a share of none of them."""
    if is_percentage(text) and not to_share(text):
        raise ScalarError(f"{quote(text)} lets no machine work")


def to_part(text: str, example: str) -> Fraction:
    """Return a percentage of at most 100% as an exact fraction; the error says that it might be `example`."""
    try:
        share = to_share(text)
    except ScalarError as error:
        raise ScalarError(f"{error}, such as {example}") from None
    if share > 1:
        raise ScalarError(f"{quote(text)} is over 100%")
    return share


def to_age(text: str) -> timedelta:
    """Return the text as a length of time: `90s`, `30m`, `1h30m`, `2d`, or ISO 8601 without years and months."""
    parts = _split_age(text) if len(text) <= MAX_LENGTH else None
    if parts is None:
        raise ScalarError(f"{quote(text)} is not a length of time such as 90s, 30m, 6h, 2d or PT30M")
    try:
        age = timedelta(**parts)
    except OverflowError:
        age = timedelta.max
    if age > MAX_AGE:
        raise ScalarError(f"{quote(text)} is over 100 years")
    return age


def to_span(text: str) -> tuple[timedelta, timedelta]:
    """Return the text as the shortest and the longest of a length of time: `10m..40m`, or `20m` for both."""
    first, dots, last = text.partition("..")
    shortest, longest = to_age(first), to_age(last if dots else first)
    if longest < shortest:
        raise ScalarError(f"{quote(last)} is shorter than {quote(first)}")
    return shortest, longest


def to_lease(text: str) -> timedelta:
    """Return the text as a length of time longer than zero."""
    age = to_age(text)
    if not age:
        raise ScalarError(f"{quote(text)} is not longer than zero")
    return age


def to_instant(text: str) -> datetime:
    """Return the text, an ISO 8601 instant, in UTC; an instant without an offset is taken to be UTC."""
    try:
        instant = datetime.fromisoformat(text[: MAX_LENGTH + 1])
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except ValueError:
        raise ScalarError(f"{quote(text)} is not an ISO 8601 instant such as 2030-01-31T22:00:00+01:00") from None
    except OverflowError:
        raise ScalarError(f"{quote(text)} is out of the range of instants") from None


def _split_age(text: str) -> dict[str, int] | None:
    if simple := SIMPLE_AGE.fullmatch(text):
        return {unit: int(number) for unit, number in simple.groupdict().items() if number}
    if iso := ISO_AGE.fullmatch(text):
        parts = {unit: int(number) for unit, number in iso.groupdict().items() if number and unit != "fraction"}
        return parts | {"microseconds": int((iso["fraction"] or "0").ljust(6, "0"))}
    return None


@dataclass(frozen=True, slots=True)
class Expect:
    """The set that takes part, as far as it could be read; None if the file names no set, and then `lacks` says so."""

    expected: ExpectedSet | None = None
    is_unreadable: bool = False
    lacks: str = "the chart has no 'expect'"

    @property
    def machines(self) -> int | None:
        """How many machines take part, if the file says it."""
        return self.expected.size if isinstance(self.expected, Fixed) else None

    @property
    def is_looked_up(self) -> bool:
        """Whether the size of the set is known only when a guard is judged."""
        return self.expected is not None and not self.expected.is_fixed

    def find_share(self, text: str) -> Fraction | None:
        """Return the share that the text is of a set whose size must be looked up; None if it is something else."""
        return to_share(text) if self.is_looked_up and is_percentage(text) else None

    def resolve(self, text: str, to_number: Callable[[str], int], op: Op = Op.GE) -> int | None:
        """Return the number that the text says, as a number or as a percentage of the machines.

        A percentage is rounded so that it compares by `op` as the exact share does. It is 0 if the number of machines
        must be looked up, and None if `expect` could not be read. Raises ScalarError.
        """
        if not is_percentage(text):
            return to_number(text)
        share = to_share(text)
        if self.is_unreadable:
            return None
        if self.is_looked_up:
            if op in (Op.EQ, Op.NE):
                raise ScalarError(f"{quote(text)} needs a fixed number of machines with the op '{op}'")
            return 0
        if self.machines is None:
            raise ScalarError(f"{quote(text)} is a percentage, but {self.lacks}")
        exact = self.machines * share
        number = round_share(exact, op)
        if number is None:
            never = "never holds" if op is Op.EQ else "always holds"
            raise ScalarError(
                f"{quote(text)} of {self.machines}: it is {float(exact):.6g} machines, which is not a whole number, so"
                f" the op '{op}' {never}"
            )
        if number > INT64_MAX:
            raise ScalarError(f"{quote(text)} of {self.machines} is out of the 64-bit range")
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What reading a state needs of its chart: `expect`, the node of each state's name, and the problems so far.

    `expect` is the set of the state that is being read, `common` the chart's. `now` is the time for which past instants
    are noted in `warnings`; None notes none. `schedule` is the chart's own. `calendars` collects
    the place of each calendar's name.
    """

    problems: Problems
    expect: Expect
    state_names: Mapping[str, ScalarNode]
    warnings: Problems
    now: datetime | None = None
    schedule: Schedule | None = None
    calendars: dict[str, Node] = field(default_factory=dict)
    common: Expect = Expect()


Value = TypeVar("Value")


def describe(node: Node) -> str:
    """Return what kind of node it is, for a message."""
    if isinstance(node, ScalarNode):
        return quote(node.text) if node.text else "empty"
    return "a mapping" if isinstance(node, MapNode) else "a list"


def read_map(
    node: Node, what: str, known: tuple[str, ...], required: tuple[str, ...], problems: Problems
) -> MapNode | None:
    """Return the node as a mapping; note keys that are not `known` and those `required` that are missing."""
    if not isinstance(node, MapNode):
        expect_type(node, what, "a mapping", problems)
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
    """Return the node's text, converted; None if there is no node or a problem was noted."""
    if isinstance(node, ScalarNode):
        try:
            return convert(node.text)
        except ScalarError as error:
            problems.add(node, f"{what}: {error}")
    elif node is not None:
        expect_type(node, what, "a single value", problems)
    return None


def read_word(node: Node | None, what: str, known: tuple[str, ...], problems: Problems) -> str | None:
    """Return which of the words `known` the node's text is, or was probably meant to be."""
    word = read_scalar(node, what, str, problems)
    if isinstance(node, ScalarNode) and word not in known:
        return problems.add_unknown(node, what, node.text, known)
    return word


def list_nodes(node: Node | None) -> list[Node]:
    """Return the nodes of a list, or a single node as a list of one; an empty list if there is no node."""
    if node is None:
        return []
    return node.items if isinstance(node, ListNode) else [node]


def expect_type(node: Node, what: str, expected: str, problems: Problems) -> None:
    """Note that the node must be `expected`; say nothing if it was reported as unreadable before."""
    if not isinstance(node, UnreadableNode):
        problems.add(node, f"{what} must be {expected}, not {describe(node)}")
