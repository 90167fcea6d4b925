"""Signing in and out with a token; and the page that lists, creates and revokes tokens."""

from __future__ import annotations

from typing import cast
from urllib.parse import urlsplit

from flask import Response, redirect, request, url_for

from app.core.errors import BadRequestError, ConflictError, UnauthenticatedError
from app.service.tokens import Role, create_token, list_tokens, read_role, revoke_token
from app.web import auth
from app.web.admin import read_lifetime
from app.web.request import current_author, current_holder, current_service
from app.web.ui.base import blueprint, find_field, find_query, get_field, go_to, render, uses_tokens


@blueprint.get("/ui/login", provide_automatic_options=False)
def get_login() -> Response:
    """The form to sign in; 503 and the setting to set if there is no key to sign sessions with."""
    if not uses_tokens():
        return go_to("ui.get_index")
    status = 200 if auth.can_start() else 503
    return render("login.html", status, can_start=auth.can_start(), next=_read_next(), problem=None)


@blueprint.post("/ui/login", provide_automatic_options=False)
def post_login() -> Response:
    """Begin a session for the token's holder and go to the page that the person wanted."""
    if not auth.can_start():
        return get_login()
    try:
        holder = auth.current_access().find_holder(request.form.get("token", "").strip())
    except UnauthenticatedError as error:
        return render("login.html", can_start=True, next=_read_next(), problem=str(error))
    if not holder.may(Role.READER):
        problem = f"a token of the role {holder.role} is not for the pages"
        return render("login.html", can_start=True, next=_read_next(), problem=problem)
    # Who signs in again leaves the session before.
    auth.end_session_of_browser()
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
    """The path to go to after signing in; the index if the form asks for anything but a path of this service."""
    wanted = request.values.get("next", "")
    parts = urlsplit(wanted)
    is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if is_ours and not parts.netloc and not parts.scheme else url_for("ui.get_index")


@blueprint.get("/ui/tokens", provide_automatic_options=False)
def get_tokens() -> Response:
    """All tokens, and the form for a new one."""
    auth.check_may_manage_tokens(current_holder())
    return _tokens_page(said="Revoked." if find_query("done", 20) == "revoke" else None)


@blueprint.post("/ui/tokens", provide_automatic_options=False)
def post_token() -> Response:
    """Create a token and show its secret, this once."""
    auth.check_may_manage_tokens(current_holder())
    try:
        name = get_field("name")
        role, pattern = read_role(get_field("role")), find_field("pattern") or "*"
        machine, lifetime = find_field("machine"), read_lifetime(find_field("expires", 20))
        secret = create_token(
            current_service(), name, role, pattern, current_author(), machine=machine, lifetime=lifetime
        )
    except (BadRequestError, ConflictError) as error:
        return _tokens_page(problem=str(error))
    return _tokens_page(secret=secret, secret_name=name)


@blueprint.post("/ui/tokens/revoke", provide_automatic_options=False)
def post_revoke() -> Response:
    """Revoke a token."""
    auth.check_may_manage_tokens(current_holder())
    try:
        revoke_token(current_service(), get_field("name"), current_author())
    except ConflictError as error:
        return _tokens_page(problem=str(error))
    return go_to("ui.get_tokens", done="revoke")


def _tokens_page(**values: object) -> Response:
    return render("tokens.html", tokens=list_tokens(current_service()), roles=tuple(Role), **values)
