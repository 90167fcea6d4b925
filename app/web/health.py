"""Alive, and ready."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from app.service.health import check_ready
from app.web.current import current_service

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz", provide_automatic_options=False)
def get_healthz() -> Response:
    """200 as long as the process answers at all."""
    return jsonify({"alive": True})


@blueprint.get("/readyz", provide_automatic_options=False)
def get_readyz() -> Response:
    """200 where the database is reachable and migrated, else 503 (by DatabaseUnavailableError)."""
    check_ready(current_service())
    return jsonify({"ready": True})
