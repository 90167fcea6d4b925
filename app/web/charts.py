"""Charts: what there is, where each stands, and its definition."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import RequestEntityTooLarge

from app.core.errors import BadRequestError
from app.service import reading
from app.service.imports import MAX_BYTES, ImportRequest, Outcome, import_chart
from app.service.tokens import Role
from app.web.current import current_author, current_holder, current_service
from app.web.parameters import read_query

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
