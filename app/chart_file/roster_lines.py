"""Reads the lines of a roster: a machine a line, then `label=value[,value]...`.

Blank lines are skipped, and so is whatever follows a `#` at the beginning of a line or after a space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from app.chart_file.expect import to_label, to_label_value
from app.chart_file.fields import ScalarError, to_machine_id
from app.chart_file.nodes import Problems, quote
from app.core.errors import ChartFileError
from app.core.expect import Labels, read_labels

MAX_MACHINES = 1_000_000
MAX_LABELS = 32
MAX_VALUES = 64
# Bytes of a line; a line within the limits above may be long, but not that long.
MAX_LINE = 300_000


class RosterFileError(ChartFileError):
    """The lines of a roster have problems; all of them are in `problems`, in the order of the lines."""


def parse_roster(lines: Iterable[bytes]) -> dict[str, str]:
    """Return each machine with its labels, `rack=r12 shard=7 shard=9`: sorted, one value each.

    `lines` are read one at a time. Raises RosterFileError with every problem.
    """
    problems = Problems()
    found: dict[str, str] = {}
    # Many machines have the same labels: each text is read once, and kept once.
    known: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = _decode(line, number, problems)
        if text is None:
            continue
        machine, _, rest = text.partition(" ")
        labels = known.get(rest)
        if labels is None:
            labels = _read_labels(rest, number, problems)
            if labels is None:
                continue
            known[rest] = labels
        if machine in found:
            problems.add_at(number, 1, f"the machine {quote(machine)} is listed twice")
        elif len(found) >= MAX_MACHINES:
            problems.add_at(number, 1, f"the roster has more than {MAX_MACHINES} machines")
            break
        elif _is_machine(machine, number, problems):
            found[machine] = labels
    if problems:
        raise RosterFileError(problems.in_order())
    return found


def parse_labels(text: bytes) -> dict[str, Labels]:
    """Return each machine of a roster with its labels. Raises RosterFileError with every problem."""
    return {machine: read_labels(labels) for machine, labels in parse_roster(text.splitlines()).items()}


def _decode(line: bytes, number: int, problems: Problems) -> str | None:
    """Return the line's words with one space between them; None for a line without words."""
    if len(line) > MAX_LINE:
        problems.add_at(number, 1, f"the line is longer than {MAX_LINE} bytes")
        return None
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        problems.add_at(number, error.start + 1, f"not UTF-8: the byte 0x{line[error.start]:02X}")
        return None
    if number == 1:
        text = text.removeprefix("\ufeff")
    words = text.split()
    if "#" in text:
        words = words[: next((place for place, word in enumerate(words) if word.startswith("#")), len(words))]
    return " ".join(words) or None


def _is_machine(machine: str, number: int, problems: Problems) -> bool:
    if machine.isascii() and machine.isprintable() and len(machine) <= 255 and "=" not in machine:
        return True
    try:
        to_machine_id(machine)
    except ScalarError as error:
        problems.add_at(number, 1, f"the machine {error}")
        return False
    if "=" in machine:
        problems.add_at(number, 1, f"{quote(machine)} looks like a label: a line begins with a machine")
        return False
    return True


def _read_labels(text: str, number: int, problems: Problems) -> str | None:
    """Return the labels as they are kept; None if a problem was noted."""
    labels: dict[str, list[str]] = {}
    before = problems.count
    for word in text.split():
        label, found, written = word.partition("=")
        values = list(dict.fromkeys(written.split(",")))
        try:
            if not found:
                raise ScalarError(f"{quote(word)} is not label=value")
            if to_label(label) in labels:
                raise ScalarError(f"the label {quote(label)} is given twice")
            if len(values) > MAX_VALUES:
                raise ScalarError(f"the label {quote(label)} has {len(values)} values, over {MAX_VALUES}")
            labels[label] = sorted(map(to_label_value, values))
        except ScalarError as error:
            problems.add_at(number, 1, str(error))
    if len(labels) > MAX_LABELS:
        problems.add_at(number, 1, f"the machine has {len(labels)} labels, over {MAX_LABELS}")
    if problems.count != before:
        return None
    return " ".join(f"{label}={value}" for label in sorted(labels) for value in labels[label])


@lru_cache(maxsize=20_000)
def write_labels(labels: str) -> str:
    """Return labels as a line has them: `rack=r12 shard=7,9`."""
    values: dict[str, list[str]] = {}
    for token in labels.split():
        label, _, value = token.partition("=")
        values.setdefault(label, []).append(value)
    return " ".join(f"{label}={','.join(listed)}" for label, listed in values.items())


def write_line(machine: str, labels: str) -> str:
    """Return a machine's line."""
    return f"{machine} {write_labels(labels)}\n" if labels else f"{machine}\n"


def digest(lines: Mapping[str, str]) -> str:
    """Return the SHA-256 of a roster's lines, sorted by machine, as the service gives them."""
    made = hashlib.sha256()
    for text in _pieces(lines):
        made.update(text.encode())
    return made.hexdigest()


def _pieces(lines: Mapping[str, str]) -> Iterator[str]:
    for machine in sorted(lines):
        yield write_line(machine, lines[machine])
