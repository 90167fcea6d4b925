"""A terminal for a command: what it prints where a person reads it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path


def run_on_terminal(command: Sequence[str], folder: Path, columns: int, settings: Mapping[str, str]) -> str:
    """Return what `command` prints on a terminal of that width. Fails if it exits otherwise than with 0."""
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        own |= {"TERM": "xterm-256color", **settings}
        process = subprocess.Popen(
            command, cwd=folder, env=own, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True
        )
        os.close(theirs)
        pieces = []
        # Linux says that the last one who writes has gone by an error.
        with suppress(OSError):
            while piece := terminal.read(65536):
                pieces.append(piece)
        assert process.stderr is not None
        problem = process.stderr.read()
        process.stderr.close()
        assert process.wait(60) == 0, problem
    return b"".join(pieces).decode().replace("\r\n", "\n")
