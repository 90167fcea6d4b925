"""The page of one chart."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from flask import Response, jsonify, request
from markupsafe import Markup

from app.core.errors import BadRequestError
from app.diagram import draw
from app.diagram.plots import draw_growth, draw_stay
from app.service.authors import HistoryFilter
from app.service.detail import (
    PAGE,
    PAGE_STATES,
    Detail,
    HistoryQuery,
    MachineQuery,
    Stay,
    find_seq,
    get_detail,
    list_kinds,
)
from app.service.reading import get_version, wait_for_history
from app.web.current import current_service
from app.web.ui.base import blueprint, render
from app.web.ui.diff import compare
from app.web.ui.forms import find_instant, find_query, find_whole
from app.web.ui.snippets import list_snippets

# The fields of the two forms on the page: each keeps what the other one asked for.
MACHINE_FIELDS = ("is", "machine", "page")
HISTORY_FIELDS = ("kind", "by", "since", "until", "before")
# Below the minute after which many proxies give up on a silent server.
WAIT_SECONDS = 25

# What an act did, said on the page that follows it.
DONE = {
    "pause": "Paused.",
    "resume": "Resumed.",
    "reset": "Reset: a new run has begun.",
    "goto": "Moved.",
    "evict": "The slot is free again.",
    "created": "Imported: a new chart.",
    "upgraded": "Imported: a new version runs.",
    "unchanged": "Nothing to do: this is the version that runs.",
}


@blueprint.get("/ui/charts/<chart:name>", provide_automatic_options=False)
def get_chart(name: str) -> Response:
    """One chart: where it stands, who reported, what happened, and what to do about it."""
    machines, history = _read_machines(), _read_history()
    detail = get_detail(current_service(), name, machines, history)
    return render("chart.html", machines=machines, history=history, **_show(detail))


@blueprint.get("/ui/charts/<chart:name>/changes", provide_automatic_options=False)
def get_changes(name: str) -> Response:
    """The chart's last row in the log, held back until it is past `after`, or for 25 seconds; null once archived."""
    service = current_service()
    after = find_whole("after") or 1
    wait_for_history(service, name, HistoryFilter(after=after, limit=1), WAIT_SECONDS)
    return jsonify({"seq": find_seq(service, name)})


@blueprint.get("/ui/charts/<chart:name>/versions/<int:version>", provide_automatic_options=False)
def get_chart_version(name: str, version: int) -> Response:
    """One version: its text, and what it changed in the one before it."""
    service = current_service()
    found = get_version(service, name, version)
    before = get_version(service, name, version - 1).text if version > 1 else ""
    return render("version.html", name=name, version=found, lines=compare(before, found.text), is_first=version == 1)


def _show(detail: Detail) -> dict[str, Any]:
    bounds = [stay.visit.entered_at for stay in detail.stays] + [detail.status.read_at]
    first = detail.samples[0].seq if detail.samples else 0
    points = [(float(sample.seq - first + 1), sample.at) for sample in detail.samples]

    def draw_bar(stay: Stay) -> Markup:
        return Markup(draw_stay(stay.visit.entered_at, stay.span, bounds[0], bounds[-1]))

    return {
        "detail": detail,
        "status": detail.status,
        "bearing": detail.bearing,
        "page_size": PAGE,
        "kinds": list_kinds(),
        "said": DONE.get(find_query("done", 20) or ""),
        "diagram": Markup(draw(detail.chart, detail.standing, max_states=PAGE_STATES)),
        "growth": Markup(draw_growth(points, bounds)),
        "entries": int(points[-1][0]) if points else 0,
        "draw_bar": draw_bar,
        "snippets": list_snippets(detail.chart, detail.status.current_state),
        "with_query": _with_query,
        "kept_by_machines": _list_kept(HISTORY_FIELDS),
        "kept_by_history": _list_kept(MACHINE_FIELDS),
    }


def _read_machines() -> MachineQuery:
    kind = find_query("is", 20) or "reported"
    if kind not in ("reported", "failed", "missing"):
        raise BadRequestError(f"is={kind} is none of reported, failed, missing")
    return MachineQuery(kind, find_query("machine") or "", find_whole("page") or 1)


def _read_history() -> HistoryQuery:
    kind = find_query("kind", 16)
    if kind is not None and kind not in list_kinds():
        raise BadRequestError(f"kind={kind} is none of {', '.join(list_kinds())}")
    return HistoryQuery(kind, find_query("by"), find_instant("since"), find_instant("until"), find_whole("before"))


def _list_kept(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, request.args[name]) for name in names if request.args.get(name)]


def _with_query(anchor: str = "", **changes: object) -> str:
    """This page with some of its query changed; None takes a field out."""
    fields = {name: request.args[name] for name in (*MACHINE_FIELDS, *HISTORY_FIELDS) if request.args.get(name)}
    fields |= {name: str(value) for name, value in changes.items() if value is not None}
    kept = {name: value for name, value in fields.items() if changes.get(name, value) is not None}
    return request.path + (f"?{urlencode(kept)}" if kept else "") + (f"#{anchor}" if anchor else "")
