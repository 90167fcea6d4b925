"""Two texts compared, line by line."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

# Comparing is slow where nothing is alike; whoever has a longer chart has a tool for it.
MAX_LINES = 4000
CONTEXT = 4


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a comparison: `kind` is added, removed, same, or skipped for lines left out between."""

    kind: str
    old: int | None
    new: int | None
    text: str


def compare(old: str, new: str) -> list[Line] | None:
    """The changed lines with some around them; empty where nothing changed, None where the texts are too long."""
    before, after = old.splitlines(), new.splitlines()
    if max(len(before), len(after)) > MAX_LINES:
        return None
    found: list[Line] = []
    for group in difflib.SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(CONTEXT):
        if found:
            found.append(Line("skipped", None, None, ""))
        for tag, left, left_end, right, right_end in group:
            if tag == "equal":
                found += [
                    Line("same", left + 1 + offset, right + 1 + offset, before[left + offset])
                    for offset in range(left_end - left)
                ]
                continue
            found += [Line("removed", number + 1, None, before[number]) for number in range(left, left_end)]
            found += [Line("added", None, number + 1, after[number]) for number in range(right, right_end)]
    return found
