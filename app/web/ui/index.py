"""The page of all charts."""

from __future__ import annotations

from flask import Response

from app.core.errors import BadRequestError
from app.diagram.plots import draw_sparkline
from app.service.condition import Condition
from app.service.pages import get_overview
from app.service.tokens import Role
from app.web.request import current_holder, current_service
from app.web.ui.base import blueprint, find_query, render


@blueprint.get("/", provide_automatic_options=False)
def get_index() -> Response:
    """Every chart, the most urgent first; `q` searches, `show` filters by condition."""
    holder = current_holder()
    text, condition = find_query("q") or "", _read_condition()
    overview = get_overview(current_service(), lambda name: holder.may(Role.READER, name), text, condition)
    return render(
        "index.html",
        overview=overview,
        text=text,
        condition=condition,
        conditions=tuple(Condition),
        draw_sparkline=draw_sparkline,
    )


def _read_condition() -> Condition | None:
    text = find_query("show", 20)
    if text is None:
        return None
    try:
        return Condition[text.upper()]
    except KeyError:
        raise BadRequestError(f"show={text} is none of {', '.join(str(item) for item in Condition)}") from None
