"""Ready files for `curl -K`: may I, and I did."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from flask import Blueprint, Response, request, url_for

from app.core.errors import BadRequestError
from app.service.reading import get_status
from app.web.current import current_service
from app.web.parameters import MACHINE_LENGTH, NAME_LENGTH, Query, read_query
from app.web.state import MAX_WAIT

blueprint = Blueprint("curl", __name__)

# Seconds for a request that is not asked to wait.
MAX_TIME = 10
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")


@blueprint.get("/charts/<chart:name>/can.curl", provide_automatic_options=False)
def get_can(name: str) -> Response:
    """The file that asks; a no makes curl exit 22."""
    query = read_query()
    wait = query.find_number("wait", 0, MAX_WAIT) or 0
    asked = {"wait": str(wait)} if wait else {}
    lines = ["retry = 3", *(["# It waits for a yes up to so many seconds, see wait= in the url."] if wait else [])]
    return _file(name, query, asked, lines, max_time=MAX_TIME + wait)


@blueprint.get("/charts/<chart:name>/did.curl", provide_automatic_options=False)
def get_did(name: str) -> Response:
    """The file that reports; a no makes curl exit 22."""
    query = read_query()
    key = query.find("key", NAME_LENGTH)
    lines = ['request = "PUT"']
    if _machine(query) is None:
        # A count without a machine id cannot be told from its own retry.
        lines += [
            "# Not retried: without a machine id a retry could count twice. Add machine= to get a file that may.",
            "retry = 0",
        ]
    else:
        lines.append("retry = 3")
    return _file(name, query, {"key": key} if key else {}, lines, max_time=MAX_TIME)


def _machine(query: Query) -> str | None:
    return query.find("machine", MACHINE_LENGTH, "X-Machine")


def _file(name: str, query: Query, asked: dict[str, str], lines: list[str], max_time: int) -> Response:
    state = query.get("state", NAME_LENGTH)
    machine = _machine(query)
    if _HOST.fullmatch(request.host) is None:
        raise BadRequestError("the Host header names no host, and the file must")
    get_status(current_service(), name)
    header = [] if machine is None else [f"header = {quote(f'X-Machine: {machine}')}"]
    if machine is not None and machine != machine.strip():
        # A header loses the spaces around its value, and with it the machine its identity.
        header, asked = [], {**asked, "machine": machine}
    url = url_for("state.get_state", name=name, _external=True) + "?" + urlencode({"state": state, **asked})
    text = [
        f"# {request.path.rpartition('/')[2]}: use it with `curl -K`. Exit 0 is yes, 22 is no.",
        f"url = {quote(url)}",
        *header,
        "fail",
        "silent",
        "show-error",
        f"max-time = {max_time}",
        *lines,
    ]
    return Response("\n".join(text) + "\n", mimetype="text/plain")


def quote(text: str) -> str:
    """A value as curl's config files quote it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
