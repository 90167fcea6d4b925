"""When a chart is open: windows in every zone, agreed minute by minute, and what opens and closes it beside them."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate
from zoneinfo import ZoneInfo, available_timezones

import pytest

from app.core.window import (
    NO_HOURS,
    Hours,
    Interval,
    Schedule,
    Window,
    find_end_of_open_time,
    find_fitting,
    find_instant,
    judge,
)
from tests.support.examples import IS_ALL

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def window(start: str, end: str, zone: str = "UTC", days: tuple[int, ...] = ()) -> Window:
    return Window(time.fromisoformat(start), time.fromisoformat(end), zone, days)


def schedule(*windows: Window, calendars: tuple[str, ...] = ()) -> Schedule:
    return Schedule(windows=windows, calendars=calendars)


NIGHTS = schedule(window("22:00", "04:00", BERLIN, (0, 1, 2, 3)))


# Against a clock that is read minute by minute


def open_minutes(windows: tuple[Window, ...], first: datetime, minutes: int) -> list[bool]:
    """Return for each minute from `first` on whether a window is open, by a walk with the clock on the wall.

    A window opens at the first minute whose local time is at or past its start on its day, and closes in the same way.
    """
    found = [False] * minutes
    zone = ZoneInfo(windows[0].zone)
    walk = [(first + number * MINUTE).astimezone(zone).replace(tzinfo=None) for number in range(-2 * 1440, minutes)]
    # What the clock has shown at the latest: it rises, so that the first minute at or past a time is found fast.
    latest = list(accumulate(walk, max))
    for item in windows:
        for day in sorted({local.date() for local in walk[1:]}):
            if item.days and day.weekday() not in item.days:
                continue
            last_day = day if item.end > item.start else day + DAY
            opens = bisect_left(latest, datetime.combine(day, item.start)) - 2 * 1440
            closes = bisect_left(latest, datetime.combine(last_day, item.end)) - 2 * 1440
            for number in range(max(opens, 0), max(min(closes, minutes), 0)):
                found[number] = True
    return found


def random_windows(source: random.Random, zone: str) -> tuple[Window, ...]:
    made = []
    for _ in range(source.randint(1, 3)):
        days = tuple(sorted(source.sample(range(7), source.randint(1, 5)))) if source.random() < 0.6 else ()
        start, end = (time(source.randrange(24), source.choice((0, 0, 15, 30, 59))) for _ in range(2))
        made.append(Window(start, end, zone, days))
    return tuple(made)


def random_minutes(source: random.Random, zone: str) -> Iterator[datetime]:
    """Yield minutes from 2024 to 2036; half of them lie near a change of the zone's clock, if it has any."""
    anywhere = utc("2024-01-01") + source.randrange(13 * 365 * 1440) * MINUTE
    yield anywhere
    place, found = ZoneInfo(zone), anywhere
    for _ in range(400):
        found += DAY
        if found.astimezone(place).utcoffset() != (found + DAY).astimezone(place).utcoffset():
            yield found + source.randrange(2 * 1440) * MINUTE
            return
    yield anywhere + source.randrange(1440) * MINUTE


