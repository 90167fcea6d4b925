"""Calendars over HTTP: iCalendar texts whose events close charts.

A token's chart pattern does not name calendars, because charts of any name may go by one. So every reader may read
every calendar, and an import needs an admin whose pattern covers all charts.
"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from app.service import calendars
from app.service.tokens import Role
from app.web.request import current_author, current_holder, current_service, read_body

blueprint = Blueprint("calendars", __name__)
TEXT = "text/calendar"


@blueprint.get("/calendars", provide_automatic_options=False)
def get_calendars() -> Response:
    """Every calendar with its newest version, and the charts that go by it, of those that the caller may read."""
    return jsonify([_show(view) for view in calendars.list_calendars(current_service())])


@blueprint.get("/calendars/<chart:calendar>", provide_automatic_options=False)
def get_calendar(calendar: str) -> Response:
    """One calendar with its next events; its text by `Accept: text/calendar`."""
    view = calendars.get_calendar(current_service(), calendar)
    if request.accept_mimetypes.best_match(["application/json", TEXT], "application/json") == TEXT:
        return Response(view.version.text, mimetype=TEXT)
    return jsonify(_show(view))


def _show(view: calendars.CalendarView) -> dict[str, object]:
    holder, fields = current_holder(), view.as_json()
    fields["charts"] = [chart for chart in view.charts if holder.may(Role.READER, chart)]
    return fields


@blueprint.get("/calendars/<chart:calendar>/versions", provide_automatic_options=False)
def get_calendar_versions(calendar: str) -> Response:
    """The versions of a calendar, oldest first."""
    return jsonify([version.as_json() for version in calendars.list_versions(current_service(), calendar)])


@blueprint.get("/calendars/<chart:calendar>/versions/<int(max=2147483647):version>", provide_automatic_options=False)
def get_calendar_version(calendar: str, version: int) -> Response:
    """The text of one version, byte for byte as it was imported."""
    return Response(calendars.get_version(current_service(), calendar, version).text, mimetype=TEXT)


@blueprint.put("/calendars/<chart:calendar>", provide_automatic_options=False)
def put_calendar(calendar: str) -> tuple[Response, int]:
    """Import a calendar: 201 for a new one, 200 for a new version and for the same text again."""
    text = read_body("a calendar", calendars.MAX_BYTES, "send the calendar, as in curl -T freeze.ics")
    imported = calendars.import_calendar(current_service(), calendar, text, current_author())
    return jsonify(imported.as_json()), 201 if imported.outcome == "created" else 200
