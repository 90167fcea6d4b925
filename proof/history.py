"""What client processes recorded: every attempt, when it was made, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

# What a 503 may say of a PUT; a connection that was lost and a time-out leave it unknown, too.
UNKNOWN = "unknown"
NOT_APPLIED = "not_applied"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request as its sender saw it. Instants are nanoseconds of the machine's one monotonic clock.

    `method` is GET or PUT for a question and a report, else what was asked: CLAIM or RELEASE by a machine; PAUSE,
    RESUME, RESET, GOTO or UPGRADE by an operator, whose `idempotency_key` is the reason that the log then has, and
    whose `key` is the chart file's SHA-256. `status` is None where no answer came. `seq` is what a JSON answer said,
    else None. A `replay` says that the update had been applied before. `value` is what the answer said of the
    attribute, of the slot's fence, or of the version. A question that may `wait` is answered late on purpose.
    """

    chart: str
    method: str
    state: str
    called: int
    returned: int
    status: int | None
    machine: str | None = None
    key: str | None = None
    idempotency_key: str | None = None
    seq: int | None = None
    replay: bool = False
    outcome: str | None = None
    value: int | None = None
    reason: str | None = None
    wait: int = 0

    @property
    def is_write(self) -> bool:
        """True if it asks for a change."""
        return self.method != "GET"

    @property
    def is_yes(self) -> bool:
        return self.status == 200

    @property
    def is_no(self) -> bool:
        return self.status == 406

    @property
    def may_be_applied(self) -> bool:
        """True for a write whose sender cannot know whether it was applied."""
        return self.is_write and (self.status is None or (self.status == 503 and self.outcome != NOT_APPLIED))


def write_attempts(path: Path, attempts: Iterable[Attempt]) -> None:
    """Write attempts to a file, a JSON array a line."""
    with path.open("w") as file:
        file.writelines(json.dumps(astuple(attempt)) + "\n" for attempt in attempts)


def read_attempts(path: Path) -> Iterator[Attempt]:
    """Read what `write_attempts` wrote."""
    with path.open() as file:
        for line in file:
            yield Attempt(*json.loads(line))
