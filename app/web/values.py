"""Values as clients write them: one reader for each type, for queries, forms and JSON bodies alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

from app.core.errors import BadRequestError

# The largest number that both databases hold, and its digits.
MAX_INT = 2**63 - 1
MAX_DIGITS = 19
# Bytes of a body that are kept as a note: the last ones, because output says at its end how it went.
NOTE_BYTES = 8192
# Characters of a note in the query.
NOTE_LENGTH = 1000


def read_note(text: str | None, body: bytes) -> str | None:
    """What a machine says with its report: the text that the query gives, else the body; None if there is neither.

    A control character that is not a newline or a tab becomes U+FFFD, and so does whatever in the body is not UTF-8.
    Raises BadRequestError if the query's text is empty or too long.
    """
    if text is not None:
        if not 1 <= len(text) <= NOTE_LENGTH:
            raise BadRequestError(f"note is not 1 to {NOTE_LENGTH} characters: send a longer one as the body")
        return _printable(text)
    # The first character may have been cut.
    while len(body) > NOTE_BYTES - 3 and body[0] & 0xC0 == 0x80:
        body = body[1:]
    return _printable(body.decode(errors="replace")) or None


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        "\ufffd" if unicodedata.category(sign) in ("Cc", "Cs") and sign not in "\n\t" else sign for sign in text
    )


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
