"""Reads the lines of a roster: a machine a line, then `label=value[,value]...`; and warns about sets left empty.

Blank lines are skipped, and so is whatever follows a `#` at the beginning of a line or after a space.

A set without a machine is allowed, because a roster may fill later. But it is mostly a label or a value that is spelt
otherwise in the inventory, and then every percentage of the set holds at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from app.chart_file.expect import to_label, to_label_value
from app.chart_file.fields import ScalarError, list_nodes, to_machine_id
from app.chart_file.nodes import MapNode, Problems, ScalarNode, quote
from app.core.chart import Chart
from app.core.errors import ChartFileError, Problem
from app.core.expect import FromRoster, Labels, Rosters, Where, read_labels, split_labels

MAX_MACHINES = 1_000_000
MAX_LABELS = 32
MAX_VALUES = 64
# Bytes of a line; a line within the limits above may be long, but not that long.
MAX_LINE = 300_000


class RosterFileError(ChartFileError):
    """The lines of a roster have problems; all of them are in `problems`, in the order of the lines."""


def parse_roster(lines: Iterable[bytes]) -> dict[str, str]:
    """Return each machine with its labels, `rack=r12 shard=7 shard=9`: sorted, one value each.

    `lines` are read one at a time. Raises RosterFileError with every problem.
    """
    problems = Problems()
    found: dict[str, str] = {}
    # Many machines have the same labels: each text is read once, and kept once.
    known: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = _decode(line, number, problems)
        if text is None:
            continue
        machine, _, rest = text.partition(" ")
        labels = known.get(rest)
        if labels is None:
            labels = _read_labels(rest, number, problems)
            if labels is not None:
                known[rest] = labels
        if machine in found:
            problems.add_at(number, 1, f"the machine {quote(machine)} is listed twice")
        elif len(found) >= MAX_MACHINES:
            problems.add_at(number, 1, f"the roster has more than {MAX_MACHINES} machines")
            break
        elif _is_machine(machine, number, problems):
            # After a problem with the labels the machine is kept all the same: it may be listed twice.
            found[machine] = labels or ""
    if problems:
        raise RosterFileError(problems.in_order())
    return found


def parse_labels(text: bytes) -> dict[str, Labels]:
    """Return each machine of a roster with its labels. Raises RosterFileError with every problem."""
    return {machine: read_labels(labels) for machine, labels in parse_roster(text.splitlines()).items()}


def _decode(line: bytes, number: int, problems: Problems) -> str | None:
    """Return the line's words with one space between them; None for a line without words."""
    if len(line) > MAX_LINE:
        problems.add_at(number, 1, f"the line is longer than {MAX_LINE} bytes")
        return None
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        problems.add_at(number, error.start + 1, f"not UTF-8: the byte 0x{line[error.start]:02X}")
        return None
    if number == 1:
        text = text.removeprefix("\ufeff")
    words = text.split()
    if "#" in text:
        words = words[: next((place for place, word in enumerate(words) if word.startswith("#")), len(words))]
    return " ".join(words) or None


def _is_machine(machine: str, number: int, problems: Problems) -> bool:
    if machine.isascii() and machine.isprintable() and len(machine) <= 255 and "=" not in machine:
        return True
    try:
        to_machine_id(machine)
    except ScalarError as error:
        problems.add_at(number, 1, f"the machine {error}")
        return False
    if "=" in machine:
        problems.add_at(number, 1, f"{quote(machine)} looks like a label: a line begins with a machine")
        return False
    return True


def _read_labels(text: str, number: int, problems: Problems) -> str | None:
    """Return the labels as they are kept; None if a problem was noted."""
    labels: dict[str, list[str]] = {}
    before = problems.count
    for word in text.split():
        label, found, written = word.partition("=")
        values = list(dict.fromkeys(written.split(",")))
        try:
            if not found:
                raise ScalarError(f"{quote(word)} is not label=value")
            if to_label(label) in labels:
                raise ScalarError(f"the label {quote(label)} is given twice")
            if len(values) > MAX_VALUES:
                raise ScalarError(f"the label {quote(label)} has {len(values)} values, over {MAX_VALUES}")
            labels[label] = sorted(map(to_label_value, values))
        except ScalarError as error:
            problems.add_at(number, 1, str(error))
    if len(labels) > MAX_LABELS:
        problems.add_at(number, 1, f"the machine has {len(labels)} labels, over {MAX_LABELS}")
    if problems.count != before:
        return None
    return " ".join(f"{label}={value}" for label in sorted(labels) for value in labels[label])


@lru_cache(maxsize=20_000)
def write_labels(labels: str) -> str:
    """Return labels as a line has them: `rack=r12 shard=7,9`."""
    values: dict[str, list[str]] = {}
    for label, value in split_labels(labels):
        values.setdefault(label, []).append(value)
    return " ".join(f"{label}={','.join(listed)}" for label, listed in values.items())


def write_line(machine: str, labels: str) -> str:
    """Return a machine's line."""
    return f"{machine} {write_labels(labels)}\n" if labels else f"{machine}\n"


def digest(lines: Mapping[str, str]) -> str:
    """Return the SHA-256 of a roster's lines, sorted by machine, as the service gives them."""
    made = hashlib.sha256()
    for text in _pieces(lines):
        made.update(text.encode())
    return made.hexdigest()


