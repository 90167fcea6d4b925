"""Ready files for `curl -K`: may I, and I did."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import urlencode

from flask import Blueprint, Response, jsonify, request, url_for
from werkzeug.exceptions import RequestEntityTooLarge

from app.core.errors import BadRequestError
from app.core.log import HistoryFilter
from app.core.position import Kind
from app.diagram import DARK, LIGHT, Form
from app.service import reading
from app.service.operate import MAX_BYTES, ImportRequest, Outcome, import_chart
from app.service.pages import draw_chart
from app.service.reading import as_csv, as_ndjson, get_status, iterate_history, list_machines
from app.service.tokens import Role
from app.web.request import (
    MACHINE_LENGTH,
    MAX_WAIT,
    NAME_LENGTH,
    Query,
    current_author,
    current_holder,
    current_service,
    read_query,
    wait_for_rows,
)

blueprint = Blueprint("charts", __name__)
# A body that is too large is read all the same, as far as deploy/nginx.conf lets one through: nginx loses the answer of
# a server that closes the connection on what it has not read, and says 502. One byte more, because a chunked body is
# cut at the limit without a word.
MAX_READ = 2 * MAX_BYTES + 1
STATUS_TYPES = ("application/json", "text/plain", "application/yaml")


@blueprint.get("/charts", provide_automatic_options=False)
def get_charts() -> Response:
    """Every chart and where it stands."""
    holder = current_holder()
    statuses = reading.list_statuses(current_service())
    return jsonify([status.as_json() for status in statuses if holder.may(Role.READER, status.chart)])


@blueprint.get("/charts/<chart:name>", provide_automatic_options=False)
def get_chart(name: str) -> Response:
    """One chart: JSON, text for people, or the chart file with its live values, by Accept."""
    wanted = request.accept_mimetypes.best_match(STATUS_TYPES, "application/json")
    if wanted == "application/yaml":
        return Response(reading.export_chart(current_service(), name), mimetype="application/yaml")
    status = reading.get_status(current_service(), name)
    if wanted == "text/plain":
        return Response(status.as_text(), mimetype="text/plain")
    return jsonify(status.as_json())


@blueprint.get("/charts/<chart:name>/versions", provide_automatic_options=False)
def get_versions(name: str) -> Response:
    """The chart's definitions, oldest first."""
    return jsonify([version.as_json() for version in reading.list_versions(current_service(), name)])


@blueprint.get("/charts/<chart:name>/versions/<int(max=2147483647):version>", provide_automatic_options=False)
def get_version(name: str, version: int) -> Response:
    """One definition, as the text that was imported."""
    found = reading.get_version(current_service(), name, version)
    return Response(found.text, mimetype="application/yaml")


@blueprint.put("/charts/<chart:name>", provide_automatic_options=False)
def put_chart(name: str) -> tuple[Response, int]:
    """Import a chart file: 201 for a new chart, 200 for the same one again and for an upgrade."""
    query = read_query()
    imported = import_chart(
        current_service(),
        ImportRequest(
            read_body(),
            name=name,
            maps=query.all("map"),
            dry_run=bool(query.find_number("dry_run", 0, 1)),
        ),
        current_author(),
    )
    return jsonify(imported.as_json()), 201 if imported.outcome is Outcome.CREATED else 200


def read_body() -> bytes:
    """The request's body, a chart file. Raises RequestEntityTooLarge, BadRequestError."""
    request.max_content_length = MAX_READ
    body = request.get_data()
    if len(body) > MAX_BYTES:
        raise RequestEntityTooLarge(f"a chart file is at most {MAX_BYTES} bytes")
    if not body:
        raise BadRequestError("the body is empty: send the chart file, as in curl --data-binary @chart.yaml")
    return body


