"""Logging: one JSON object per line on standard error, short lines on a terminal, or what a `--logger` file says."""

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
from typing import Any, ClassVar, TextIO

import yaml

from app.core.errors import SettingError
from app.core.log import format_instant

# How long a line of the access log waits for others, in seconds.
BATCH_SECONDS = 0.02


class JsonMessage(dict[str, Any]):
    """A log message that every formatter prints as one JSON object, so that no name in it can break a line."""

    def __str__(self) -> str:
        return json.dumps(self)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: no name that a machine sends can break a line or forge another."""

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


class ConsoleFormatter(logging.Formatter):
    """Formats a record as one short line for a person at a terminal; a request is coloured unless NO_COLOR is set."""

    COLOURS: ClassVar = {"yes": "32", "no": "33", "refused": "31", "failed": "31"}

    def format(self, record: logging.LogRecord) -> str:
        """Return `06:44:02 PUT /state green_state by web-01 -> yes, transitioned (200) 11 ms`, or what was logged.

        A traceback follows in lines of its own.
        """
        at = datetime.fromtimestamp(record.created).astimezone()
        if isinstance(record.msg, JsonMessage) and "outcome" in record.msg:
            return f"{at:%H:%M:%S} {self._say_request(record.msg)}"
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        fields = getattr(record, "fields", None)
        more = f" {json.dumps(fields)}" if fields else ""
        lines = [f"{at:%H:%M:%S} {level}{printable(record.getMessage())}{more}"]
        if record.exc_info:
            lines += [f"  {printable(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)

    def _say_request(self, said: JsonMessage) -> str:
        about = [said["state"] and f" {said['state']}", said["machine"] and f" by {said['machine']}"]
        reason = f", {said['reason']}" if said["reason"] else ""
        request = f"{said['method']} {said['path']}{''.join(part for part in about if part)}"
        outcome = said["outcome"]
        colour = None if os.environ.get("NO_COLOR") else self.COLOURS.get(outcome)
        word = outcome if colour is None else f"\x1b[{colour}m{outcome}\x1b[0m"
        rest = f"{printable(reason)} ({said['status']}) {said['milliseconds']:.0f} ms"
        return f"{printable(request)} -> {word}{rest}"


def choose_formatter(stream: TextIO | None) -> logging.Formatter:
    """Return the form of lines that go to a stream: short on a terminal, else JSON."""
    return ConsoleFormatter() if stream is not None and stream.isatty() else JsonFormatter()


def printable(text: str) -> str:
    """Return the text with `?` for what cannot be printed: no name may move the cursor or begin another line."""
    return "".join(character if character.isprintable() else "?" for character in text)


class BatchHandler(logging.Handler):
    """Writes lines in batches, up to BATCH_SECONDS later, on a thread of its own.

    A request that wrote its own line would release the interpreter lock and then wait to get it back: under load
    that costs as much as answering a GET. Lines that are not yet written are lost if the process is killed.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: deque[str] = deque()
        self._has_lines = threading.Event()
        self._writing = threading.Lock()
        # The process whose thread writes: a fork does not copy threads.
        self._process = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line, and start the writing thread if this process has none."""
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
        """Write the queued lines. Python calls this for every handler when the process ends, too."""
        with self._writing:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            # If standard error is closed, there is no place left to report it; later lines are tried again.
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
    """Yield whole lines in pieces below PIPE_BUF, so that no other writer to the same pipe can split a line."""
    piece = ""
    for line in lines:
        if piece and len(piece) + len(line) >= select.PIPE_BUF:
            yield piece
            piece = ""
        piece += f"{line}\n"
    if piece:
        yield piece


def configure_logging(path: str | None, level: str = "INFO") -> None:
    """Set up logging, from the YAML file `path` if given. Raises SettingError with the file's name if it is bad.

    On a terminal each line is short; elsewhere it is JSON.
    """
    if path is not None:
        _configure_from(Path(path))
        return
    logger = logging.getLogger("stateservice")
    logger.setLevel(level)
    _set_handler(logger, logging.StreamHandler())
    access = logging.getLogger("stateservice.access")
    _set_handler(access, BatchHandler(sys.stderr))


def _set_handler(logger: logging.Logger, handler: logging.Handler) -> None:
    handler.setFormatter(choose_formatter(sys.stderr))
    logger.handlers[:] = [handler]
    logger.propagate = False


def _configure_from(path: Path) -> None:
    try:
        logging.config.dictConfig(yaml.safe_load(path.read_text()))
    except (OSError, ValueError, TypeError, AttributeError, KeyError, ImportError, yaml.YAMLError) as error:
        raise SettingError(f"logger file {path}: {error}") from None
