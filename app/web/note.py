"""What is noted of a request on its way, for its line in the log; it travels in the WSGI environment."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from app.service.answers import Answer
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
