"""Logging: one JSON object a line on standard error, or what a `--logger` file says."""

from __future__ import annotations

import json
import logging
import logging.config
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from app.core.errors import SettingError
from app.core.log import format_instant


class JsonMessage(dict[str, Any]):
    """A log message that is one JSON object whatever formatter prints it, so that no name in it can break a line."""

    def __str__(self) -> str:
        return json.dumps(self)


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: no name that a machine gives can break a line or forge another."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of ASCII."""
        fields = {
            "at": format_instant(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            **(record.msg if isinstance(record.msg, JsonMessage) else {"message": record.getMessage()}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def configure_logging(path: str | None, level: str = "INFO") -> None:
    """Set logging up, from the YAML file `path` where there is one. Raises SettingError, naming the file."""
    if path is not None:
        _configure_from(Path(path))
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("stateservice")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def _configure_from(path: Path) -> None:
    try:
        logging.config.dictConfig(yaml.safe_load(path.read_text()))
    except (OSError, ValueError, TypeError, AttributeError, KeyError, ImportError, yaml.YAMLError) as error:
        raise SettingError(f"logger file {path}: {error}") from None
