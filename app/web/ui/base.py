"""Reading what people filled in: an empty field is one that was not filled in."""

from __future__ import annotations

import hmac
import logging
import secrets
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, g, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException, NotFound

from app.core.errors import (
    BadRequestError,
    ForbiddenError,
    ReasonRequiredError,
    StateServiceError,
    UnauthenticatedError,
)
from app.core.log import LogRow, format_instant
from app.service import condition
from app.service.condition import Condition
from app.service.tokens import Holder, Role
from app.web import auth
from app.web.operate import REASON_LENGTH
from app.web.replies import STATUS, TITLES
from app.web.request import check_text, current_request

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


CONDITIONS = {
    Condition.STUCK: "Stuck",
    Condition.FAILED: "Failed",
    Condition.PAUSED: "Paused",
    Condition.RUNNING: "Running",
    Condition.ENDED: "Ended",
}


def stamp(instant: datetime) -> str:
    """A date and a time to the second."""
    return f"{instant:%Y-%m-%d %H:%M:%S}"


def iso(instant: datetime) -> str:
    """An instant for machines."""
    return format_instant(instant)


def say_percent(value: int, needed: int) -> str:
    """How much of what is needed is there; 100 % only where all is."""
    if needed <= 0:
        return "100 %"
    share = value * 100 // needed
    return f"{max(min(share, 100), 0)} %"


def say_change(row: LogRow) -> str:
    """What a row of the log did to the attribute it is about."""
    if row.key is None or row.value_after is None:
        return ""
    return f"{row.key} {row.value_before} → {row.value_after}"


blueprint = Blueprint("ui", __name__)
logger = logging.getLogger("stateservice.web")
# Own files only; the style sheet's icons are data: images. Nothing inline, nobody's frame.
POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: a browser would then send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


def render(template: str, code: int = 200, /, **values: Any) -> Response:
    """A page."""
    return make_response(render_template(f"ui/{template}", **values), code)


def go_to(endpoint: str, **values: Any) -> Response:
    """A redirect to one of our own pages, to be fetched by GET."""
    return make_response(redirect(url_for(endpoint, **values), code=303))


def find_viewer() -> Holder | None:
    """Who looks at the page; None where nobody is signed in yet."""
    return None if uses_tokens() and request.endpoint in ("ui.get_login", "ui.post_login") else current_request().holder


def uses_tokens() -> bool:
    """True where people must sign in."""
    return bool(current_app.extensions["stateservice.config"].auth == "tokens")


@blueprint.app_template_filter("span")
def _span(value: Any) -> str:
    return condition.say_span(value)


# What the templates call `words`.
_WORDS = SimpleNamespace(CONDITIONS=CONDITIONS, iso=iso, say_change=say_change, say_percent=say_percent, stamp=stamp)


@blueprint.context_processor
def _give_templates() -> dict[str, Any]:
    viewer = find_viewer()
    return {
        "viewer": viewer,
        "may": lambda role, chart=None: viewer is not None and viewer.may(Role[role], chart),
        "may_manage_tokens": viewer is not None and viewer.may(Role.ADMIN) and viewer.pattern == "*",
        "uses_tokens": uses_tokens(),
        "csrf_token": issue_token,
        "words": _WORDS,
    }


@blueprint.before_request
def _check_form() -> None:
    if request.method == "POST":
        # A chart file may be 1 MiB, and is sent as a field of a form; nothing else here is large.
        request.max_content_length = 2 * 1024 * 1024
        request.max_form_memory_size = 2 * 1024 * 1024
        check_form()


@blueprint.after_request
def _add_headers(response: Response) -> Response:
    keep_token(response)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


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
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    return _error_page(status, str(error))


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
    """A page for a path that is none."""
    raise NotFound(f"there is no page /ui/{rest}")


def find_query(name: str, limit: int = 255) -> str | None:
    """A field of a form that was sent by GET. Raises BadRequestError."""
    value = request.args.get(name, "").strip()
    return check_text(name, value, limit) if value else None


def find_whole(name: str) -> int | None:
    """A positive whole number that was sent by GET. Raises BadRequestError."""
    text = find_query(name, 18)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise BadRequestError(f"{name}={text} is not a whole number from 1")
    return int(text)


def find_instant(name: str) -> datetime | None:
    """An instant that was sent by GET, as the browser's own field for it writes one: without an offset, and UTC here.

    Raises BadRequestError.
    """
    text = find_query(name, 40)
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequestError(f"{name}={text} is not a date and time") from None


def find_field(name: str, limit: int = 255) -> str | None:
    """A field of a form that was sent by POST. Raises BadRequestError."""
    value = " ".join(request.form.get(name, "").split())
    return check_text(name, value, limit) if value else None


def get_field(name: str, limit: int = 255) -> str:
    """As `find_field`, for one that must be filled in."""
    value = find_field(name, limit)
    if value is None:
        raise BadRequestError(f"{name} is missing")
    return value


def get_reason() -> str:
    """The reason for an act. Raises ReasonRequiredError, BadRequestError."""
    reason = find_field("reason", REASON_LENGTH)
    if reason is None:
        raise ReasonRequiredError("a reason is required: the log keeps it")
    return reason
