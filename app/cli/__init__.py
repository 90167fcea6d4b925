"""The command line: the same service calls as the HTTP interface, printed."""

from __future__ import annotations

from app.cli.root import main

__all__ = ["main"]
