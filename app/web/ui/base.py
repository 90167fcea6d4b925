"""What all pages share: the blueprint and its headers, the templates' words, forms, and errors as pages.

A form carries a proof that one of our pages sent it. The proof is written here rather than taken from Flask-WTF, which
needs a secret key: in open mode the service has none. An empty field is one that the person did not fill in.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from flask import Blueprint, Response, current_app, g, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException, NotFound

from app.core.errors import BadRequestError, ForbiddenError, StateServiceError, UnauthenticatedError
from app.core.log import LogRow, format_instant
from app.core.position import Kind
from app.service.condition import Condition
from app.service.operate import require_reason
from app.service.tokens import Holder, Role
from app.service.words import say_number, say_span
from app.web import auth
from app.web.auth import is_own_origin, name_cookie
from app.web.operate import REASON_LENGTH
from app.web.replies import TITLES, find_status
from app.web.request import check_text, current_request, read_instant, read_whole

# Forms

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


# Pages

blueprint = Blueprint("ui", __name__)
logger = logging.getLogger("stateservice.web")
# Only our own files, and the style sheet's icons, which are data: images. Nothing inline; no page may frame ours.
POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # With no-referrer a browser would send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
# Bytes. A form carries a chart file of up to 1 MiB in one of its fields; every other form is small.
MAX_FORM = 2 * 1024 * 1024


def render(template: str, code: int = 200, /, **values: Any) -> Response:
    """A page made from a template in app/templates/ui, with the status `code`."""
    return make_response(render_template(f"ui/{template}", **values), code)


def go_to(endpoint: str, **values: Any) -> Response:
    """A redirect to one of our pages; the browser fetches it by GET."""
    return make_response(redirect(url_for(endpoint, **values), code=303))


def uses_tokens() -> bool:
    """True if the pages require a person to sign in."""
    return bool(current_app.extensions["stateservice.config"].auth == "tokens")


def find_viewer() -> Holder | None:
    """The holder of the token that the page is shown to; None on the login page."""
    return None if uses_tokens() and request.endpoint in ("ui.get_login", "ui.post_login") else current_request().holder


# How the templates write values.

CONDITIONS = {
    Condition.FAILED: "Failed",
    Condition.BACKING_OUT: "Backing out",
    Condition.AT_THE_EDGE: "At the edge",
    Condition.STUCK: "Stuck",
    Condition.WAITING: "Waiting",
    Condition.PAUSED: "Paused",
    Condition.RUNNING: "Running",
    Condition.ENDED: "Ended",
}


def stamp(instant: datetime) -> str:
    """An instant as people read it, to the second."""
    return f"{instant:%Y-%m-%d %H:%M:%S}"


def say_ago(instant: datetime) -> str:
    """How long ago an instant was, or how long it is until then: `2 h ago`, `in 5 min`, `now`."""
    span = datetime.now(UTC) - instant
    if abs(span) < timedelta(seconds=5):
        return "now"
    return f"{say_span(span)} ago" if span > timedelta(0) else f"in {say_span(-span)}"


def say_percent(value: int, needed: int) -> str:
    """The share of `needed` that `value` is, rounded down: it says 100 % only if nothing is missing."""
    if needed <= 0:
        return "100 %"
    share = value * 100 // needed
    return f"{max(min(share, 100), 0)} %"


def say_change(row: LogRow) -> str:
    """How a row of the log changed its attribute; empty if it changed none."""
    if row.key is None or row.value_after is None:
        return ""
    after = f"version {row.value_after}" if row.kind == Kind.CALENDAR else row.value_after
    return f"{row.key} {after}" if row.value_before is None else f"{row.key} {row.value_before} → {after}"


@blueprint.app_template_filter("span")
def _span(value: Any) -> str:
    return say_span(value)


@blueprint.app_template_filter("capitalize_first")
def _capitalize_first(value: str) -> str:
    return value[:1].upper() + value[1:]


# The name `words` in the templates.
_WORDS = SimpleNamespace(
    CONDITIONS=CONDITIONS,
    iso=format_instant,
    say_ago=say_ago,
    say_change=say_change,
    say_number=say_number,
    say_percent=say_percent,
    stamp=stamp,
)


@blueprint.context_processor
def _give_templates() -> dict[str, Any]:
    viewer = find_viewer()
    return {
        "viewer": viewer,
        "may": lambda role, chart=None: viewer is not None and viewer.may(Role[role], chart),
        "may_manage_tokens": viewer is not None and viewer.may(Role.ADMIN) and viewer.is_for_all_charts,
        "uses_tokens": uses_tokens(),
        "csrf_token": issue_token,
        "words": _WORDS,
    }


# Before and after every page.


@blueprint.before_request
def _check_form() -> None:
    if request.method == "POST":
        request.max_content_length = MAX_FORM
        request.max_form_memory_size = MAX_FORM
        check_form()


@blueprint.after_request
def _add_headers(response: Response) -> Response:
    keep_token(response)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


# Errors as pages.


@blueprint.errorhandler(UnauthenticatedError)
def _handle_unauthenticated(error: UnauthenticatedError) -> Response:
    is_page = request.method in ("GET", "HEAD") and request.endpoint != "ui.get_changes"
    if not is_page:
        return _error_page(401, str(error))
    response = go_to("ui.get_login", next=request.full_path.rstrip("?"))
    auth.end(response)
    return response


@blueprint.errorhandler(StateServiceError)
def _handle_known(error: StateServiceError) -> Response:
    return _error_page(find_status(error), str(error))


@blueprint.errorhandler(HTTPException)
def _handle_http(error: HTTPException) -> Response:
    return _error_page(error.code or 500, error.description or error.name)


@blueprint.errorhandler(Exception)
def _handle_unknown(error: Exception) -> Response:
    logger.error("unhandled error", exc_info=error)
    return _error_page(500, "the service failed; its log says how")


def _error_page(status: int, detail: str) -> Response:
    current_request().problem = detail
    return render("error.html", status, status=status, title=TITLES.get(status, "Error"), detail=detail)


@blueprint.get("/ui/<path:rest>", provide_automatic_options=False)
def get_nothing(rest: str) -> Response:
    """Answer 404, as a page, for any other path under /ui."""
    raise NotFound(f"there is no page /ui/{rest}")
