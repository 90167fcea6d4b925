"""Charts over HTTP: list, read and import them; their machines, log and diagram; and ready files for `curl -K`.

An operator's acts are in operate.py; what machines ask and report is in state.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlencode

from flask import Blueprint, Response, jsonify, request, url_for

from app.core.errors import BadRequestError
from app.core.log import HistoryFilter
from app.diagram import THEMES, Form
from app.service import reading, roll
from app.service.operate import MAX_BYTES, ImportRequest, Outcome, import_chart
from app.service.pages import draw_chart
from app.service.past import get_past_status
from app.service.reading import as_csv, as_ndjson, iterate_history, list_kinds
from app.service.roll import MAX_MACHINES, RollQuery, Which, list_roll
from app.service.runs import DEFAULT_RUNS, MAX_RUNS, list_runs
from app.service.tokens import Role
from app.service.verifying import Head, list_logged_charts, verify
from app.web.request import (
    MACHINE_LENGTH,
    MAX_WAIT,
    NAME_LENGTH,
    Query,
    check_machine,
    current_author,
    current_holder,
    current_service,
    read_body,
    read_choice,
    read_instant,
    read_query,
    wait_for_rows,
)

blueprint = Blueprint("charts", __name__)
# The forms of a chart, by `Accept`; the first is the default.
STATUS_TYPES = ("application/json", "text/plain", "application/yaml")


@blueprint.get("/charts", provide_automatic_options=False)
def get_charts() -> Response:
    """The status of every chart that the caller's token covers."""
    holder = current_holder()
    statuses = reading.list_statuses(current_service())
    return jsonify([status.as_json() for status in statuses if holder.may(Role.READER, status.chart)])


@blueprint.get("/charts/<chart:name>", provide_automatic_options=False)
def get_chart(name: str) -> Response:
    """One chart by `Accept`: JSON, text for people, or the chart file with its live state and values.

    With `at=` the status is that of an earlier instant.
    """
    wanted = request.accept_mimetypes.best_match(STATUS_TYPES, "application/json")
    at = _read_instant(read_query(), "at")
    if wanted == "application/yaml":
        if at is not None:
            raise BadRequestError("at= answers with JSON or text; the chart file of a version is at /versions/N")
        return Response(reading.export_chart(current_service(), name), mimetype="application/yaml")
    service = current_service()
    status = reading.get_status(service, name) if at is None else get_past_status(service, name, at)
    if wanted == "text/plain":
        return Response(status.as_text(), mimetype="text/plain")
    return jsonify(status.as_json())


@blueprint.get("/charts/<chart:name>/versions", provide_automatic_options=False)
def get_versions(name: str) -> Response:
    """The chart's versions, oldest first."""
    return jsonify([version.as_json() for version in reading.list_versions(current_service(), name)])


@blueprint.get("/charts/<chart:name>/versions/<number:version>", provide_automatic_options=False)
def get_version(name: str, version: int) -> Response:
    """The text of one version, byte for byte as it was imported."""
    found = reading.get_version(current_service(), name, version)
    return Response(found.text, mimetype="application/yaml")


@blueprint.put("/charts/<chart:name>", provide_automatic_options=False)
def put_chart(name: str) -> tuple[Response, int]:
    """Import a chart file: 201 for a new chart, 200 for an unchanged one and for an upgrade."""
    query = read_query()
    imported = import_chart(
        current_service(),
        ImportRequest(
            read_body("a chart file", MAX_BYTES, "send the chart file, as in curl --data-binary @chart.yaml"),
            name=name,
            maps=query.all("map"),
            dry_run=bool(query.find_number("dry_run", 0, 1)),
        ),
        current_author(),
    )
    return jsonify(imported.as_json()), 201 if imported.outcome is Outcome.CREATED else 200


MACHINE_TYPES = {"json": "application/json", "text": "text/plain", "csv": "text/csv"}
MAX_RUN = 2**31 - 1


@blueprint.get("/charts/<chart:name>/machines", provide_automatic_options=False)
def get_machines(name: str) -> Response:
    """The machines of one visit: those that reported, or those that `is` asks for. JSON, CSV, or one id a line."""
    query = read_query()
    which = read_choice("is", query.find("is", NAME_LENGTH) or "reported", tuple(Which))
    wanted = RollQuery(
        state=query.find("state", NAME_LENGTH),
        run=query.find_number("run", 1, MAX_RUN),
        visit=query.find_number("visit", 1, MAX_RUN),
        key=query.find("key", NAME_LENGTH),
        which=Which(which),
        after=query.find("after", MACHINE_LENGTH),
        limit=query.find_number("limit", 1, MAX_MACHINES) or MAX_MACHINES,
    )
    form = _read_format(query, MACHINE_TYPES)
    found = list_roll(current_service(), name, wanted)
    if form == "json":
        return jsonify(found.as_json())
    return Response(found.as_csv() if form == "csv" else found.as_text(), mimetype=MACHINE_TYPES[form])


