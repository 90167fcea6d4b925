"""What every page has: the blueprint, its headers, its errors as pages, and what templates may use."""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, Response, current_app, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException, NotFound

from app.core.errors import StateServiceError, UnauthenticatedError
from app.service.tokens import Holder, Role
from app.web.note import note_of
from app.web.problems import STATUS, TITLES
from app.web.ui import csrf, session, words

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
    return (
        None
        if uses_tokens() and request.endpoint in ("ui.get_login", "ui.post_login")
        else note_of(request.environ).holder
    )


def uses_tokens() -> bool:
    """True where people must sign in."""
    return bool(current_app.extensions["stateservice.config"].auth == "tokens")


@blueprint.app_template_filter("span")
def _span(value: Any) -> str:
    return words.say_span(value)


@blueprint.context_processor
def _give_templates() -> dict[str, Any]:
    viewer = find_viewer()
    return {
        "viewer": viewer,
        "may": lambda role, chart=None: viewer is not None and viewer.may(Role[role], chart),
        "may_manage_tokens": viewer is not None and viewer.may(Role.ADMIN) and viewer.pattern == "*",
        "uses_tokens": uses_tokens(),
        "csrf_token": csrf.issue_token,
        "words": words,
    }


@blueprint.before_request
def _check_form() -> None:
    if request.method == "POST":
        # A chart file may be 1 MiB, and is sent as a field of a form; nothing else here is large.
        request.max_content_length = 2 * 1024 * 1024
        request.max_form_memory_size = 2 * 1024 * 1024
        csrf.check_form()


@blueprint.after_request
def _add_headers(response: Response) -> Response:
    csrf.keep_token(response)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


@blueprint.errorhandler(UnauthenticatedError)
def _handle_unauthenticated(error: UnauthenticatedError) -> Response:
    is_page = request.method in ("GET", "HEAD") and request.endpoint != "ui.get_changes"
    if not is_page:
        return _error_page(401, str(error))
    response = go_to("ui.get_login", next=request.full_path.rstrip("?"))
    session.end(response)
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
    note_of(request.environ).problem = detail
    return render("error.html", status, status=status, title=TITLES.get(status, "Error"), detail=detail)


@blueprint.get("/ui/<path:rest>", provide_automatic_options=False)
def get_nothing(rest: str) -> Response:
    """A page for a path that is none."""
    raise NotFound(f"there is no page /ui/{rest}")
