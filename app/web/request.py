"""The service and the caller of the request in hand."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl

from flask import current_app, request

from app.core.errors import BadRequestError
from app.core.log import Author
from app.service.context import Service
from app.service.put import Answer
from app.service.tokens import Holder

# A WSGI environment.
Environ = dict[str, Any]
_PLACE = "stateservice.note"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class Note:
    """When a request came (perf_counter), what it is called, and what is known of it so far."""

    started: float
    request_id: str
    chart: str | None = None
    query: dict[str, list[str]] = field(default_factory=dict)
    holder: Holder | None = None
    answer: Answer | None = None
    problem: str | None = None


def begin_note(environ: Environ) -> Note:
    """Note that a request came, under the id it brought or a new one."""
    sent = environ.get("HTTP_X_REQUEST_ID")
    request_id = sent if sent is not None and _SANE_ID.fullmatch(sent) else secrets.token_hex(8)
    note = environ[_PLACE] = Note(time.perf_counter(), request_id)
    return note


def note_of(environ: Environ) -> Note:
    """The note of a request, begun where it was not."""
    note: Note | None = environ.get(_PLACE)
    return begin_note(environ) if note is None else note


NAME_LENGTH = 128
MACHINE_LENGTH = 255
MAX_PARAMETERS = 100
# The header in which gunicorn.conf.py notes those that were sent more than once: WSGI would join them with a comma.
REPEATED = "X-STATE-SERVICE-REPEATED"


def _variable(header: str) -> str:
    # As WSGI names a header in the environment.
    return f"HTTP_{header.upper().replace('-', '_')}"


_NOTED = _variable(REPEATED)


class Query:
    """The parameters of a request: those of its query, and the headers that may stand in for them."""

    def __init__(self, environ: Environ) -> None:
        """Raise BadRequestError for a query that is no UTF-8, or has too many parameters."""
        self._environ = environ
        self._values = note_of(environ).query = _parse(environ.get("QUERY_STRING", ""))

    def all(self, name: str) -> list[str]:
        """Every value that a parameter was given."""
        return self._values.get(name, [])

    def find(self, name: str, limit: int, header: str | None = None) -> str | None:
        """The one value of a parameter, else of the header beside it; None where neither is sent.

        Raises BadRequestError where it is repeated, empty, longer than `limit` characters or not printable.
        """
        values = self._values.get(name)
        if values is None:
            return None if header is None else self.find_header(header, limit)
        if len(values) != 1:
            raise BadRequestError(f"{name} is given {len(values)} times")
        return check_text(name, values[0], limit)

    def get(self, name: str, limit: int) -> str:
        """As `find`, for one that must be there."""
        value = self.find(name, limit)
        if value is None:
            raise BadRequestError(f"{name} is missing")
        return value

    def find_number(self, name: str, low: int, high: int) -> int | None:
        """A parameter that is a whole number from `low` to `high`. Raises BadRequestError."""
        text = self.find(name, 20)
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise BadRequestError(f"{name}={text} is not a whole number from {low} to {high}")
        return int(text)

    def find_header(self, name: str, limit: int) -> str | None:
        """A header of our own, 1 to `limit` printable characters. Raises BadRequestError."""
        if name.upper() in self._environ.get(_NOTED, "").split():
            raise BadRequestError(f"{name} is given more than once")
        sent = self._environ.get(_variable(name))
        return None if sent is None else check_text(name, _decode_header(name, sent), limit)


def read_query() -> Query:
    """The parameters of the request that Flask has in hand. Raises BadRequestError."""
    return Query(request.environ)


def check_text(name: str, value: str, limit: int) -> str:
    """Return `value`, a text of 1 to `limit` printable characters. Raises BadRequestError."""
    if not value:
        raise BadRequestError(f"{name} is empty")
    if len(value) > limit:
        raise BadRequestError(f"{name} is longer than {limit} characters")
    if not value.isprintable():
        raise BadRequestError(f"{name} has characters that cannot be printed")
    return value


def _parse(text: str) -> dict[str, list[str]]:
    # Werkzeug's own parser replaces bytes that are not UTF-8, so that two different names could become one.
    try:
        # WSGI hands the query over as Latin-1, whatever its bytes meant.
        decoded = text.encode("latin-1").decode()
        pairs = parse_qsl(decoded, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeError:
        raise BadRequestError("the query is not UTF-8") from None
    except ValueError:
        raise BadRequestError(f"the query has more than {MAX_PARAMETERS} parameters") from None
    query: dict[str, list[str]] = {}
    for name, value in pairs:
        query.setdefault(name, []).append(value)
    return query


def _decode_header(name: str, value: str) -> str:
    # WSGI hands headers over as Latin-1, whatever the sender meant; ours are UTF-8.
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        raise BadRequestError(f"{name} is not UTF-8") from None


def current_service() -> Service:
    """The service of this app."""
    return cast(Service, current_app.extensions["stateservice"])


def current_author() -> Author:
    """Who sends this request; see `author_of`."""
    return author_of(request.environ)


def current_holder() -> Holder:
    """Whose token this request carries."""
    return holder_of(request.environ)


def author_of(environ: Environ, idempotency_key: str | None = None) -> Author:
    """Who sends a request, as the log will have it: the token's name, and the address."""
    return Author(holder_of(environ).name, environ.get("REMOTE_ADDR"), idempotency_key)


def holder_of(environ: Environ) -> Holder:
    """Whose token a request carries that was let in."""
    holder = note_of(environ).holder
    assert holder is not None  # app/web/auth.py has seen it
    return holder