@blueprint.get("/machines/<path:machine>", provide_automatic_options=False)
def get_machine(machine: str) -> Response:
    """Every chart that the machine is in and the caller's token covers: what it said there and when, and its slots."""
    holder = current_holder()
    name = check_machine(machine)
    found = roll.get_machine(current_service(), name, lambda chart: holder.may(Role.READER, chart))
    if request.accept_mimetypes.best_match(["application/json", "text/plain"]) == "text/plain":
        return Response(found.as_text(), mimetype="text/plain")
    return jsonify(found.as_json())


@blueprint.get("/charts/<chart:name>/runs", provide_automatic_options=False)
def get_runs(name: str) -> Response:
    """The latest runs, the oldest of them first: states, how long they took, reports, failures, ending."""
    query = read_query()
    limit = query.find_number("limit", 1, MAX_RUNS) or DEFAULT_RUNS
    before = query.find_number("before", 1, MAX_SEQ)
    return jsonify([run.as_json() for run in list_runs(current_service(), name, limit, before)])


HISTORY_TYPES = {"json": "application/json", "csv": "text/csv", "ndjson": "application/x-ndjson"}
# Rows in one JSON answer. The other forms are streamed.
MAX_ROWS = 1000
MAX_SEQ = 2**63 - 1
KINDS = list_kinds()


@blueprint.get("/charts/<chart:name>/history", provide_automatic_options=False)
def get_history(name: str) -> Response:
    """The rows of the log, oldest first: at most 1,000 as JSON, all of them as CSV or NDJSON."""
    query = read_query()
    form = _read_format(query, HISTORY_TYPES)
    wanted = _read_filter(query, *((MAX_ROWS, MAX_ROWS) if form == "json" else (MAX_SEQ, None)))
    wait = query.find_number("wait", 0, MAX_WAIT) or 0
    wait_for_rows(name, wanted, wait)
    rows = iterate_history(current_service(), name, wanted)
    if form == "json":
        return jsonify([row.as_json() for row in rows])
    return Response(as_csv(rows) if form == "csv" else as_ndjson(rows), mimetype=HISTORY_TYPES[form])


def _read_format(query: Query, types: Mapping[str, str]) -> str:
    given = query.find("format", 20)
    if given is not None:
        return read_choice("format", given, tuple(types))
    accepted = request.accept_mimetypes.best_match(list(types.values()), types["json"])
    return next(name for name, mimetype in types.items() if mimetype == accepted)


def _read_filter(query: Query, max_limit: int, default_limit: int | None) -> HistoryFilter:
    return HistoryFilter(
        after=query.find_number("after", 0, MAX_SEQ) or 0,
        limit=query.find_number("limit", 1, max_limit) or default_limit,
        kind=_read_kind(query),
        machine=query.find("machine", MACHINE_LENGTH),
        since=_read_instant(query, "since"),
        until=_read_instant(query, "until"),
    )


def _read_kind(query: Query) -> str | None:
    kind = query.find("kind", 20)
    return None if kind is None else read_choice("kind", kind, KINDS)


def _read_instant(query: Query, name: str) -> datetime | None:
    text = query.find(name, 40)
    return None if text is None else read_instant(name, text)


@blueprint.get("/logs", provide_automatic_options=False)
def get_logs() -> Response:
    """The names of all logs that the caller's token covers, also of archived charts."""
    holder = current_holder()
    return jsonify([name for name in list_logged_charts(current_service()) if holder.may(Role.READER, name)])


@blueprint.get("/charts/<chart:name>/verify", provide_automatic_options=False)
def get_verify(name: str) -> Response:
    """The log, replayed and compared with all tables: the rows read, and what differs."""
    expect = read_query().find("expect", NAME_LENGTH)
    expected = None if expect is None else Head.of_text(expect)
    return jsonify(verify(current_service(), name, expected=expected).as_json())


DIAGRAM_TYPES = {Form.SVG: "image/svg+xml", Form.DOT: "text/vnd.graphviz", Form.MERMAID: "text/plain"}


