"""The page of all charts, the most urgent first; and the page of a machine."""

from __future__ import annotations

from flask import Response

from app.diagram.plots import draw_sparkline
from app.service import roll
from app.service.condition import Condition
from app.service.pages import get_overview
from app.service.tokens import Role
from app.service.upkeep import check_ready
from app.web.request import check_machine, current_holder, current_service
from app.web.ui.base import blueprint, render
from app.web.ui.forms import find_query
from app.web.values import read_choice


@blueprint.get("/", provide_automatic_options=False)
def get_index() -> Response:
    """Every chart that the viewer may see; `q` searches in name, state and description, `show` filters by condition.

    Raises DatabaseUnavailableError if the service is not ready.
    """
    check_ready(current_service())
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


@blueprint.get("/ui/machines/<path:machine>", provide_automatic_options=False)
def get_machine(machine: str) -> Response:
    """Every chart that the machine is in and the viewer may see: what it said there, when, and its slots."""
    holder = current_holder()
    found = roll.get_machine(current_service(), check_machine(machine), lambda name: holder.may(Role.READER, name))
    return render("machine.html", machine=found)


def _read_condition() -> Condition | None:
    text = find_query("show", 20)
    if text is None:
        return None
    conditions = {str(condition): condition for condition in Condition}
    return conditions[read_choice("show", text.lower(), tuple(conditions))]
