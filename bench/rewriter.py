"""A service of the seed's kind, for comparison: the chart is a YAML file, read for a GET and rewritten on each PUT."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import yaml
from flask import Flask, Response, request

app = Flask(__name__)
chart = Path(os.environ["BENCH_CHART"])
lock = threading.Lock()


def read() -> dict[str, Any]:
    """The chart as it is in the file."""
    found: dict[str, Any] = yaml.load(chart.read_text(), Loader=yaml.CSafeLoader)
    return found


@app.get("/state")
def get_state() -> Response:
    """May I?"""
    state = request.args["state"]
    with lock:
        is_current = state == read()["current_state"]
    return Response(state) if is_current else Response(status=406)


@app.put("/state")
def put_state() -> Response:
    """I did."""
    name = request.args["state"]
    with lock:
        document = read()
        if name != document["current_state"]:
            return Response(status=406)
        state = next(one for one in document["states"] if one["name"] == name)
        state["current"]["value"] += 1
        if state["current"]["value"] >= state["target"]["when"]["value"]:
            document["current_state"] = state["target"]["name"]
        chart.write_text(yaml.dump(document, Dumper=yaml.CSafeDumper))
    return Response(name)
