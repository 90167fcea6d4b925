"""Reads when a chart is open (`windows`, `except`, `fit`) and who reports on a state (`who`, `not`)."""

from __future__ import annotations

import re
from datetime import time
from functools import lru_cache
from zoneinfo import available_timezones

from app.chart_file.fields import (
    NAME,
    ScalarError,
    Scope,
    list_nodes,
    read_map,
    read_scalar,
    read_word,
    to_boolean,
    to_chart_name,
)
from app.chart_file.nodes import ListNode, MapNode, Node, ScalarNode, quote
from app.core.chart import Approvers, Func
from app.core.window import DAYS, LABEL_MARK, Schedule, Window

SCHEDULE_KEYS = ("windows", "except", "fit")
PEOPLE_KEYS = ("who", "not")
WINDOW_KEYS = ("days", "from", "to", "zone")
CLOCK = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9])")
APPROVERS, IMPORTER, OPEN = "approvers", "importer", "open"
DEFAULT_ZONE = "UTC"


@lru_cache(maxsize=1)
def list_zones() -> frozenset[str]:
    """Return the names of all IANA time zones that this system knows."""
    return frozenset(available_timezones())


def read_schedule(fields: MapNode, scope: Scope) -> Schedule | None:
    """Return what a chart or a state says of its windows; None if it says nothing. Problems are noted in `scope`."""
    if not any(name in fields.entries for name in SCHEDULE_KEYS):
        return None
    return Schedule(
        windows=_read_windows(fields.find("windows"), scope),
        calendars=_read_calendars(fields.find("except"), scope),
        fit=read_scalar(fields.find("fit"), "fit", to_boolean, scope.problems),
    )


def _read_windows(node: Node | None, scope: Scope) -> tuple[Window, ...] | None:
    if node is None:
        return None
    found = [_read_window(item, scope) for item in list_nodes(node)]
    return tuple(window for window in found if window is not None)


def _read_window(node: Node, scope: Scope) -> Window | None:
    fields = read_map(node, "a window", WINDOW_KEYS, ("from", "to"), scope.problems)
    if fields is None:
        return None
    start = read_scalar(fields.find("from"), "from", lambda text: _to_clock(text, is_end=False), scope.problems)
    end = read_scalar(fields.find("to"), "to", lambda text: _to_clock(text, is_end=True), scope.problems)
    days = _read_days(fields.find("days"), scope)
    zone = _read_zone(fields.find("zone"), scope)
    return None if start is None or end is None or zone is None else Window(start, end, zone, days)


def _to_clock(text: str, *, is_end: bool) -> time:
    match = CLOCK.fullmatch(text)
    if match is None:
        raise ScalarError(f"{quote(text)} is not a time of the day such as 22:00")
    hour, minute = int(match[1]), int(match[2])
    if hour == 24:
        if minute or not is_end:
            raise ScalarError(f"{quote(text)} is past the end of the day" if minute else "the day begins at 00:00")
        # A window that ends at 00:00 ends at the start of the next day.
        hour = 0
    return time(hour, minute)


def _read_days(node: Node | None, scope: Scope) -> tuple[int, ...]:
    if isinstance(node, ListNode) and not node.items:
        scope.problems.add(node, "days is an empty list: leave it out for every day")
    words = [read_word(item, "days", DAYS, scope.problems) for item in list_nodes(node)]
    return tuple(sorted({DAYS.index(word) for word in words if word is not None}))


def _read_zone(node: Node | None, scope: Scope) -> str | None:
    if node is None:
        return DEFAULT_ZONE
    zone = read_scalar(node, "zone", str, scope.problems)
    if zone is None or not isinstance(node, ScalarNode):
        return None
    if zone.startswith(LABEL_MARK):
        if NAME.fullmatch(zone[1:]):
            return zone
        scope.problems.add(node, f"zone: {quote(zone)} does not name a label, as $tz does")
        return None
    if zone in list_zones():
        return zone
    nearest = scope.problems.find_nearest(zone, sorted(list_zones()))
    hint = "one is Europe/Berlin" if nearest is None else f"did you mean {quote(nearest)}?"
    scope.problems.add(node, f"zone: {quote(zone)} is not an IANA time zone ({hint})")
    return None


def _read_calendars(node: Node | None, scope: Scope) -> tuple[str, ...] | None:
    if node is None:
        return None
    names: list[str] = []
    for item in list_nodes(node):
        name = read_scalar(item, "except", to_chart_name, scope.problems)
        if name is None:
            continue
        if name in names:
            scope.problems.add(item, f"the calendar {quote(name)} is listed twice")
        names.append(name)
        scope.calendars.setdefault(name, item)
    return tuple(names)


def check_chart_schedule(fields: MapNode, schedule: Schedule | None, scope: Scope) -> None:
    """Note what a chart's own windows lack."""
    node = fields.find("windows")
    if isinstance(node, ListNode) and not node.items:
        scope.problems.add(node, "windows is an empty list")
    if schedule is not None and schedule.fit and not ("windows" in fields.entries or "except" in fields.entries):
        scope.problems.add(fields.entries["fit"][0], "'fit' needs 'windows' or 'except'")


def check_state_schedule(fields: MapNode, own: Schedule | None, scope: Scope) -> None:
    """Note what a state's own `fit` lacks."""
    if own is None or not own.fit:
        return
    place = fields.entries["fit"][0]
    resolved = own.within(scope.schedule)
    if not resolved.can_close and not ("windows" in fields.entries or "except" in fields.entries):
        scope.problems.add(place, "'fit' needs 'windows' or 'except'")
    if "slots" not in fields.entries or "lease" not in fields.entries:
        scope.problems.add(place, "'fit' needs 'slots' with a 'lease': it is the lease that has to fit")


def read_open_time(node: Node | None, schedule: Schedule | None, scope: Scope) -> Schedule | None:
    """Return the schedule by which an `elapsed` guard counts; None if it counts all time (no `of: open`)."""
    word = read_word(node, "of", (OPEN,), scope.problems)
    if node is None or word is None:
        return None
    if schedule is None or not schedule.can_close:
        scope.problems.add(node, "'of: open' needs 'windows' or 'except' in the state or the chart")
    elif schedule.needs_labels:
        scope.problems.add(node, "'of: open' needs windows with a zone of their own: a '$' zone differs by machine")
    return schedule


def read_approvers(fields: MapNode, func: Func | None, scope: Scope) -> Approvers | None:
    """Return the rule of a state on which people report; None if machines do."""
    who = read_word(fields.find("who"), "who", (APPROVERS,), scope.problems)
    excluded = read_word(fields.find("not"), "not", (IMPORTER,), scope.problems)
    if "who" not in fields.entries:
        if "not" in fields.entries:
            scope.problems.add(fields.entries["not"][0], f"'not' needs 'who: {APPROVERS}'")
        return None
    place = fields.entries["who"][0]
    if func is not Func.INCREMENT:
        scope.problems.add(place, f"'who: {APPROVERS}' needs func {Func.INCREMENT}")
    if "slots" in fields.entries:
        scope.problems.add(place, f"'who: {APPROVERS}' and 'slots' exclude each other: people hold no slots")
    return None if who is None else Approvers(not_importer=excluded is not None)
