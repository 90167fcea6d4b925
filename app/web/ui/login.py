"""Signing in with a token, and out. A form sends the token once; afterwards a signed cookie stands for it."""

from __future__ import annotations

from typing import cast
from urllib.parse import urlsplit

from flask import Response, current_app, redirect, request, url_for

from app.core.errors import UnauthenticatedError
from app.service.tokens import TokenCache
from app.web.current import current_service
from app.web.ui import session
from app.web.ui.base import blueprint, go_to, render, uses_tokens


@blueprint.get("/ui/login", provide_automatic_options=False)
def get_login() -> Response:
    """The form; or, without a key to sign sessions, what there is to set."""
    if not uses_tokens():
        return go_to("ui.get_index")
    status = 200 if session.can_start() else 503
    return render("login.html", status, can_start=session.can_start(), next=_read_next(), problem=None)


@blueprint.post("/ui/login", provide_automatic_options=False)
def post_login() -> Response:
    """Begin a session for the token's holder."""
    if not session.can_start():
        return get_login()
    cache = cast(TokenCache, current_app.extensions["stateservice.tokens"])
    try:
        holder = cache.authenticate(current_service(), request.form.get("token", "").strip())
    except UnauthenticatedError as error:
        return render("login.html", can_start=True, next=_read_next(), problem=str(error))
    response = cast(Response, redirect(_read_next(), code=303))
    session.start(response, holder)
    return response


@blueprint.post("/ui/logout", provide_automatic_options=False)
def post_logout() -> Response:
    """End the session."""
    response = go_to("ui.get_login")
    session.end(response)
    return response


def _read_next() -> str:
    """Where to go afterwards: a path of ours, whatever was asked for."""
    wanted = request.values.get("next", "")
    parts = urlsplit(wanted)
    is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if is_ours and not parts.netloc and not parts.scheme else url_for("ui.get_index")
