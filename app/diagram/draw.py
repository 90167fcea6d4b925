"""One chart, one picture, in the form that is asked for."""

from __future__ import annotations

from enum import StrEnum

from app.core.chart import Chart
from app.diagram.standing import Standing
from app.diagram.svg import draw_svg
from app.diagram.texts import draw_dot, draw_mermaid
from app.diagram.theme import LIGHT, Theme
from app.diagram.window import cut_window

# What is drawn whole; of a larger chart an SVG shows the states around the current one.
MAX_STATES = 1500
MAX_ARROWS = 4000
WINDOW = 60


class Form(StrEnum):
    """The forms of a picture."""

    SVG = "svg"
    DOT = "dot"
    MERMAID = "mermaid"


def draw(
    chart: Chart,
    standing: Standing | None = None,
    form: Form = Form.SVG,
    theme: Theme = LIGHT,
    max_states: int = MAX_STATES,
) -> str:
    """The picture of a chart, with the state in which it stands marked. DOT and Mermaid always have all of it."""
    if form is Form.DOT:
        return draw_dot(chart, standing)
    if form is Form.MERMAID:
        return draw_mermaid(chart, standing)
    if not is_large(chart, max_states):
        return draw_svg(chart, standing, theme)
    centre = standing.state if standing is not None else chart.initial
    note = f"{len(chart.states)} states; shown are those around {centre}"
    return draw_svg(cut_window(chart, centre, WINDOW), standing, theme, chart, note)


def is_large(chart: Chart, max_states: int = MAX_STATES) -> bool:
    """True for a chart of which an SVG shows a part only."""
    arrows = sum(len(state.transitions) for state in chart.states.values())
    return len(chart.states) > max_states or arrows > MAX_ARROWS
