"""Tokens: who has one, a new one shown once, and the end of one."""

from __future__ import annotations

from typing import cast
from urllib.parse import urlsplit

from flask import Response, redirect, request, url_for

from app.core.errors import BadRequestError, ConflictError, ForbiddenError, UnauthenticatedError
from app.service.tokens import Role, create_token, list_tokens, read_role, revoke_token
from app.web import auth
from app.web.request import current_author, current_holder, current_service
from app.web.ui.base import blueprint, find_field, find_query, get_field, go_to, render, uses_tokens


@blueprint.get("/ui/login", provide_automatic_options=False)
def get_login() -> Response:
    """The form; or, without a key to sign sessions, what there is to set."""
    if not uses_tokens():
        return go_to("ui.get_index")
    status = 200 if auth.can_start() else 503
    return render("login.html", status, can_start=auth.can_start(), next=_read_next(), problem=None)


@blueprint.post("/ui/login", provide_automatic_options=False)
def post_login() -> Response:
    """Begin a session for the token's holder."""
    if not auth.can_start():
        return get_login()
    try:
        holder = auth.current_access().find_holder(request.form.get("token", "").strip())
    except UnauthenticatedError as error:
        return render("login.html", can_start=True, next=_read_next(), problem=str(error))
    response = cast(Response, redirect(_read_next(), code=303))
    auth.start(response, holder)
    return response


@blueprint.post("/ui/logout", provide_automatic_options=False)
def post_logout() -> Response:
    """End the session."""
    response = go_to("ui.get_login")
    auth.end(response)
    return response


def _read_next() -> str:
    """Where to go afterwards: a path of ours, whatever was asked for."""
    wanted = request.values.get("next", "")
    parts = urlsplit(wanted)
    is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if is_ours and not parts.netloc and not parts.scheme else url_for("ui.get_index")


@blueprint.get("/ui/tokens", provide_automatic_options=False)
def get_tokens() -> Response:
    """Every token, and the form for a new one."""
    _check()
    return _page(said="Revoked." if find_query("done", 20) == "revoke" else None)


@blueprint.post("/ui/tokens", provide_automatic_options=False)
def post_token() -> Response:
    """Make a token and show its secret, which nobody can see again."""
    _check()
    try:
        name = get_field("name")
        role, pattern = read_role(get_field("role")), find_field("pattern") or "*"
        secret = create_token(current_service(), name, role, pattern, current_author())
    except (BadRequestError, ConflictError) as error:
        return _page(problem=str(error))
    return _page(secret=secret, secret_name=name)


@blueprint.post("/ui/tokens/revoke", provide_automatic_options=False)
def post_revoke() -> Response:
    """Make a token good for nothing."""
    _check()
    try:
        revoke_token(current_service(), get_field("name"))
    except ConflictError as error:
        return _page(problem=str(error))
    return go_to("ui.get_tokens", done="revoke")


def _check() -> None:
    # Whoever may make tokens may make one for any chart: nobody hands out more than he has.
    holder = current_holder()
    if holder.pattern != "*":
        raise ForbiddenError(f"token {holder.name!r} is for charts {holder.pattern!r}; tokens take one for all charts")


def _page(**values: object) -> Response:
    return render("tokens.html", tokens=list_tokens(current_service()), roles=tuple(Role), **values)
