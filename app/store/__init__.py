"""Every query, by name: a module a table, or a group of tables that are written together."""

from __future__ import annotations

from app.store import charts, definitions, log, machines, overview, record, tokens

__all__ = ["charts", "definitions", "log", "machines", "overview", "record", "tokens"]
