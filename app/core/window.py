"""When a chart is open: windows in local time, events that close, and operators' acts that open.

A chart file says windows (`Window`), the calendars whose events close (`except`), and whether a claim must fit:
together a `Schedule`. What is true of one chart at one time (acts of opening, pauses, the calendars' events) is its
`Hours`. `find_open` yields the intervals in which a chart is open; everything else here follows from them.

Every interval is half open: its start belongs to it, its end does not. Instants are aware and in UTC.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# A zone written `$LABEL` is the zone that the machine's own label names.
LABEL_MARK = "$"
# Openings are looked for this far ahead, and calendars' events must reach the core this far.
HORIZON = timedelta(days=400)
# How far back the end of the last opening is looked for.
WEEKS_BACK = timedelta(days=15)
# Open time that is counted (`of: open`) is looked for this far ahead; windows may be short and rare.
COUNTING_HORIZON = timedelta(days=3660)
# What closes a chart if nothing in particular does.
OUTSIDE = "outside its windows"
# The local date differs by a day at most from the date in UTC, and a window may begin a day before it ends.
_DAYS_BEFORE = 3
ONE_DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)

# What is known of a machine: each label's values.
Labels = Mapping[str, tuple[str, ...]]


class Interval(NamedTuple):
    """A stretch of time from `start` up to, but not including, `end`."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Window:
    """The hours from `start` to `end` of each of `days` (0 is Monday; none is every day) in the local time of `zone`.

    The days are those of the start. An `end` that is not after the start is on the next day.
    """

    start: time
    end: time
    zone: str
    days: tuple[int, ...] = ()

    @property
    def label(self) -> str | None:
        """The label that names the machine's zone; None if the window has a zone of its own."""
        return self.zone[1:] if self.zone.startswith(LABEL_MARK) else None

    def opens_on(self, day: date) -> bool:
        """Return whether the window opens on the local date `day`."""
        return not self.days or day.weekday() in self.days

    def on(self, day: date, zone: ZoneInfo) -> Interval:
        """Return the window that opens on the local date `day`; it is empty if the clock skips all of it."""
        last_day = day if self.end > self.start else day + ONE_DAY
        return Interval(find_instant(day, self.start, zone), find_instant(last_day, self.end, zone))


