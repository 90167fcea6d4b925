"""Forms of the pages: proof that one of our pages sent a form, and the values of its fields.

An empty field is one that the person did not fill in. The proof is written here rather than taken from Flask-WTF, which
needs a secret key: in open mode the service has none.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import datetime

from flask import Response, g, request

from app.core.errors import BadRequestError, ForbiddenError
from app.service.operate import require_reason
from app.web.auth import name_cookie
from app.web.guard import is_own_origin
from app.web.operate import REASON_LENGTH
from app.web.request import check_text
from app.web.values import read_instant, read_whole

# The form token: a random value in a cookie and in every form. Another site can send a form but cannot read the cookie.
COOKIE = "stateservice_form"
FIELD = "form_token"
TOKEN_LENGTH = 43
# The most that `find_whole` reads: 18 digits.
MAX_WHOLE = 10**18 - 1


def issue_token() -> str:
    """The form token of this page: the one in the browser's cookie, or a new one."""
    token: str | None = g.get("form_token") or request.cookies.get(_cookie())
    if token is None or len(token) != TOKEN_LENGTH:
        token = secrets.token_urlsafe(32)
    g.form_token = token
    return token


def _cookie() -> str:
    return name_cookie(COOKIE, is_secure=request.is_secure)


def keep_token(response: Response) -> None:
    """Set the cookie to the form token that this page's forms carry."""
    token = g.get("form_token")
    if token is not None and request.cookies.get(_cookie()) != token:
        response.set_cookie(_cookie(), token, httponly=True, samesite="Strict", secure=request.is_secure, path="/")


def check_form() -> None:
    """Check that one of our pages sent this form. Raises ForbiddenError."""
    sender = request.headers.get("Origin") or request.headers.get("Referer")
    if sender is None or not is_own_origin(sender, request.host):
        raise ForbiddenError("the form was not sent from a page of this service (Origin)")
    kept, sent = request.cookies.get(_cookie(), ""), request.form.get(FIELD, "")
    if not kept or not hmac.compare_digest(kept.encode(), sent.encode()):
        raise ForbiddenError("the form is too old or was not sent from a page of this service: open the page again")


def find_query(name: str, limit: int = 255) -> str | None:
    """A field of a form that was sent by GET; None if it is empty. Raises BadRequestError."""
    value = request.args.get(name, "").strip()
    return check_text(name, value, limit) if value else None


def find_whole(name: str, high: int = MAX_WHOLE) -> int | None:
    """A whole number from 1 to `high` in a form that was sent by GET; None if it is empty. Raises BadRequestError."""
    text = find_query(name, 18)
    return None if text is None else read_whole(name, text, 1, high)


def find_instant(name: str) -> datetime | None:
    """An instant in a form that was sent by GET; None if it is empty. Raises BadRequestError.

    The browser's field for date and time sends no offset: the instant is in UTC.
    """
    text = find_query(name, 40)
    return None if text is None else read_instant(name, text)


def find_field(name: str, limit: int = 255) -> str | None:
    """A field of a form that was sent by POST, its white space folded; None if it is empty. Raises BadRequestError."""
    value = " ".join(request.form.get(name, "").split())
    return check_text(name, value, limit) if value else None


def get_field(name: str, limit: int = 255) -> str:
    """A field that must be filled in, of a form that was sent by POST. Raises BadRequestError."""
    value = find_field(name, limit)
    if value is None:
        raise BadRequestError(f"{name} is missing")
    return value


def get_reason() -> str:
    """The reason for an act. Raises ReasonRequiredError, BadRequestError."""
    return require_reason(find_field("reason", REASON_LENGTH))
