"""The service and the caller of the request in hand."""

from __future__ import annotations

from typing import cast

from flask import current_app, request

from app.service.authors import Author
from app.service.context import Service
from app.service.tokens import Holder
from app.web.note import Environ, note_of


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
