"""Collecting a chart file's problems: each at its place, in a bounded number, with near matches."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from itertools import islice
from typing import Protocol

from app.core.errors import Problem

MAX_PROBLEMS = 1000
MAX_QUOTED = 60
# Comparing words is slow: a hostile file must not buy minutes of it.
MAX_COMPARISONS = 10_000
MAX_COMPARED_LENGTH = 40
# Of a shorter word there is too little left to guess by.
MIN_COMPARED_LENGTH = 3


class Place(Protocol):
    """Where something stands in the file; line and column count from 1."""

    @property
    def line(self) -> int: ...

    @property
    def column(self) -> int: ...


def quote(text: str) -> str:
    """Return `text` quoted, printable and cut to a length that fits a message."""
    return repr(text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 3] + "...")


class Problems:
    """The problems found so far; beyond `MAX_PROBLEMS` they are only counted."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._left_out = 0
        self._comparisons_left = MAX_COMPARISONS

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, place: Place, message: str) -> None:
        """Note a problem at `place`."""
        self.add_at(place.line, place.column, message)

    def add_at(self, line: int, column: int, message: str) -> None:
        """Note a problem at a line and column, both from 1."""
        if len(self._found) < MAX_PROBLEMS:
            self._found.append(Problem(line, column, message))
        else:
            self._left_out += 1

    def in_order(self) -> tuple[Problem, ...]:
        """Return the problems by position; where some were left out, a last one says how many."""
        found = sorted(self._found)
        if self._left_out:
            found.append(Problem(found[-1].line, found[-1].column, f"and {self._left_out} more problems"))
        return tuple(found)

    def find_nearest(self, word: str, known: Collection[str]) -> str | None:
        """Return the one of `known` that `word` was probably meant to be; None once too many words were compared."""
        if not MIN_COMPARED_LENGTH <= len(word) <= MAX_COMPARED_LENGTH:
            return None
        candidates = {name.lower(): name for name in islice(known, self._comparisons_left)}
        self._comparisons_left -= len(candidates)
        comparable = [name for name in candidates if len(name) <= MAX_COMPARED_LENGTH]
        nearest = difflib.get_close_matches(word.lower(), comparable, n=1)
        return candidates[nearest[0]] if nearest else None

    def add_unknown(self, place: Place, what: str, word: str, known: Collection[str]) -> str | None:
        """Note that `word` is none of the few words `known`; return the nearest one."""
        nearest = self.find_nearest(word, known)
        hint = f"did you mean {quote(nearest)}?" if nearest is not None else f"known: {', '.join(known)}"
        self.add(place, f"unknown {what} {quote(word)} ({hint})")
        return nearest
