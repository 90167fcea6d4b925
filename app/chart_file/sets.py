"""Warnings about the sets and groups of a chart, once the lines of its rosters are known.

A set without a machine is allowed, because a roster may fill later. But it is mostly a label or a value that is spelt
otherwise in the inventory, and then every percentage of the set holds at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.chart_file.fields import list_nodes
from app.chart_file.nodes import MapNode, Problems, ScalarNode, quote
from app.core.chart import Chart
from app.core.errors import Problem
from app.core.expect import FromRoster, Rosters, Where

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
        message = f"no machine of the roster {quote(spot.roster)} has all of these labels: nobody takes part"
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
