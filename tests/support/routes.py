"""What the routes are about, for the tests and the proof of tokens."""

from __future__ import annotations

from app.web.auth import RULES

# These routes name no chart, so that the pattern of a token does not matter. Every other route names one: in its path,
# its query, its body, or it is about the default chart.
WITHOUT_CHART = {
    *(endpoint for endpoint in RULES if endpoint.startswith(("calendars.get_", "rosters.get_"))),
    "charts.get_machine",
    "ui.get_machine",
    "ui.get_rosters",
    "charts.get_charts",
    "charts.get_logs",
    "observe.get_metrics",
    "observe.get_openapi",
    "ui.get_docs",
    "ui.get_index",
    "ui.get_nothing",
    "tokens.post_enrol",
}
