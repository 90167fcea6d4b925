"""Values as clients write them: one reader for each type, for queries, forms and JSON bodies alike."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from app.core.errors import BadRequestError

# The largest number that both databases hold, and its digits.
MAX_INT = 2**63 - 1
MAX_DIGITS = 19


def read_whole(name: str, text: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`, written in digits alone. Raises BadRequestError."""
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS or not low <= int(text) <= high:
        raise BadRequestError(f"{name}={text[:40]} is not a whole number from {low} to {high}")
    return int(text)


def read_instant(name: str, text: str) -> datetime:
    """An ISO 8601 instant, in UTC; one that is written without an offset is UTC already. Raises BadRequestError."""
    try:
        # A plus that was not percent-encoded arrives as a space.
        instant = datetime.fromisoformat(text.replace(" +", "+").replace(" ", "+") if "T" in text else text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequestError(f"{name}={text} is not an ISO 8601 instant") from None


def read_choice(name: str, text: str, choices: Sequence[str]) -> str:
    """One of `choices`. Raises BadRequestError."""
    if text not in choices:
        raise BadRequestError(f"{name}={text} is not one of {', '.join(choices)}")
    return text
