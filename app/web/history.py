"""The log of a chart: JSON, CSV or NDJSON, streamed."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response, jsonify, request

from app.core.errors import BadRequestError
from app.core.position import Kind
from app.service.authors import HistoryFilter
from app.service.exports import as_csv, as_ndjson
from app.service.reading import iterate_history, wait_for_history
from app.web.current import current_service
from app.web.parameters import MACHINE_LENGTH, Query, read_query
from app.web.state import MAX_WAIT

blueprint = Blueprint("history", __name__)

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
    service = current_service()
    wait_for_history(service, name, wanted, wait)
    rows = iterate_history(service, name, wanted)
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