@lru_cache(maxsize=8192)
def find_instant(day: date, clock: time, zone: ZoneInfo) -> datetime:
    """Return when the local time `clock` is reached on `day`.

    Of two equal local times it is the first. A time that the clock skips is the next instant that exists.
    """
    local = datetime.combine(day, clock)
    before = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _local(before, zone) == local:
        return before
    # The clock skips this time. In a gap, fold=1 counts with the offset after the change, and so lies before it.
    low, high = local.replace(tzinfo=zone, fold=1).astimezone(UTC), before
    while (seconds := (high - low) // SECOND) > 1:
        middle = low + SECOND * (seconds // 2)
        low, high = (low, middle) if _local(middle, zone) >= local else (middle, high)
    return high


def _local(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a chart or a state is open, as the file says it; each part is None if the file does not say it.

    Without windows it is always open. `calendars` are those whose events close it (`except`). With `fit`, a claim is
    refused if its lease would outlast the opening.
    """

    windows: tuple[Window, ...] | None = None
    calendars: tuple[str, ...] | None = None
    fit: bool | None = None

    @property
    def can_close(self) -> bool:
        """Whether there is anything that closes."""
        return bool(self.windows or self.calendars)

    @property
    def needs_labels(self) -> bool:
        """Whether the answer depends on the machine that asks."""
        return any(window.label is not None for window in self.windows or ())

    def within(self, chart: Schedule | None) -> Schedule:
        """Return the schedule of a state in a chart that has the schedule `chart`; what the state says wins."""
        if chart is None:
            return self
        return Schedule(
            windows=chart.windows if self.windows is None else self.windows,
            calendars=chart.calendars if self.calendars is None else self.calendars,
            fit=chart.fit if self.fit is None else self.fit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """What, beside its schedule, decides when a chart is open.

    `openings` are the acts by which operators opened it; a later one takes the place of an earlier one. `pauses` are
    the pauses of this visit that are over, kept only if open time is counted. `calendars` has the version in force of
    each calendar that the chart names, `events` the events of these versions, in order and apart, from the visit's
    beginning to HORIZON from now; events are not part of what a log row or a checkpoint says.
    """

    openings: tuple[Interval, ...] = ()
    pauses: tuple[Interval, ...] = ()
    calendars: tuple[tuple[str, int], ...] = ()
    events: Mapping[str, tuple[Interval, ...]] = field(default_factory=dict, compare=False, hash=False, repr=False)

    @property
    def opened_until(self) -> datetime | None:
        """When the latest act of opening ends; None if there was none."""
        return self.openings[-1].end if self.openings else None

    def opened(self, now: datetime, until: datetime) -> Hours:
        """Return the hours after an operator has opened the chart `until` then."""
        before = tuple(item if item.end <= now else Interval(item.start, now) for item in self.openings)
        return replace(self, openings=(*before, Interval(now, until)))

    def entered(self, now: datetime) -> Hours:
        """Return the hours at the beginning of a visit: what is over is forgotten."""
        if not self.openings and not self.pauses:
            return self
        return replace(self, openings=tuple(item for item in self.openings if item.end > now), pauses=())

    def paused(self, start: datetime, end: datetime) -> Hours:
        """Return the hours with one more pause that is over."""
        return replace(self, pauses=(*self.pauses, Interval(start, end))) if start < end else self

    def of_calendars(self, names: Collection[str]) -> Hours:
        """Return the hours with the versions of the calendars `names` alone."""
        calendars = tuple(item for item in self.calendars if item[0] in names)
        return self if calendars == self.calendars else replace(self, calendars=calendars)

    def with_calendar(self, name: str, version: int) -> Hours:
        """Return the hours with another version of a calendar in force; the caller brings its events."""
        calendars = {**dict(self.calendars), name: version}
        return replace(self, calendars=tuple(sorted(calendars.items())))


NO_HOURS = Hours()
NO_LABELS: Labels = {}


@dataclass(frozen=True, slots=True)
class Opening:
    """Whether a chart is open, and when that changes.

    `closes_at` is set if it is open, `opens_at` if it is closed; None means not within HORIZON. `zone` is the one whose
    local time people are told. `why` says what closes it, if it is closed.
    """

    is_open: bool
    opens_at: datetime | None = None
    closes_at: datetime | None = None
    zone: str = "UTC"
    why: str = ""


def judge(schedule: Schedule, hours: Hours, now: datetime, labels: Labels = NO_LABELS) -> Opening:
    """Return whether a chart is open at `now` for a machine with these `labels`, and when that changes."""
    limit = now + HORIZON
    zone = _find_zone_to_tell(schedule, labels)
    first = next(find_open(schedule, hours, now, limit, labels), None)
    if first is not None and first.start <= now:
        return Opening(True, closes_at=None if first.end >= limit else first.end, zone=zone)
    why = _say_why(schedule, hours, now, labels)
    return Opening(False, opens_at=None if first is None else first.start, zone=zone, why=why)


def find_closing(schedule: Schedule, hours: Hours, now: datetime) -> datetime | None:
    """Return when a chart that is closed at `now` closed last; None if it was not open in the weeks before."""
    before = (item.end for item in find_open(schedule, hours, now - WEEKS_BACK, now) if item.end <= now)
    return max(before, default=None)


def find_fitting(
    schedule: Schedule, hours: Hours, now: datetime, length: timedelta, labels: Labels = NO_LABELS
) -> datetime | None:
    """Return the first instant from `now` on at which an opening of at least `length` begins or goes on."""
    for start, end in find_open(schedule, hours, now, now + HORIZON, labels):
        begin = max(start, now)
        if end - begin >= length or end >= now + HORIZON:
            return begin
    return None


def find_end_of_open_time(schedule: Schedule, hours: Hours, since: datetime, length: timedelta) -> datetime | None:
    """Return when the chart has been open, and not paused, for `length` since then.

    None if that does not come within COUNTING_HORIZON.
    """
    left, limit = length, since + COUNTING_HORIZON
    for start, end in subtract(find_open(schedule, hours, since, limit), hours.pauses):
        begin = max(start, since)
        if end - begin >= left:
            return begin + left
        left -= max(end - begin, timedelta(0))
    return None


def find_open(
    schedule: Schedule, hours: Hours, since: datetime, limit: datetime, labels: Labels = NO_LABELS
) -> Iterator[Interval]:
    """Yield the intervals that end after `since` in which the chart is open, in order and apart, up to about `limit`.

    An operator's act opens it whatever the windows and the calendars say.
    """
    windows: Iterable[Interval] = (Interval(since - ONE_DAY, limit),)
    if schedule.windows:
        zones = [(window, find_zone(window, labels)) for window in schedule.windows]
        streams = [_list_openings(window, zone, since, limit) for window, zone in zones if zone is not None]
        windows = merge(heapq.merge(*streams))
    for name in schedule.calendars or ():
        windows = subtract(windows, hours.events.get(name, ()))
    if hours.openings:
        windows = merge(heapq.merge(windows, hours.openings))
    return (item for item in windows if item.end > since)


def _list_openings(window: Window, zone: ZoneInfo, since: datetime, limit: datetime) -> Iterator[Interval]:
    day, last = since.date() - _DAYS_BEFORE * ONE_DAY, limit.date()
    while day <= last:
        if window.opens_on(day):
            item = window.on(day, zone)
            if item.start < item.end and item.end > since:
                yield item
        day += ONE_DAY


def merge(intervals: Iterable[Interval]) -> Iterator[Interval]:
    """Yield the union of intervals that come in the order of their starts, as intervals that do not touch."""
    current: Interval | None = None
    for item in intervals:
        if current is None:
            current = item
        elif item.start <= current.end:
            current = Interval(current.start, max(current.end, item.end))
        else:
            yield current
            current = item
    if current is not None:
        yield current


def subtract(intervals: Iterable[Interval], cuts: tuple[Interval, ...]) -> Iterator[Interval]:
    """Yield what the cuts leave of the intervals; both are in order, and the cuts do not overlap."""
    place = 0
    for start, end in intervals:
        while place < len(cuts) and cuts[place].end <= start:
            place += 1
        here = place
        while here < len(cuts) and cuts[here].start < end:
            if start < cuts[here].start:
                yield Interval(start, cuts[here].start)
            start = max(start, cuts[here].end)
            here += 1
        if start < end:
            yield Interval(start, end)


@lru_cache(maxsize=1024)
def load_zone(name: str) -> ZoneInfo | None:
    """Return the IANA zone of that name; None if there is none."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        # Beside ZoneInfoNotFoundError (a LookupError): names that are no paths, and folders of zones.
        return None


def find_zone(window: Window, labels: Labels = NO_LABELS) -> ZoneInfo | None:
    """Return the window's zone; None if it is the machine's own, and the machine's label names no zone."""
    if window.label is None:
        return load_zone(window.zone)
    named = labels.get(window.label, ())
    return load_zone(named[0]) if len(named) == 1 else None


def _find_zone_to_tell(schedule: Schedule, labels: Labels) -> str:
    zones = (find_zone(window, labels) for window in schedule.windows or ())
    return next((zone.key for zone in zones if zone is not None), "UTC")


def _say_why(schedule: Schedule, hours: Hours, now: datetime, labels: Labels) -> str:
    windows = schedule.windows or ()
    if windows and all(find_zone(window, labels) is None for window in windows):
        return _say_no_zone(windows[0].label or "", labels)
    for name in schedule.calendars or ():
        if any(item.start <= now < item.end for item in hours.events.get(name, ())):
            return f"closed by an event of the calendar {name!r}"
    return OUTSIDE


def _say_no_zone(label: str, labels: Labels) -> str:
    named = labels.get(label, ())
    if not named:
        return f"the machine has no label {label!r}, which names its time zone"
    if len(named) > 1:
        return f"the machine's label {label!r} has {len(named)} values, so its time zone is unknown"
    return f"the machine's label {label!r} is {named[0]!r}, which is no IANA time zone"
