"""Reading what a request says, and refusing what cannot be meant."""

from __future__ import annotations

from urllib.parse import parse_qsl

from flask import g, request

from app.core.errors import BadRequestError

NAME_LENGTH = 128
MACHINE_LENGTH = 255
MAX_PARAMETERS = 100


def read_query() -> dict[str, list[str]]:
    """The query's parameters with every value each was given. Raises BadRequestError for text that is no UTF-8."""
    # Werkzeug's own parser replaces bytes that are not UTF-8, so that two different names could become one.
    try:
        text = request.query_string.decode()
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise BadRequestError("the query is not UTF-8") from None
    except ValueError:
        raise BadRequestError(f"the query has more than {MAX_PARAMETERS} parameters") from None
    query: dict[str, list[str]] = {}
    for name, value in pairs:
        query.setdefault(name, []).append(value)
    g.query = query  # for the request's line in the log
    return query


def find_parameter(query: dict[str, list[str]], name: str, limit: int, header: str | None = None) -> str | None:
    """The one value of a parameter, else of the header beside it; None where neither is sent.

    Raises BadRequestError where it is repeated, empty, longer than `limit` characters or not printable.
    """
    values = query.get(name)
    if values is None:
        sent = request.headers.get(header) if header is not None else None
        if sent is None:
            return None
        name, values = str(header), [_decode_header(str(header), sent)]
    if len(values) != 1:
        raise BadRequestError(f"{name} is given {len(values)} times")
    return check_text(name, values[0], limit)


def find_header(name: str, limit: int) -> str | None:
    """A header of our own, 1 to `limit` printable characters. Raises BadRequestError."""
    return find_parameter({}, name, limit, name)


def get_parameter(query: dict[str, list[str]], name: str, limit: int) -> str:
    """As `find_parameter`, for one that must be there."""
    value = find_parameter(query, name, limit)
    if value is None:
        raise BadRequestError(f"{name} is missing")
    return value


def find_number(query: dict[str, list[str]], name: str, low: int, high: int) -> int | None:
    """A parameter that is a whole number from `low` to `high`. Raises BadRequestError."""
    text = find_parameter(query, name, 20)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise BadRequestError(f"{name}={text} is not a whole number from {low} to {high}")
    return int(text)


def check_text(name: str, value: str, limit: int) -> str:
    """Return `value`, a text of 1 to `limit` printable characters. Raises BadRequestError."""
    if not value:
        raise BadRequestError(f"{name} is empty")
    if len(value) > limit:
        raise BadRequestError(f"{name} is longer than {limit} characters")
    if not value.isprintable():
        raise BadRequestError(f"{name} has characters that cannot be printed")
    return value


def _decode_header(name: str, value: str) -> str:
    # WSGI hands headers over as Latin-1, whatever the sender meant; ours are UTF-8.
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        raise BadRequestError(f"{name} is not UTF-8") from None
