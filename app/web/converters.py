"""What a chart's name in a path may look like."""

from __future__ import annotations

from werkzeug.routing import BaseConverter


class ChartNameConverter(BaseConverter):
    """A chart's name; any other text in its place is a path that does not exist."""

    regex = r"[A-Za-z0-9_.:\-]{1,128}"
