"""Reads when a chart is open (`windows`, `except`, `fit`), the calendars that close it, and who reports (`who`, `not`).

A calendar is iCalendar text (RFC 5545); what cannot be honoured is a problem at its line. An event has DTSTART, and
DTEND or DURATION, or lasts whole days; it may repeat by RRULE, but not at EXDATE. The text is checked line by line
here. The libraries icalendar and recurring-ical-events find the times at which events happen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

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
from app.chart_file.nodes import ListNode, MapNode, Node, Problems, ScalarNode, decode, quote
from app.core.chart import Approvers, Func
from app.core.errors import CalendarFileError
from app.core.window import DAYS, LABEL_MARK, Interval, Schedule, Window, find_instant, merge

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


# Calendars

MAX_EVENTS = 1000
# Times at which the events of one calendar happen within the horizon.
MAX_TIMES = 10_000
_LINE = re.compile(
    r'(?P<name>[A-Za-z0-9-]+)(?P<parameters>(?:;[A-Za-z0-9-]+=(?:"[^"]*"|[^";:]*))*):(?P<value>.*)', re.DOTALL
)
_PARAMETER = re.compile(r';([A-Za-z0-9-]+)=("[^"]*"|[^";:]*)')
_DATE, _TIME = re.compile(r"[0-9]{8}"), re.compile(r"[0-9]{8}T[0-9]{6}Z?")
_DURATION = re.compile(
    r"\+?P(?=[0-9T])(?:[0-9]{1,5}W|(?:[0-9]{1,5}D)?(?:T(?=[0-9])(?:[0-9]{1,6}H)?(?:[0-9]{1,6}M)?(?:[0-9]{1,6}S)?)?)"
)
_DAY = r"(?:[+-]?[1-9][0-9]?)?(?:MO|TU|WE|TH|FR|SA|SU)"
_NUMBERS = re.compile(r"[+-]?[0-9]{1,3}(?:,[+-]?[0-9]{1,3})*")
_PARTS = {
    "FREQ": re.compile(r"DAILY|WEEKLY|MONTHLY|YEARLY"),
    "INTERVAL": re.compile(r"[1-9][0-9]{0,3}"),
    "COUNT": re.compile(r"[1-9][0-9]{0,3}"),
    "UNTIL": re.compile(f"{_DATE.pattern}|{_TIME.pattern}"),
    "WKST": re.compile(r"MO|TU|WE|TH|FR|SA|SU"),
    "BYDAY": re.compile(f"{_DAY}(?:,{_DAY})*"),
    **dict.fromkeys(("BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYSETPOS"), _NUMBERS),
}
# What says when an event happens, in a way that is not honoured here.
_REFUSED = {
    "RDATE": "more dates are not honoured: write an event for each",
    "EXRULE": "rules of exceptions are not honoured: write EXDATE",
    "RECURRENCE-ID": "a changed occurrence is not honoured: write EXDATE and an event of its own",
}
_KNOWN = {("", "VCALENDAR"), ("VCALENDAR", "VEVENT"), ("VCALENDAR", "VTIMEZONE"), ("VEVENT", "VALARM")}
_TIMED = ("DTSTART", "DTEND", "EXDATE")
_ONCE = ("DTSTART", "DTEND", "DURATION", "RRULE")


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    name: str
    parameters: dict[str, str]
    value: str
    text: str


@dataclass(slots=True)
class _Event:
    line: int
    lines: list[_Line] = field(default_factory=list)

    def find(self, name: str) -> _Line | None:
        return next((item for item in self.lines if item.name == name), None)


@dataclass(frozen=True, slots=True)
class ParsedCalendar:
    """A calendar: its text, its events as texts of their own, and the zone of times that name none."""

    text: str
    events: tuple[str, ...]
    zone: str

    def list_intervals(self, since: datetime, until: datetime) -> tuple[Interval, ...]:
        """Return the union of the events that happen between two instants, as intervals in order that do not touch."""
        found = [item for text in self.events for item in _list_times(text, ZoneInfo(self.zone), since, until)]
        return tuple(merge(sorted(found)))


def parse_calendar(source: str | bytes, tried: Interval | None = None) -> ParsedCalendar:
    """Return the calendar that the text is. Raises CalendarFileError with every problem, each with its line.

    With `tried` the events of that time are looked for: if they happen too often, that is a problem.
    """
    problems = Problems()
    text = decode(source, problems)
    events, zone = ([], "UTC") if text is None else _read(text, problems)
    for event in events:
        _check_event(event, problems)
    if text is None or problems:
        raise CalendarFileError(problems.in_order())
    kept = [event for event in events if (event.find("STATUS") or event.lines[0]).value.upper() != "CANCELLED"]
    calendar = ParsedCalendar(text, tuple(_write(event) for event in kept), zone)
    if tried is not None:
        _try_events(kept, calendar, tried, problems)
    if problems:
        raise CalendarFileError(problems.in_order())
    return calendar


def _read(text: str, problems: Problems) -> tuple[list[_Event], str]:
    events: list[_Event] = []
    opened: list[str] = []
    zone = "UTC"
    lines = list(_list_lines(text, problems))
    if not lines or (lines[0].name, lines[0].value.upper()) != ("BEGIN", "VCALENDAR"):
        problems.add_at(1, 1, "a calendar begins with BEGIN:VCALENDAR")
        return [], zone
    for line in lines:
        inside, value = opened[-1] if opened else "", line.value.upper()
        if line.name == "BEGIN":
            _open(line, value, opened, events, problems)
        elif line.name == "END":
            if value != inside:
                problems.add_at(line.number, 1, f"END:{value[:40]} ends nothing: {inside or 'nothing'} is open")
                return [], zone
            opened.pop()
        elif inside == "VEVENT":
            events[-1].lines.append(line)
        elif inside == "VCALENDAR" and line.name == "X-WR-TIMEZONE":
            zone = _check_zone(line, line.value, problems)
    if opened:
        problems.add_at(lines[-1].number, 1, f"the calendar ends inside {opened[-1]}")
    if not events and not problems:
        problems.add_at(1, 1, "the calendar has no event")
    return events, zone


def _open(line: _Line, value: str, opened: list[str], events: list[_Event], problems: Problems) -> None:
    inside = opened[-1] if opened else ""
    # Time zones go by their IANA names, and an alarm says nothing of when an event happens.
    is_known = (inside, value) in _KNOWN
    if not is_known and inside != "VTIMEZONE":
        problems.add_at(line.number, 1, f"{quote(value)} in {inside or 'nothing'} is not honoured: only events are")
    opened.append(value)
    if value == "VEVENT":
        events.append(_Event(line.number))
        if len(events) == MAX_EVENTS + 1:
            problems.add_at(line.number, 1, f"the calendar has more than {MAX_EVENTS} events")


def _list_lines(text: str, problems: Problems) -> Iterator[_Line]:
    """Yield the lines, unfolded, each with the number of its first line."""
    folded: list[tuple[int, str]] = []
    for number, line in enumerate(re.split("\r\n|\n|\r", text.removeprefix("\ufeff")), 1):
        if line[:1] in (" ", "\t") and folded:
            folded[-1] = (folded[-1][0], folded[-1][1] + line[1:])
        elif line:
            folded.append((number, line))
    for number, line in folded:
        match = _LINE.fullmatch(line)
        if match is None:
            problems.add_at(number, 1, f"{quote(line)} is not a line NAME:VALUE")
            continue
        parameters = {name.upper(): value.strip('"') for name, value in _PARAMETER.findall(match["parameters"])}
        yield _Line(number, match["name"].upper(), parameters, match["value"].strip(), line)


def _check_event(event: _Event, problems: Problems) -> None:
    before = problems.count
    for line in event.lines:
        if line.name in _REFUSED:
            problems.add_at(line.number, 1, f"{line.name}: {_REFUSED[line.name]}")
        elif line.name in _TIMED:
            _check_times(line, problems)
        elif line.name == "RRULE":
            _check_rule(line, problems)
        elif line.name == "DURATION" and (not _DURATION.fullmatch(line.value) or not re.search("[1-9]", line.value)):
            problems.add_at(line.number, 1, f"DURATION: {quote(line.value)} is not a duration longer than zero")
    for name in _ONCE:
        again = [line for line in event.lines if line.name == name][1:]
        if again:
            problems.add_at(again[0].number, 1, f"an event has one {name}")
    _check_length(event, problems, is_readable=problems.count == before)


def _check_length(event: _Event, problems: Problems, *, is_readable: bool) -> None:
    start, end, duration = event.find("DTSTART"), event.find("DTEND"), event.find("DURATION")
    if start is None:
        problems.add_at(event.line, 1, "the event has no DTSTART")
    elif end is not None and duration is not None:
        problems.add_at(duration.number, 1, "an event has DTEND or DURATION, not both")
    elif end is not None and _is_date(end) is not _is_date(start):
        problems.add_at(end.number, 1, "DTEND and DTSTART are both dates, or both have a time")
    elif end is None and duration is None and not _is_date(start):
        problems.add_at(start.number, 1, "the event has neither DTEND nor DURATION, and so covers no time")
    elif end is not None and is_readable and _find_time(end) <= _find_time(start):
        problems.add_at(end.number, 1, "the event ends before it begins")


def _find_time(line: _Line) -> datetime:
    """Return when the time of a checked line comes; one without a zone as if it were in UTC."""
    local = _read_time(line.value)
    assert local is not None  # the line was checked
    zone = line.parameters.get("TZID")
    return local if zone is None else find_instant(local.date(), local.time(), ZoneInfo(zone))


def _is_date(line: _Line) -> bool:
    return _DATE.fullmatch(line.value) is not None


def _check_times(line: _Line, problems: Problems) -> None:
    zone = line.parameters.get("TZID")
    if zone is not None:
        _check_zone(line, zone, problems)
    for text in line.value.split(","):
        if line.name != "EXDATE" and text != line.value:
            problems.add_at(line.number, 1, f"{line.name} has one value")
            return
        if _read_time(text) is None:
            problems.add_at(line.number, 1, f"{line.name}: {quote(text)} is not a time such as 20300131T220000Z")


def _read_time(text: str) -> datetime | None:
    """Return a date or a time as it is written, in UTC whatever its zone; None if it is not one."""
    if not (_DATE.fullmatch(text) or _TIME.fullmatch(text)):
        return None
    try:
        return datetime.fromisoformat(text.rstrip("Z")).replace(tzinfo=UTC)
    except ValueError:
        return None


def _check_zone(line: _Line, zone: str, problems: Problems) -> str:
    if zone in list_zones():
        return zone
    nearest = problems.find_nearest(zone, sorted(list_zones()))
    hint = "" if nearest is None else f" (did you mean {quote(nearest)}?)"
    problems.add_at(line.number, 1, f"{line.name}: {quote(zone)} is not an IANA time zone{hint}")
    return "UTC"


def _check_rule(line: _Line, problems: Problems) -> None:
    parts: dict[str, str] = {}
    for item in line.value.upper().split(";"):
        name, _, value = item.partition("=")
        pattern = _PARTS.get(name)
        if pattern is None:
            problems.add_at(line.number, 1, f"RRULE: {quote(item)} is not honoured")
        elif not pattern.fullmatch(value):
            problems.add_at(line.number, 1, f"RRULE: {quote(item)} is not honoured, or not well formed")
        parts[name] = value
    if "FREQ" not in parts:
        problems.add_at(line.number, 1, "RRULE: FREQ is missing")
    if "COUNT" in parts and "UNTIL" in parts:
        problems.add_at(line.number, 1, "RRULE: COUNT and UNTIL exclude each other")


def _write(event: _Event) -> str:
    """Return the event as a calendar of its own, with what says when it happens alone."""
    times = [line.text for line in event.lines if line.name in (*_ONCE, "EXDATE")]
    return "\r\n".join(["BEGIN:VCALENDAR", "BEGIN:VEVENT", "UID:1", *times, "END:VEVENT", "END:VCALENDAR", ""])


def _try_events(events: list[_Event], calendar: ParsedCalendar, tried: Interval, problems: Problems) -> None:
    total = 0
    for event, text in zip(events, calendar.events, strict=True):
        try:
            found = _list_times(text, ZoneInfo(calendar.zone), tried.start, tried.end)
        except Exception as error:
            problems.add_at(event.line, 1, f"the event cannot be read: {' '.join(str(error).split())[:200]}")
            continue
        total += len(found)
        if total > MAX_TIMES:
            problems.add_at(
                event.line, 1, f"the events happen more than {MAX_TIMES} times in {(tried.end - tried.start).days} days"
            )
            return


def _list_times(text: str, zone: ZoneInfo, since: datetime, until: datetime) -> list[Interval]:
    # The libraries take 0.4 s to load, which a command that needs no calendar should not pay.
    import recurring_ical_events  # type: ignore[import-untyped]  # it has no stubs
    from icalendar import Calendar

    found = recurring_ical_events.of(Calendar.from_ical(text)).between(since, until)
    return [Interval(_to_instant(item.start, zone), _to_instant(item.end, zone)) for item in found]


def _to_instant(local: date | datetime, zone: ZoneInfo) -> datetime:
    """Return when a local time comes; one without a zone, or a whole day, is in the calendar's zone."""
    if not isinstance(local, datetime):
        return find_instant(local, time(0), zone)
    own = local.tzinfo
    if own is None or isinstance(own, ZoneInfo):
        return find_instant(local.date(), local.time(), own or zone)
    return local.astimezone(UTC)
