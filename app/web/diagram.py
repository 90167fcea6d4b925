"""A chart's picture, to look at and to embed."""

from __future__ import annotations

from flask import Blueprint, Response

from app.core.errors import BadRequestError
from app.diagram import DARK, LIGHT, Form
from app.service.drawing import draw_chart
from app.web.current import current_service
from app.web.parameters import Query, read_query

blueprint = Blueprint("diagram", __name__)

MIMETYPES = {Form.SVG: "image/svg+xml", Form.DOT: "text/vnd.graphviz", Form.MERMAID: "text/plain"}
THEMES = {"light": LIGHT, "dark": DARK}


@blueprint.get("/charts/<chart:name>/diagram", provide_automatic_options=False)
def get_diagram(name: str) -> Response:
    """The chart with its current state marked: SVG, Graphviz DOT or Mermaid."""
    query = read_query()
    form = Form(_read_choice(query, "format", tuple(Form)))
    theme = THEMES[_read_choice(query, "theme", tuple(THEMES))]
    response = Response(draw_chart(current_service(), name, form, theme), mimetype=MIMETYPES[form])
    # A picture runs nothing and loads nothing, wherever it is opened; asked for again it shows where the chart is now.
    response.headers["Content-Security-Policy"] = "default-src 'none'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-cache"
    return response


def _read_choice(query: Query, name: str, choices: tuple[str, ...]) -> str:
    given = query.find(name, 20) or choices[0]
    if given not in choices:
        raise BadRequestError(f"{name}={given} is none of {', '.join(choices)}")
    return given