def _pieces(lines: Mapping[str, str]) -> Iterator[str]:
    for machine in sorted(lines):
        yield write_line(machine, lines[machine])


# Sets and groups

# Values of a label that a warning names.
SHOWN = 5


class Lines(Rosters, Protocol):
    """Versions of rosters, and which of their machines lack a label."""

    def count_without(self, roster: str, version: int, where: Where, label: str) -> int:
        """Return how many machines of the roster that have the labels `where` lack `label`."""


@dataclass(frozen=True, slots=True)
class Term:
    """A label and one of its values in a `where`: line and column are those of the value, or of its label."""

    label: str
    value: str | None
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class WhereSpot:
    """Where the file names the labels of a roster's machines, with its terms and the set that they are together."""

    roster: str
    where: Where
    terms: tuple[Term, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class GroupSpot:
    """Where the file limits the groups of `label` in `state`."""

    state: str
    label: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class SetSpots:
    """The places of a chart file that speak of labels."""

    wheres: tuple[WhereSpot, ...] = ()
    groups: tuple[GroupSpot, ...] = ()


def list_set_spots(root: MapNode, state_maps: Sequence[MapNode]) -> SetSpots:
    """Return where the file speaks of labels. It has been read without a problem."""
    return SetSpots(tuple(_list_wheres((root, *state_maps))), tuple(_list_groups(state_maps)))


def _list_wheres(maps: Sequence[MapNode]) -> Iterator[WhereSpot]:
    for fields in maps:
        expect = fields.find("expect")
        roster = expect.find("roster") if isinstance(expect, MapNode) else None
        where = expect.find("where") if isinstance(expect, MapNode) else None
        if not isinstance(roster, ScalarNode) or not isinstance(where, MapNode):
            continue
        terms, wanted = [], []
        for key, node in where.entries.values():
            values = [item for item in list_nodes(node) if isinstance(item, ScalarNode)]
            terms.append(Term(key.text, None, key.line, key.column))
            terms += [Term(key.text, item.text, item.line, item.column) for item in values]
            wanted.append((key.text, tuple(dict.fromkeys(item.text for item in values))))
        yield WhereSpot(roster.text, tuple(wanted), tuple(terms), where.line, where.column)


def _list_groups(state_maps: Sequence[MapNode]) -> Iterator[GroupSpot]:
    for fields in state_maps:
        name, slots = fields.find("name"), fields.find("slots")
        per = slots.find("per") if isinstance(slots, MapNode) else None
        if isinstance(name, ScalarNode) and isinstance(per, MapNode):
            for key, _ in per.entries.values():
                yield GroupSpot(name.text, key.text, key.line, key.column)


def warn_of_sets(chart: Chart, spots: SetSpots, known: Lines, versions: Mapping[str, int]) -> tuple[Problem, ...]:
    """Return what the lines of rosters say against the labels that the chart names, in the order of the file.

    `versions` has the version of each roster that is known; of another roster nothing is said.
    """
    warnings = Problems()
    for where in spots.wheres:
        if where.roster in versions:
            _judge_where(where, known, versions[where.roster], warnings)
    for group in spots.groups:
        roster, wanted = find_labelled(chart, group.state)
        version = versions.get(roster)
        without = 0 if version is None else known.count_without(roster, version, wanted, group.label)
        if version is not None and without:
            total = known.count_machines(roster, version, wanted)
            message = f"{without} of {total} machines have no label {quote(group.label)}: they are in no group of it"
            warnings.add_at(group.line, group.column, message)
    return warnings.in_order()


def find_labelled(chart: Chart, state: str) -> tuple[str, Where]:
    """Return the roster that has the labels of a state's machines, and which of its machines those are."""
    expect, roster = chart.expect_of(state), chart.find_label_roster(state)
    assert roster is not None  # the parser wants one where groups are limited
    return roster, expect.where if isinstance(expect, FromRoster) else ()


def _judge_where(spot: WhereSpot, known: Lines, version: int, warnings: Problems) -> None:
    before, total = warnings.count, known.count_machines(spot.roster, version, ())
    absent: set[str] = set()
    for term in spot.terms:
        if term.label in absent:
            continue
        if term.value is not None:
            _judge_value(spot.roster, term, known, version, warnings)
        elif known.count_without(spot.roster, version, (), term.label) == total:
            absent.add(term.label)
            message = f"no machine of the roster {quote(spot.roster)} has the label {quote(term.label)}"
            warnings.add_at(term.line, term.column, message)
    if warnings.count == before and not known.count_machines(spot.roster, version, spot.where):
        message = f"no machine of the roster {quote(spot.roster)} has all of these labels: no machine takes part"
        warnings.add_at(spot.line, spot.column, message)


def _judge_value(roster: str, term: Term, known: Lines, version: int, warnings: Problems) -> None:
    assert term.value is not None  # its caller has looked
    if known.count_machines(roster, version, ((term.label, (term.value,)),)):
        return
    values = known.count_groups(roster, version, (), term.label)
    meant = warnings.find_nearest(term.value, values)
    few = sorted(values)[:SHOWN]
    known_values = f"its values are {', '.join(few)}{', ...' if len(values) > SHOWN else ''}"
    hint = known_values if meant is None else f"did you mean {quote(meant)}?"
    message = f"no machine of the roster {quote(roster)} has {quote(f'{term.label}={term.value}')} ({hint})"
    warnings.add_at(term.line, term.column, message)