def check_cases(count: int, seed: int) -> None:
    source, zones = random.Random(seed), sorted(available_timezones())
    done = 0
    while done < count:
        # Every zone comes up, one after another.
        zone = zones[(done // 2) % len(zones)]
        for now in random_minutes(source, zone):
            windows = random_windows(source, zone)
            expected = open_minutes(windows, now, 1440)
            found = judge(Schedule(windows=windows), NO_HOURS, now)
            assert found.is_open is expected[0], (windows, now)
            turns = next((number for number, is_open in enumerate(expected) if is_open is not expected[0]), None)
            change = found.closes_at if found.is_open else found.opens_at
            assert turns is None or change == now + turns * MINUTE, (windows, now, change)
            assert turns is not None or change is None or change >= now + 1440 * MINUTE, (windows, now, change)
            done += 1


def test_windows_agree_with_a_walk_minute_by_minute() -> None:
    check_cases(60, seed=20)


@pytest.mark.slow
def test_many_random_windows_agree_with_a_walk_minute_by_minute() -> None:
    # 1,200 have each time zone once.
    check_cases(5000 if IS_ALL else 1200, seed=2024)


# A night on which the clock changes


@pytest.mark.parametrize(
    ("day", "clock", "zone", "expected"),
    [
        pytest.param("2026-03-29", "02:30", BERLIN, "2026-03-29T01:00", id="skipped: the next that exists"),
        pytest.param("2026-10-25", "02:30", BERLIN, "2026-10-25T00:30", id="twice: the first"),
        pytest.param("2026-10-04", "02:15", "Australia/Lord_Howe", "2026-10-03T15:30", id="half an hour is skipped"),
        pytest.param("2026-09-06", "00:00", "America/Santiago", "2026-09-06T04:00", id="midnight is skipped"),
        pytest.param("2011-12-30", "10:00", "Pacific/Apia", "2011-12-30T10:00", id="a whole day is skipped"),
        pytest.param("2026-06-01", "12:00", "Asia/Kathmandu", "2026-06-01T06:15", id="an ordinary day"),
    ],
)
def test_local_time_becomes_an_instant(day: str, clock: str, zone: str, expected: str) -> None:
    found = find_instant(date.fromisoformat(day), time.fromisoformat(clock), ZoneInfo(zone))
    assert found == utc(expected)


def test_window_that_the_clock_skips_whole_does_not_open_that_night() -> None:
    found = judge(schedule(window("02:10", "02:50", BERLIN)), NO_HOURS, utc("2026-03-29T00:59"))
    assert (found.is_open, found.opens_at) == (False, utc("2026-03-30T00:10"))


# Days, zones, more than one window


def test_days_name_the_start_of_a_window_that_ends_on_the_next_day() -> None:
    assert judge(NIGHTS, NO_HOURS, utc("2026-11-27T02:59")).closes_at == utc("2026-11-27T03:00")
    assert judge(NIGHTS, NO_HOURS, utc("2026-11-27T03:00")).opens_at == utc("2026-11-30T21:00")


def test_windows_that_touch_are_one_opening() -> None:
    touching = schedule(window("08:00", "12:00"), window("12:00", "14:00"), window("13:00", "15:00"))
    assert judge(touching, NO_HOURS, utc("2026-11-27T09:00")).closes_at == utc("2026-11-27T15:00")


def test_window_around_the_clock_never_closes() -> None:
    found = judge(schedule(window("06:00", "06:00", BERLIN)), NO_HOURS, utc("2026-11-27T09:00"))
    assert (found.is_open, found.closes_at) == (True, None)


def test_zone_of_the_machine_is_the_one_its_label_names() -> None:
    local = schedule(window("08:00", "12:00", "$tz"))
    now = utc("2026-11-27T00:30")
    assert judge(local, NO_HOURS, now, {"tz": ("Asia/Tokyo",)}).is_open
    assert judge(local, NO_HOURS, now, {"tz": (BERLIN,)}).opens_at == utc("2026-11-27T07:00")


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({}, "the machine has no label 'tz', which names its time zone"),
        ({"tz": ("Mars/Base",)}, "the machine's label 'tz' is 'Mars/Base', which is no IANA time zone"),
        ({"tz": ("UTC", BERLIN)}, "the machine's label 'tz' has 2 values, so its time zone is unknown"),
    ],
    ids=["no label", "no such zone", "two zones"],
)
def test_machine_without_a_zone_is_denied_with_the_reason(labels: dict[str, tuple[str, ...]], why: str) -> None:
    found = judge(schedule(window("00:00", "00:00", "$tz")), NO_HOURS, utc("2026-11-27T00:30"), labels)
    assert (found.is_open, found.opens_at, found.why) == (False, None, why)


