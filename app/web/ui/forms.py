"""Reading what people filled in: an empty field is one that was not filled in."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import request

from app.core.errors import BadRequestError, ReasonRequiredError
from app.web.acts import REASON_LENGTH
from app.web.parameters import check_text


def find_query(name: str, limit: int = 255) -> str | None:
    """A field of a form that was sent by GET. Raises BadRequestError."""
    value = request.args.get(name, "").strip()
    return check_text(name, value, limit) if value else None


def find_whole(name: str) -> int | None:
    """A positive whole number that was sent by GET. Raises BadRequestError."""
    text = find_query(name, 18)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise BadRequestError(f"{name}={text} is not a whole number from 1")
    return int(text)


def find_instant(name: str) -> datetime | None:
    """An instant that was sent by GET, as the browser's own field for it writes one: without an offset, and UTC here.

    Raises BadRequestError.
    """
    text = find_query(name, 40)
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequestError(f"{name}={text} is not a date and time") from None


def find_field(name: str, limit: int = 255) -> str | None:
    """A field of a form that was sent by POST. Raises BadRequestError."""
    value = " ".join(request.form.get(name, "").split())
    return check_text(name, value, limit) if value else None


def get_field(name: str, limit: int = 255) -> str:
    """As `find_field`, for one that must be filled in."""
    value = find_field(name, limit)
    if value is None:
        raise BadRequestError(f"{name} is missing")
    return value


def get_reason() -> str:
    """The reason for an act. Raises ReasonRequiredError, BadRequestError."""
    reason = find_field("reason", REASON_LENGTH)
    if reason is None:
        raise ReasonRequiredError("a reason is required: the log keeps it")
    return reason
