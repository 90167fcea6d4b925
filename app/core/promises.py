"""What a chart file promises: `never:` and `always:`. `app.core.breaking` finds out whether they can be broken."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from typing import Any

LIMIT = re.compile(r"(?P<op>>=?) *(?P<number>[0-9]{1,18}(?:\.[0-9]{1,6})?)(?P<percent>%?)")
MEASURES = ("down", "begun")
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Never:
    """At no moment of a visit of `state`, or when it is entered, is the `measure` as `written`, such as `>5` or `>2%`.

    `place` is `while` (a moment of the visit) or `at` (the entry). `measure` is `down` or `begun`.
    """

    measure: str
    written: str
    place: str
    state: str

    @property
    def is_while(self) -> bool:
        """Whether it is about every moment of a visit, not about the entry."""
        return self.place == "while"

    @property
    def is_share(self) -> bool:
        """Whether the number is a percentage of the machines that take part."""
        return self.written.endswith("%")

    def most(self, machines: int) -> int:
        """Return the most machines that are allowed."""
        found = LIMIT.fullmatch(self.written)
        assert found is not None, "the reader lets no other text through"
        number = Fraction(found["number"]) * (Fraction(machines, 100) if found["percent"] else 1)
        return math.floor(number) if found["op"] == ">" else math.ceil(number) - 1

    @property
    def text(self) -> str:
        """The promise as people read it, after the word `never`."""
        return f"{self.measure} {self.written} {self.place} {self.state}"


@dataclass(frozen=True, slots=True)
class Always:
    """Every run ends in one of the final states `ends`; if `within` is given, no later than so long after its begin."""

    ends: tuple[str, ...]
    within: timedelta | None = None
    within_written: str | None = None

    @property
    def text(self) -> str:
        """The promise as people read it, after the word `always`."""
        within = "" if self.within_written is None else f" within {self.within_written}"
        return f"ends in {' or '.join(self.ends)}{within}"


@dataclass(frozen=True, slots=True)
class Promises:
    """Everything that a chart promises."""

    never: tuple[Never, ...] = ()
    always: tuple[Always, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.never or self.always)

    def as_json(self) -> dict[str, Any]:
        """Return the promises as a version's row keeps them."""
        return {
            "never": [[one.measure, one.written, one.place, one.state] for one in self.never],
            "always": [
                [list(one.ends), None if one.within is None else one.within // MICROSECOND, one.within_written]
                for one in self.always
            ],
        }


def read_promises(kept: Mapping[str, Any]) -> Promises:
    """Return the promises that `Promises.as_json` gave."""
    return Promises(
        tuple(Never(*item) for item in kept["never"]),
        tuple(
            Always(tuple(ends), None if within is None else within * MICROSECOND, written)
            for ends, within, written in kept["always"]
        ),
    )
