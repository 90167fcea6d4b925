"""Numbers that no database holds, in every place of a path and of a query."""

from __future__ import annotations

import pytest
from flask import Flask

from app.web import PARAMETERS
from app.web.state import STATE_PARAMETERS
from app.web.ui.chart import HISTORY_FIELDS, MACHINE_FIELDS

HUGE = ["9223372036854775807", "9223372036854775808", "18446744073709551616", "9" * 30, "9" * 5000, "-1", "2147483648"]


def paths_with_numbers(number: str) -> list[str]:
    """Every known parameter of every route that reads, and every number in a path, as `number`."""
    found = [f"/charts/states/versions/{number}", f"/ui/charts/states/versions/{number}"]
    places = {endpoint.partition(".")[2].removeprefix("get_"): names for endpoint, names in PARAMETERS.items()}
    views = {"history", "machines", "diagram", "versions"} & places.keys()
    found += [f"/charts/states/{view}?{name}={number}" for view in sorted(views) for name in places[view]]
    for name in STATE_PARAMETERS:
        found += [f"/charts/states/{view}?state=green_state&{name}={number}" for view in ("state", "reached")]
    fields = (*MACHINE_FIELDS, *HISTORY_FIELDS)
    return (
        found
        + [f"/ui/charts/states?{name}={number}" for name in fields]
        + [f"/ui/charts/states/changes?after={number}"]
    )


@pytest.mark.parametrize("number", HUGE, ids=lambda text: f"{text[:20]} ({len(text)})")
def test_number_past_64_bits_is_never_500(app: Flask, number: str) -> None:
    app.extensions["stateservice"].hub.close()
    client = app.test_client()
    for path in paths_with_numbers(number):
        response = client.get(path)
        assert response.status_code < 500, path
        if "/versions/" in path:
            is_past = not number.startswith("-") and int(number[:30]) > 2**63 - 1
            assert response.status_code == (400 if is_past else 404), path
