"""Tokens: who has one, a new one shown once, and the end of one."""

from __future__ import annotations

from flask import Response

from app.core.errors import BadRequestError, ConflictError, ForbiddenError
from app.service.tokens import Role, create_token, list_tokens, read_role, revoke_token
from app.web.current import current_author, current_holder, current_service
from app.web.ui.base import blueprint, go_to, render
from app.web.ui.forms import find_field, find_query, get_field


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