@blueprint.get("/charts/<chart:name>/machines", provide_automatic_options=False)
def get_machines(name: str) -> Response:
    """The machines of a state's latest visit: those that reported, or with `is=missing` those that did not."""
    query = read_query()
    wanted = query.find("is", NAME_LENGTH) or "reported"
    if wanted not in ("reported", "missing"):
        raise BadRequestError(f"is={wanted} is neither reported nor missing")
    state = query.find("state", NAME_LENGTH)
    only_missing = wanted == "missing"
    found = list_machines(current_service(), name, state, only_missing=only_missing)
    if request.accept_mimetypes.best_match(["application/json", "text/plain"]) == "text/plain":
        return Response(found.as_text(only_missing=only_missing), mimetype="text/plain")
    return jsonify(found.as_json(only_missing=only_missing))


MAX_ROWS = 1000
FORMATS = {"json": "application/json", "csv": "text/csv", "ndjson": "application/x-ndjson"}
MAX_SEQ = 2**63 - 1
KINDS = tuple(str(kind) for kind in Kind)


@blueprint.get("/charts/<chart:name>/history", provide_automatic_options=False)
def get_history(name: str) -> Response:
    """The rows of the log, oldest first; JSON at most 1,000 at a time, CSV and NDJSON all of them."""
    query = read_query()
    form = _read_format(query)
    wanted = _read_filter(query, MAX_ROWS if form == "json" else None)
    wait = query.find_number("wait", 0, MAX_WAIT) or 0
    wait_for_rows(name, wanted, wait)
    rows = iterate_history(current_service(), name, wanted)
    if form == "json":
        return jsonify([row.as_json() for row in rows])
    return Response(as_csv(rows) if form == "csv" else as_ndjson(rows), mimetype=FORMATS[form])


def _read_format(query: Query) -> str:
    given = query.find("format", 20)
    if given is not None and given not in FORMATS:
        raise BadRequestError(f"format={given} is none of {', '.join(FORMATS)}")
    if given is not None:
        return given
    accepted = request.accept_mimetypes.best_match(list(FORMATS.values()), FORMATS["json"])
    return next(name for name, mimetype in FORMATS.items() if mimetype == accepted)


def _read_filter(query: Query, default_limit: int | None) -> HistoryFilter:
    return HistoryFilter(
        after=query.find_number("after", 0, MAX_SEQ) or 0,
        limit=query.find_number("limit", 1, MAX_ROWS) or default_limit,
        kind=_read_kind(query),
        machine=query.find("machine", MACHINE_LENGTH),
        since=_read_instant(query, "since"),
        until=_read_instant(query, "until"),
    )


def _read_kind(query: Query) -> str | None:
    kind = query.find("kind", 20)
    if kind is not None and kind not in KINDS:
        raise BadRequestError(f"kind={kind} is none of {', '.join(KINDS)}")
    return kind


def _read_instant(query: Query, name: str) -> datetime | None:
    text = query.find(name, 40)
    if text is None:
        return None
    try:
        # A plus that was not percent-encoded arrives as a space.
        instant = datetime.fromisoformat(text.replace(" +", "+").replace(" ", "+") if "T" in text else text)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequestError(f"{name}={text} is not an ISO 8601 instant") from None


MIMETYPES = {Form.SVG: "image/svg+xml", Form.DOT: "text/vnd.graphviz", Form.MERMAID: "text/plain"}
THEMES = {"light": LIGHT, "dark": DARK}


@blueprint.get("/charts/<chart:name>/diagram", provide_automatic_options=False)
def get_diagram(name: str) -> Response:
    """The chart with its current state marked: SVG, Graphviz DOT or Mermaid."""
    query = read_query()
    form = Form(_read_choice(query, "format", tuple(Form)))
    theme = THEMES[_read_choice(query, "theme", tuple(THEMES))]
    response = Response(draw_chart(current_service(), name, form, theme), mimetype=MIMETYPES[form])
    # A picture runs nothing and loads nothing, wherever it is opened; asked for again it shows where the chart is now.
    response.headers["Content-Security-Policy"] = "default-src 'none'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-cache"
    return response


def _read_choice(query: Query, name: str, choices: tuple[str, ...]) -> str:
    given = query.find(name, 20) or choices[0]
    if given not in choices:
        raise BadRequestError(f"{name}={given} is none of {', '.join(choices)}")
    return given


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
