"""Keeps what the service logs."""

from __future__ import annotations

import json
import logging
from typing import Any

from app.logs import JsonFormatter


class Lines(logging.Handler):
    """Keeps what a handler would have written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.written.append(self.format(record))

    def last(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.written[-1])
        return found