# Calendars' events, and acts of opening


FREEZE = Interval(utc("2026-11-27T10:00"), utc("2026-11-27T12:00"))


def test_event_of_a_calendar_closes_a_window_while_it_lasts() -> None:
    hours = Hours(events={"freeze": (FREEZE,)})
    daily = schedule(window("08:00", "16:00"), calendars=("freeze",))
    assert judge(daily, hours, utc("2026-11-27T09:00")).closes_at == FREEZE.start
    during = judge(daily, hours, FREEZE.start)
    assert (during.is_open, during.opens_at) == (False, FREEZE.end)
    assert during.why == "closed by an event of the calendar 'freeze'"
    assert judge(daily, hours, FREEZE.end).closes_at == utc("2026-11-27T16:00")


def test_calendar_without_windows_closes_what_is_always_open() -> None:
    hours = Hours(events={"freeze": (FREEZE,)})
    assert judge(schedule(calendars=("freeze",)), hours, FREEZE.start).opens_at == FREEZE.end
    assert judge(schedule(calendars=("freeze",)), hours, FREEZE.end).is_open


def test_act_of_opening_opens_whatever_is_closed_and_ends_by_itself() -> None:
    opened = Hours(events={"freeze": (FREEZE,)}).opened(utc("2026-11-27T10:30"), utc("2026-11-27T11:00"))
    daily = schedule(window("08:00", "16:00"), calendars=("freeze",))
    assert judge(daily, opened, utc("2026-11-27T10:30")).closes_at == utc("2026-11-27T11:00")
    assert judge(daily, opened, utc("2026-11-27T11:00")).opens_at == FREEZE.end


def test_later_act_of_opening_takes_the_place_of_the_one_before() -> None:
    hours = NO_HOURS.opened(utc("2026-11-27T10:00"), utc("2026-11-27T20:00"))
    hours = hours.opened(utc("2026-11-27T11:00"), utc("2026-11-27T12:00"))
    assert judge(NIGHTS, hours, utc("2026-11-27T10:30")).is_open
    assert not judge(NIGHTS, hours, utc("2026-11-27T12:00")).is_open


# What fits, and open time


def test_lease_fits_from_the_next_opening_that_is_long_enough() -> None:
    short_and_long = schedule(window("08:00", "08:30"), window("10:00", "12:00"))
    now = utc("2026-11-27T08:10")
    assert find_fitting(short_and_long, NO_HOURS, now, timedelta(minutes=20)) == now
    assert find_fitting(short_and_long, NO_HOURS, now, timedelta(minutes=45)) == utc("2026-11-27T10:00")


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        pytest.param(NO_HOURS, "2026-11-24T23:00", id="two nights"),
        pytest.param(
            Hours(pauses=(Interval(utc("2026-11-23T22:00"), utc("2026-11-23T23:00")),)),
            "2026-11-25T00:00",
            id="a pause in the window counts",
        ),
        pytest.param(
            Hours(pauses=(Interval(utc("2026-11-24T10:00"), utc("2026-11-24T20:00")),)),
            "2026-11-24T23:00",
            id="a pause outside it does not",
        ),
        pytest.param(
            NO_HOURS.opened(utc("2026-11-24T10:00"), utc("2026-11-24T11:00")), "2026-11-24T22:00", id="an act counts"
        ),
    ],
)
def test_open_time_is_counted_over_several_windows(hours: Hours, expected: str) -> None:
    found = find_end_of_open_time(NIGHTS, hours, utc("2026-11-23T20:00"), timedelta(hours=8))
    assert found == utc(expected)


def test_open_time_that_never_comes_has_no_end() -> None:
    skipped = schedule(window("02:10", "02:10", "$tz"))
    assert find_end_of_open_time(skipped, NO_HOURS, utc("2026-11-23T20:00"), timedelta(hours=8)) is None
