"""The API's own description."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import yaml
from flask import Blueprint, Response

blueprint = Blueprint("openapi", __name__)

SOURCE = Path(__file__).with_name("openapi.yaml")


@blueprint.get("/openapi.json", provide_automatic_options=False)
def get_openapi() -> Response:
    """The OpenAPI document, which is a file beside this one."""
    return Response(read_document(), mimetype="application/json")


@cache
def read_document() -> str:
    """The document as JSON, with nothing in it that points elsewhere in the YAML."""
    return json.dumps(yaml.safe_load(SOURCE.read_text()), ensure_ascii=False)
