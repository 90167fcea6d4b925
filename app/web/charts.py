"""Charts: what there is, where each stands, and its definition."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from app.service import reading
from app.web.current import current_service

blueprint = Blueprint("charts", __name__)

STATUS_TYPES = ("application/json", "text/plain", "application/yaml")


@blueprint.get("/charts", provide_automatic_options=False)
def get_charts() -> Response:
    """Every chart and where it stands."""
    return jsonify([status.as_json() for status in reading.list_statuses(current_service())])


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


@blueprint.get("/charts/<chart:name>/versions/<int:version>", provide_automatic_options=False)
def get_version(name: str, version: int) -> Response:
    """One definition, as the text that was imported."""
    found = reading.get_version(current_service(), name, version)
    return Response(found.text, mimetype="application/yaml")
