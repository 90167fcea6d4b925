"""A scalar's text to the value that is expected in its place; `ScalarError` says what is wrong with the text."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from app.chart_file.problems import quote
from app.core.chart import CHART_NAME, CHART_NAME_RULE, INT64_MAX, INT64_MIN

NAME = re.compile(r"[A-Za-z0-9_.: -]{1,128}")
INTEGER = re.compile(r"[+-]?[0-9]+")
PERCENTAGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")
SIMPLE_AGE = re.compile(r"(?P<number>[0-9]+)(?P<unit>[smhd])")
ISO_AGE = re.compile(
    r"P(?=[0-9T])(?:(?P<weeks>[0-9]+)W)?(?:(?P<days>[0-9]+)D)?"
    r"(?:T(?=[0-9])(?:(?P<hours>[0-9]+)H)?(?:(?P<minutes>[0-9]+)M)?"
    r"(?:(?P<seconds>[0-9]+)(?:\.(?P<fraction>[0-9]{1,6}))?S)?)?"
)
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
TRUE_WORDS = frozenset({"true", "yes", "on"})
FALSE_WORDS = frozenset({"false", "no", "off"})
MAX_MACHINE_ID = 255
# Python refuses to convert very long digit strings; no number, time or instant that makes sense is this long.
MAX_LENGTH = 64
MAX_AGE = timedelta(days=36525)


class ScalarError(Exception):
    """The text does not say what is expected; the message quotes it."""


def to_name(text: str) -> str:
    """Return the name of a state or a key."""
    if not NAME.fullmatch(text):
        raise ScalarError(f"{quote(text)} is not 1 to 128 characters of A-Z a-z 0-9 _ . - : and space")
    return text


def to_chart_name(text: str) -> str:
    """Return the name of a chart."""
    if not CHART_NAME.fullmatch(text):
        raise ScalarError(f"{quote(text)} is not {CHART_NAME_RULE}")
    return text


def to_machine_id(text: str) -> str:
    """Return a machine's id."""
    if not 1 <= len(text) <= MAX_MACHINE_ID or not text.isprintable():
        raise ScalarError(f"{quote(text)} is not 1 to {MAX_MACHINE_ID} printable characters")
    return text


def to_boolean(text: str) -> bool:
    """Return what true, yes, on, false, no or off say, in any case of letters."""
    word = text.lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ScalarError(f"{quote(text)} is not true or false")
    return word in TRUE_WORDS


def to_integer(text: str) -> int:
    """Return a signed 64-bit integer."""
    if not INTEGER.fullmatch(text):
        raise ScalarError(f"{quote(text)} is not an integer")
    if len(text) > MAX_LENGTH or not INT64_MIN <= int(text) <= INT64_MAX:
        raise ScalarError(f"{quote(text)} is out of the 64-bit range")
    return int(text)


def to_count(text: str) -> int:
    """Return a number of machines, at least 1."""
    number = to_integer(text)
    if number < 1:
        raise ScalarError(f"{quote(text)} is less than 1")
    return number


def is_percentage(text: str) -> bool:
    """True where the text is a share of `expect`, such as `95%` or `0.5%`."""
    return PERCENTAGE.fullmatch(text) is not None


def to_share(text: str) -> Fraction:
    """Return a percentage as an exact share of one."""
    match = PERCENTAGE.fullmatch(text)
    if not match:
        raise ScalarError(f"{quote(text)} is not a percentage")
    if len(text) > MAX_LENGTH:
        raise ScalarError(f"{quote(text)} has too many digits")
    return Fraction(match[1]) / 100


def resolve_share(share: Fraction, expect: int) -> int:
    """Return that share of `expect`, rounded up, at least 1."""
    return max(1, math.ceil(expect * share))


def to_age(text: str) -> timedelta:
    """Return a length of time: `90s`, `30m`, `6h`, `2d` or ISO 8601 without years and months."""
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


def to_lease(text: str) -> timedelta:
    """Return a length of time that is more than none."""
    age = to_age(text)
    if not age:
        raise ScalarError(f"{quote(text)} is no time at all")
    return age


def to_instant(text: str) -> datetime:
    """Return an ISO 8601 instant in UTC; without an offset it is UTC."""
    try:
        instant = datetime.fromisoformat(text[: MAX_LENGTH + 1])
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except ValueError:
        raise ScalarError(f"{quote(text)} is not an ISO 8601 instant such as 2030-01-31T22:00:00+01:00") from None
    except OverflowError:
        raise ScalarError(f"{quote(text)} is out of the range of instants") from None


def _split_age(text: str) -> dict[str, int] | None:
    if simple := SIMPLE_AGE.fullmatch(text):
        return {UNITS[simple["unit"]]: int(simple["number"])}
    if iso := ISO_AGE.fullmatch(text):
        parts = {unit: int(number) for unit, number in iso.groupdict().items() if number and unit != "fraction"}
        return parts | {"microseconds": int((iso["fraction"] or "0").ljust(6, "0"))}
    return None
