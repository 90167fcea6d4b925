"""The page of all charts, the most urgent first; the page of a machine; and the page of all rosters."""

from __future__ import annotations

from flask import Response

from app.diagram.plots import draw_sparkline
from app.service import roll, rosters
from app.service.condition import Condition
from app.service.pages import get_overview
from app.service.tokens import Role
from app.service.upkeep import check_ready
from app.web.request import check_machine, current_holder, current_service, read_choice
from app.web.ui.base import blueprint, find_query, render

# Charts that the page of all rosters names for each of them.
CHARTS_SHOWN = 10


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


@blueprint.get("/ui/rosters", provide_automatic_options=False)
def get_rosters() -> Response:
    """Every roster with its newest version, and the charts that follow it, of those that the viewer may see."""
    holder = current_holder()
    found = [
        (roster, [chart for chart in roster.charts if holder.may(Role.READER, chart)])
        for roster in rosters.list_rosters(current_service())
    ]
    return render("rosters.html", rosters=found, shown=CHARTS_SHOWN)


def _read_condition() -> Condition | None:
    text = find_query("show", 20)
    if text is None:
        return None
    conditions = {str(condition): condition for condition in Condition}
    return conditions[read_choice("show", text.lower(), tuple(conditions))]
