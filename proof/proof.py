"""What a proof is made of: its parts, its lines of progress, its report; and the new databases it runs on."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proof.stand import Database, postgresql_database, postgresql_server, sqlite_database


@dataclass(slots=True)
class Proof:
    """What was tried so far, and what came of it."""

    started: float = field(default_factory=time.monotonic)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        return all(part["is_proof"] for part in self.parts.values())

    def say(self, line: str) -> None:
        """Print a line of progress."""
        sys.stdout.write(f"[{time.monotonic() - self.started:6.0f} s] {line}\n")
        sys.stdout.flush()

    def add(self, name: str, part: dict[str, Any], line: str) -> None:
        """Note what a part came to."""
        self.parts[name] = part
        self.say(f"{name}: {line}")

    def write(self, path: Path) -> None:
        """Write the report."""
        path.parent.mkdir(exist_ok=True)
        report = {"is_proof": self.is_whole, "seconds": round(time.monotonic() - self.started), "parts": self.parts}
        path.write_text(json.dumps(report, indent=2) + "\n")


Opener = Callable[[Path], AbstractContextManager[Database]]


@contextmanager
def opener(which: str, folder: Path) -> Iterator[Opener]:
    """What opens new databases of the kind `which`, each with a folder of its own."""
    if which == "sqlite":
        yield sqlite_database
        return
    # Its runtime folder must be nobody else's.
    with postgresql_server(Path(tempfile.mkdtemp(dir=folder))) as server:
        yield lambda folder: postgresql_database(server)


@contextmanager
def opened(which: str, folder: Path) -> Iterator[Database]:
    """A new database of the kind `which`."""
    with opener(which, folder) as open_database, open_database(folder) as database:
        yield database


@contextmanager
def new_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="prove-", ignore_cleanup_errors=True) as name:
        yield Path(name)
