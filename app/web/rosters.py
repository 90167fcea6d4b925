"""Rosters and calendars over HTTP: imported from an inventory's lines or from iCalendar text, and read back.

A token's chart pattern names neither of them, because charts of any name may follow one. So every reader may read every
roster and calendar, and an import needs an admin whose pattern covers all charts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fractions import Fraction
from io import BufferedReader, RawIOBase

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import RequestEntityTooLarge

from app.chart_file.expect import join_conditions, to_condition
from app.chart_file.fields import ScalarError, to_part
from app.core.errors import BadRequestError
from app.core.expect import Where
from app.service import calendars, rosters
from app.service.rosters import MAX_LOSS, RosterRequest, RosterView, import_roster, read_lines
from app.service.tokens import Role
from app.web.request import (
    MAX_INT,
    MAX_ROSTER_BODY,
    Query,
    current_author,
    current_holder,
    current_service,
    read_body,
    read_query,
)

# Rosters

blueprint = Blueprint("rosters", __name__)


@blueprint.get("/rosters", provide_automatic_options=False)
def get_rosters() -> Response:
    """Every roster with its newest version, and the charts that follow it, of those that the caller may read."""
    holder = current_holder()
    found = [roster.as_json() for roster in rosters.list_rosters(current_service())]
    for roster in found:
        roster["charts"] = [chart for chart in roster["charts"] if holder.may(Role.READER, chart)]
    return jsonify(found)


@blueprint.get("/rosters/<chart:roster>", provide_automatic_options=False)
def get_roster(roster: str) -> Response:
    """The lines of the newest version, or JSON by `Accept`; with `where=` those that have these labels."""
    return _answer(rosters.read_roster(current_service(), roster, where=_read_where(read_query())))


@blueprint.get("/rosters/<chart:roster>/versions", provide_automatic_options=False)
def get_roster_versions(roster: str) -> Response:
    """The versions of a roster, oldest first."""
    return jsonify([version.as_json() for version in rosters.list_versions(current_service(), roster)])


@blueprint.get("/rosters/<chart:roster>/versions/<number:version>", provide_automatic_options=False)
def get_roster_version(roster: str, version: int) -> Response:
    """The lines of one version, or JSON by `Accept`."""
    return _answer(rosters.read_roster(current_service(), roster, version, _read_where(read_query())))


@blueprint.get("/rosters/<chart:roster>/diff", provide_automatic_options=False)
def get_roster_diff(roster: str) -> Response:
    """What differs between two versions, by default the newest two: JSON, or lines with - and + by `Accept`."""
    query = read_query()
    before, after = (query.find_number(name, 1, MAX_INT) for name in ("from", "to"))
    found = rosters.diff_roster(current_service(), roster, before, after)
    if request.accept_mimetypes.best_match(["application/json", "text/plain"]) == "text/plain":
        return Response(found.as_text(), mimetype="text/plain")
    return jsonify(found.as_json())


@blueprint.put("/rosters/<chart:roster>", provide_automatic_options=False)
def put_roster(roster: str) -> tuple[Response, int]:
    """Import a roster's lines: 201 for a new roster, 200 for a new version and for the same lines again."""
    query = read_query()
    wanted = RosterRequest(
        roster,
        read_lines(_read_body()),
        max_loss=_read_share(query),
        dry_run=bool(query.find_number("dry_run", 0, 1)),
    )
    imported = import_roster(current_service(), wanted, current_author())
    return jsonify(imported.as_json()), 201 if imported.outcome == "created" else 200


def _read_body() -> Iterable[bytes]:
    """Return the lines of the body, one at a time: it may be larger than what fits into memory well."""
    request.max_content_length = MAX_ROSTER_BODY
    try:
        stream = request.stream
    except RequestEntityTooLarge:
        raise RequestEntityTooLarge(f"a roster is at most {MAX_ROSTER_BODY} bytes") from None
    # Read in blocks: the server's stream finds line ends byte by byte.
    return BufferedReader(stream) if isinstance(stream, RawIOBase) else stream


def _read_share(query: Query) -> Fraction:
    text = query.find("max_loss", 20)
    if text is None:
        return MAX_LOSS
    try:
        return to_part(text, "10%")
    except ScalarError as error:
        raise BadRequestError(f"max_loss: {error}") from None


def _read_where(query: Query) -> Where:
    """Return the labels of `where=zone:a`; of the same label given several times, any value will do."""
    try:
        return join_conditions(to_condition(text) for text in query.all("where"))
    except ScalarError as error:
        raise BadRequestError(f"where: {error}") from None


def _answer(view: RosterView) -> Response:
    if request.accept_mimetypes.best_match(["text/plain", "application/json"]) == "application/json":
        return Response(_write_json(view), mimetype="application/json")
    return Response(view.as_text(), mimetype="text/plain")


def _write_json(view: RosterView) -> Iterator[str]:
    yield f'{{"roster": {json.dumps(view.name)}, "version": {view.version}, "machines": ['
    before = ""
    for chunk in view.chunks():
        items = [json.dumps({"machine": machine, "labels": labels}, ensure_ascii=False) for machine, labels in chunk]
        yield before + ",\n".join(items)
        before = ",\n"
    yield "]}\n"


# Calendars

calendars_blueprint = Blueprint("calendars", __name__)
TEXT = "text/calendar"


@calendars_blueprint.get("/calendars", provide_automatic_options=False)
def get_calendars() -> Response:
    """Every calendar with its newest version, and the charts that go by it, of those that the caller may read."""
    return jsonify([_show(view) for view in calendars.list_calendars(current_service())])


@calendars_blueprint.get("/calendars/<chart:calendar>", provide_automatic_options=False)
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


@calendars_blueprint.get("/calendars/<chart:calendar>/versions", provide_automatic_options=False)
def get_calendar_versions(calendar: str) -> Response:
    """The versions of a calendar, oldest first."""
    return jsonify([version.as_json() for version in calendars.list_versions(current_service(), calendar)])


@calendars_blueprint.get(
    "/calendars/<chart:calendar>/versions/<int(max=2147483647):version>", provide_automatic_options=False
)
def get_calendar_version(calendar: str, version: int) -> Response:
    """The text of one version, byte for byte as it was imported."""
    return Response(calendars.get_version(current_service(), calendar, version).text, mimetype=TEXT)


@calendars_blueprint.put("/calendars/<chart:calendar>", provide_automatic_options=False)
def put_calendar(calendar: str) -> tuple[Response, int]:
    """Import a calendar: 201 for a new one, 200 for a new version and for the same text again."""
    text = read_body("a calendar", calendars.MAX_BYTES, "send the calendar, as in curl -T freeze.ics")
    imported = calendars.import_calendar(current_service(), calendar, text, current_author())
    return jsonify(imported.as_json()), 201 if imported.outcome == "created" else 200
