"""Reads what a chart promises (`never`, `always`), and refuses the chart if it can break a promise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.chart_file.fields import (
    ScalarError,
    Scope,
    expect_type,
    list_nodes,
    read_map,
    read_scalar,
    to_age,
)
from app.chart_file.nodes import MapNode, Node, Problems, ScalarNode, quote
from app.core.breaking import Broken, check_promises
from app.core.chart import Chart, State
from app.core.crowd import find_uncovered
from app.core.memory import Lists
from app.core.promises import LIMIT, MEASURES, Always, Never, Promises

PROMISE_KEYS = ("never", "always")
PLACES = ("while", "at")
CHECKED_LATER = (
    "this promise is checked when the rosters are known: with --roster here, at the import, and when a roster changes"
)
NEVER_KEYS = (*MEASURES, *PLACES)
ALWAYS_KEYS = ("ends", "within")


@dataclass(slots=True)
class PromiseNodes:
    """The promises of a chart file, each with its place in the file."""

    never: list[tuple[Never, Node]] = field(default_factory=list)
    always: list[tuple[Always, Node]] = field(default_factory=list)

    @property
    def promises(self) -> Promises:
        """The promises alone."""
        return Promises(tuple(one for one, _ in self.never), tuple(one for one, _ in self.always))

    def find_place(self, promise: Never | Always) -> Node:
        """Return where the promise stands in the file."""
        return next(node for one, node in (*self.never, *self.always) if one is promise)


def read_promises(fields: MapNode, states: Mapping[str, State], scope: Scope) -> PromiseNodes:
    """Return the promises that can be read; problems are noted in `scope`."""
    found = PromiseNodes()
    for node in list_nodes(fields.find("never")):
        never = _read_never(node, states, scope)
        if never is not None:
            found.never.append((never, node))
    for node in list_nodes(fields.find("always")):
        always = _read_always(node, states, scope)
        if always is not None:
            found.always.append((always, node))
    return found


def _read_never(node: Node, states: Mapping[str, State], scope: Scope) -> Never | None:
    fields = read_map(node, "a promise of 'never'", NEVER_KEYS, (), scope.problems)
    if fields is None:
        return None
    measure, place = _find_one(fields, MEASURES, scope.problems), _find_one(fields, PLACES, scope.problems)
    if measure is None or place is None:
        return None
    limit = fields.find(measure)
    written = read_scalar(limit, measure, _to_limit, scope.problems)
    name = _read_state(fields.find(place), place, states, scope)
    if written is None or name is None or limit is None:
        return None
    never = Never(measure, written, place, name)
    is_sized = scope.expect.machines is not None or scope.expect.is_looked_up or scope.expect.is_unreadable
    if never.is_share and not is_sized:
        scope.problems.add(limit, f"{measure}: {quote(written)} is a percentage, but the chart has no 'expect'")
        return None
    if never.is_while and states[name].is_final:
        scope.problems.add(
            fields.entries[place][1], f"while: {quote(name)} is final, so nothing happens in it; say 'at'"
        )
        return None
    return never


def _find_one(fields: MapNode, words: tuple[str, ...], problems: Problems) -> str | None:
    given = [word for word in words if fields.find(word) is not None]
    if len(given) == 1:
        return given[0]
    problems.add(fields, f"a promise of 'never' needs {' or '.join(map(repr, words))}{', not both' if given else ''}")
    return None


def _to_limit(text: str) -> str:
    if not LIMIT.fullmatch(text):
        raise ScalarError(f"{quote(text)} is not a limit such as '>5', '>=6' or '>2%'")
    return text


def _read_state(node: Node | None, what: str, states: Mapping[str, State], scope: Scope) -> str | None:
    name = read_scalar(node, what, str, scope.problems)
    if name is None or name in states:
        return name
    if isinstance(node, ScalarNode):
        meant = scope.problems.find_nearest(name, states.keys())
        hint = "" if meant is None else f" (did you mean {quote(meant)}?)"
        scope.problems.add(node, f"{what} {quote(name)} is not a state of this chart{hint}")
    return None


def _read_always(node: Node, states: Mapping[str, State], scope: Scope) -> Always | None:
    fields = read_map(node, "a promise of 'always'", ALWAYS_KEYS, ("ends",), scope.problems)
    if fields is None:
        return None
    ends = [_read_ending(item, states, scope) for item in list_nodes(fields.find("ends"))]
    within = fields.find("within")
    length = read_scalar(within, "within", _to_length, scope.problems)
    if "ends" in fields.entries and not ends:
        expect_type(fields.entries["ends"][1], "ends", "a final state, or a list of them", scope.problems)
    if not ends or None in ends or (within is not None and length is None):
        return None
    written = within.text if isinstance(within, ScalarNode) else None
    return Always(tuple(name for name in ends if name is not None), length, written)


def _read_ending(node: Node, states: Mapping[str, State], scope: Scope) -> str | None:
    name = _read_state(node, "ends", states, scope)
    if name is None or states[name].is_final:
        return name
    scope.problems.add(node, f"ends: {quote(name)} is not a final state")
    return None


def _to_length(text: str) -> timedelta:
    age = to_age(text)
    if not age:
        raise ScalarError(f"{quote(text)} is not longer than zero")
    return age


def hold_to_promises(
    chart: Chart,
    found: PromiseNodes,
    problems: Problems,
    warnings: Problems,
    *,
    now: datetime | None = None,
    rosters: Lists | None = None,
) -> None:
    """Note each promise that the chart can break, with the story that breaks it; doubts are warnings.

    A chart that goes by rosters is judged if `rosters` has the lines of all. Else a warning says when it will be.
    """
    if not chart.promises:
        return
    if not set(chart.rosters).issubset(rosters or ()):
        for place in (node for _, node in (*found.never, *found.always)):
            warnings.add_at(place.line, place.column, CHECKED_LATER)
        return
    uncovered = find_uncovered(chart, rosters)
    if uncovered is not None:
        promises: list[Never | Always] = [*chart.promises.never, *chart.promises.always]
        for place in map(found.find_place, promises):
            why = f"a promise cannot be proved of a chart that {uncovered}; leave the promise out"
            problems.add_at(place.line, place.column, why)
        return
    checked = check_promises(chart, now, rosters)
    for broken in checked.broken:
        _note(broken, found, problems)
    for broken in checked.doubtful:
        _note(broken, found, warnings)


def _note(broken: Broken, found: PromiseNodes, problems: Problems) -> None:
    place = found.find_place(broken.promise)
    problems.add_at(place.line, place.column, broken.because, broken.story)
