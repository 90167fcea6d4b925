"""A form is believed only if our own page sent it: by its Origin, and by a token that is in a cookie and in the form.

The cookie needs no signature, so that this holds without a secret key: another site can neither read nor set it, and
could not send the Origin of ours.
"""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import urlsplit

from flask import Response, g, request

from app.core.errors import ForbiddenError

COOKIE = "stateservice_form"
FIELD = "form_token"
_PORTS = {"http": ":80", "https": ":443"}


def issue_token() -> str:
    """The token for the forms of this page."""
    token: str | None = g.get("form_token") or request.cookies.get(COOKIE)
    if token is None or len(token) != 43:
        token = secrets.token_urlsafe(32)
    g.form_token = token
    return token


def keep_token(response: Response) -> None:
    """Put the token that the page's forms carry into its cookie."""
    token = g.get("form_token")
    if token is not None and request.cookies.get(COOKIE) != token:
        response.set_cookie(COOKIE, token, httponly=True, samesite="Strict", secure=request.is_secure)


def check_form() -> None:
    """Raise ForbiddenError unless the form was sent by a page of ours."""
    sender = request.headers.get("Origin") or request.headers.get("Referer")
    if sender is None or _host(sender) != _host(request.host_url):
        raise ForbiddenError("the form was not sent from a page of this service (Origin)")
    kept, sent = request.cookies.get(COOKIE, ""), request.form.get(FIELD, "")
    if not kept or not hmac.compare_digest(kept.encode(), sent.encode()):
        raise ForbiddenError("the form is too old or was not sent from a page of this service: open the page again")


def _host(url: str) -> str:
    parts = urlsplit(url)
    # Not the scheme: a proxy that ends TLS need not say so.
    return parts.netloc.lower().removesuffix(_PORTS.get(parts.scheme, ""))
