"""The service and the caller of the request in hand."""

from __future__ import annotations

from typing import cast

from flask import current_app, g, request

from app.service.authors import Author
from app.service.context import Service


def current_service() -> Service:
    """The service of this app."""
    return cast(Service, current_app.extensions["stateservice"])


def current_author(idempotency_key: str | None = None) -> Author:
    """Who sends this request, as the log will have it: the token's name, and the address."""
    return Author(actor=g.holder.name, remote_addr=request.remote_addr, idempotency_key=idempotency_key)
