"""Logging: one JSON object a line on standard error, or what a `--logger` file says."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import yaml

from app.core.errors import SettingError
from app.core.log import format_instant

# How long a line of the access log may wait for others.
BATCH_SECONDS = 0.02


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


class BatchHandler(logging.Handler):
    """Writes lines together, a moment later, on a thread of its own.

    A request that writes its own line lets go of the interpreter for it, and queues up to get it back: under load
    that costs as much as a question does. What is not yet written is lost with a process that is killed.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: deque[str] = deque()
        self._has_lines = threading.Event()
        self._writing = threading.Lock()
        # Threads do not come along into a fork.
        self._process = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        try:
            self._lines.append(self.format(record))
            if not self._has_lines.is_set():
                self._has_lines.set()
            if self._process != os.getpid():
                self._process = os.getpid()
                threading.Thread(target=self._write_for_ever, name="access-log", daemon=True).start()
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write what there is, as Python does with every handler when it ends."""
        with self._writing:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            # Where standard error is gone there is nobody to tell; the next lines may have more luck.
            with suppress(OSError, ValueError):
                for piece in _pieces(lines):
                    self._stream.write(piece)
                    self._stream.flush()

    def _write_for_ever(self) -> None:
        while True:
            self._has_lines.wait()
            time.sleep(BATCH_SECONDS)
            self._has_lines.clear()
            self.flush()


def _pieces(lines: Sequence[str]) -> Iterator[str]:
    """Whole lines, as many together as no other process that writes to the same pipe can come between."""
    piece = ""
    for line in lines:
        if piece and len(piece) + len(line) >= select.PIPE_BUF:
            yield piece
            piece = ""
        piece += f"{line}\n"
    if piece:
        yield piece


def configure_logging(path: str | None, level: str = "INFO") -> None:
    """Set logging up, from the YAML file `path` where there is one. Raises SettingError, naming the file."""
    if path is not None:
        _configure_from(Path(path))
        return
    logger = logging.getLogger("stateservice")
    logger.setLevel(level)
    _give(logger, logging.StreamHandler())
    _give(logging.getLogger("stateservice.access"), BatchHandler(sys.stderr))


def _give(logger: logging.Logger, handler: logging.Handler) -> None:
    handler.setFormatter(JsonFormatter())
    logger.handlers[:] = [handler]
    logger.propagate = False


def _configure_from(path: Path) -> None:
    try:
        logging.config.dictConfig(yaml.safe_load(path.read_text()))
    except (OSError, ValueError, TypeError, AttributeError, KeyError, ImportError, yaml.YAMLError) as error:
        raise SettingError(f"logger file {path}: {error}") from None