@blueprint.get("/charts/<chart:name>/diagram", provide_automatic_options=False)
def get_diagram(name: str) -> Response:
    """The chart with its current state marked: SVG, Graphviz DOT or Mermaid."""
    query = read_query()
    form = Form(_read_option(query, "format", tuple(Form)))
    theme = THEMES[_read_option(query, "theme", tuple(THEMES))]
    response = Response(draw_chart(current_service(), name, form, theme), mimetype=DIAGRAM_TYPES[form])
    # The picture may run nothing and load nothing, whichever page shows it. A browser must ask for it again each time,
    # because the chart may have moved.
    response.headers["Content-Security-Policy"] = "default-src 'none'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-cache"
    return response


def _read_option(query: Query, name: str, choices: tuple[str, ...]) -> str:
    """A parameter that is one of `choices`; the first is the default. Raises BadRequestError."""
    return read_choice(name, query.find(name, 20) or choices[0], choices)


# Seconds that curl gives a request without `wait=`.
MAX_TIME = 10
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")


@blueprint.get("/charts/<chart:name>/can.curl", provide_automatic_options=False)
def get_can(name: str) -> Response:
    """A file for `curl -K` that asks whether the machine may start; curl exits with 22 on a no.

    In a state with slots it claims one.
    """
    query = read_query()
    wait = query.find_number("wait", 0, MAX_WAIT) or 0
    asked = {"wait": str(wait)} if wait else {}
    asked |= {"again": "1"} if query.find_flag("again") else {}
    lines = [
        "retry = 3",
        "retry-connrefused",
        *([f"# The server waits up to {wait} s for a yes before it answers."] if wait else []),
    ]
    resource = "state"
    if _has_slots(name, query):
        resource, lines = "slot", ["# The state has slots: this claims one. The report gives it back.", PUT, *lines]
    return _answer_file(name, query, asked, (resource, lines), max_time=MAX_TIME + wait)


@blueprint.get("/charts/<chart:name>/did.curl", provide_automatic_options=False)
def get_did(name: str) -> Response:
    """A file for `curl -K` that reports the machine as done; curl exits with 22 on a no."""
    query = read_query()
    _has_slots(name, query)
    key = query.find("key", NAME_LENGTH)
    lines = [PUT]
    if query.find_machine() is None:
        # The server cannot tell a retry of a report without a machine id from a second report.
        lines += [
            "# No retry: without a machine id a retry could count twice. Add machine= for a file that retries.",
            "retry = 0",
        ]
    else:
        lines += [
            "retry = 3",
            "# Also after a refused connection and a lost answer: a machine counts once.",
            "retry-all-errors",
        ]
    return _answer_file(name, query, {"key": key} if key else {}, ("state", lines), max_time=MAX_TIME)


PUT = 'request = "PUT"'


def _has_slots(name: str, query: Query) -> bool:
    """True if the state has slots. Raises ChartNotFoundError, and BadRequestError if no machine is named."""
    has_slots = reading.has_slots(current_service(), name, query.get("state", NAME_LENGTH))
    if has_slots and query.find_machine() is None:
        raise BadRequestError("the state has slots, and a machine must hold one to report: machine is missing")
    return has_slots


def _answer_file(
    name: str, query: Query, asked: dict[str, str], what: tuple[str, list[str]], *, max_time: int
) -> Response:
    """Answer the file that asks `what`: its resource, and its lines."""
    resource, lines = what
    machine, run = query.find_machine(), query.find_number("run", 1, MAX_RUN)
    if _HOST.fullmatch(request.host) is None:
        raise BadRequestError("the Host header does not name a host, which the file needs for its url")
    header = [] if machine is None else [f"header = {quote_for_curl(f'X-Machine: {machine}')}"]
    asked = {"state": query.get("state", NAME_LENGTH), **asked, **({} if run is None else {"run": str(run)})}
    url = url_for("state.get_state", name=name, _external=True).removesuffix("state") + resource
    text = [
        f"# {request.path.rpartition('/')[2]}: use it with `curl -K`. Exit 0 is yes, 22 is no.",
        f"url = {quote_for_curl(f'{url}?{urlencode(asked)}')}",
        *header,
        "fail",
        "silent",
        "show-error",
        "# A redirect is no answer: curl follows none, and exits with 47.",
        "location",
        "max-redirs = 0",
        f"max-time = {max_time}",
        *lines,
    ]
    return Response("\n".join(text) + "\n", mimetype="text/plain")


def quote_for_curl(text: str) -> str:
    """Quote a value as curl's config files want it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
