"""A Flask view that does nothing: what the framework and the server cost, and the measure of what ours adds."""

from __future__ import annotations

from flask import Flask

app = Flask(__name__)


@app.route("/", methods=["GET", "PUT"])
def answer() -> str:
    """Answer 200, whatever was asked."""
    return "s1"
