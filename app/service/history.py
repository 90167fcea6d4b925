"""The history on a chart's page: what matters, with what machines did in between folded into a line.

What matters are transitions, operators' acts and imports. Rows about one machine of many are folded: updates, claims,
releases, late reports, leases that ran out, and reports that were withdrawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from app import store
from app.core.chart import FAILED_KEY
from app.core.log import HistoryFilter, LogRow
from app.core.position import Kind
from app.db import Connection
from app.service.words import say_number

# Rows on a page.
PAGE = 20
# So many rows or fewer between two that matter are shown as they are.
FEW = 3
# Folds of more rows than this on one page say only how many rows they stand for.
MAX_COUNTED = 100_000
# The page's own choices beside the kinds of rows: every row, and reports of failures.
EVERYTHING, FAILURES = "all", "failed"

# What a fold calls the rows of a kind, if not by the kind itself.
NOUNS = {
    str(Kind.LATE): "late report",
    str(Kind.EXPIRE): "lease* that ran out",
    str(Kind.WITHDRAW): "report* withdrawn",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """Which rows of the log a page shows: the newest rows that match, before the row with the seq `before`.

    `kind` is a kind of row, EVERYTHING or FAILURES; without any condition the page shows what matters. `words` are
    searched in reasons and notes.
    """

    kind: str | None = None
    machine: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    words: str | None = None

    @property
    def is_folded(self) -> bool:
        """Whether what machines did is folded."""
        return (self.kind, self.machine, self.since, self.until, self.words) == (None,) * 5

    def as_filter(self) -> HistoryFilter:
        """The rows that match, on all pages."""
        has_kind = self.kind not in (None, EVERYTHING, FAILURES)
        return HistoryFilter(
            kind=self.kind if has_kind else None,
            key=FAILED_KEY if self.kind == FAILURES else None,
            machine=self.machine,
            since=self.since,
            until=self.until,
            words=self.words,
        )


@dataclass(frozen=True, slots=True)
class Fold:
    """The rows from `first` to `last`, which machines caused; `counts` has how many there are, in words."""

    first: int
    last: int
    counts: Sequence[str]


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of the log. The next page begins before the row with the seq `older`; None if this is the last page."""

    rows: Sequence[LogRow | Fold]
    older: int | None


def get_history(connection: Connection, row: store.charts.ChartRow, query: HistoryQuery) -> HistoryPage:
    """Return one page of a chart's log, newest first."""
    if query.is_folded:
        return _get_folded(connection, row, query.before)
    rows = store.log.list_latest_history(connection, row.name, query.as_filter(), query.before, PAGE + 1)
    return HistoryPage(rows[:PAGE], rows[PAGE - 1].seq if len(rows) > PAGE else None)


def _get_folded(connection: Connection, row: store.charts.ChartRow, before: int | None) -> HistoryPage:
    end = row.seq + 1 if before is None else min(before, row.seq + 1)
    acts = store.log.list_latest_acts(connection, row.name, end, PAGE + 1)
    older = acts[PAGE - 1].seq if len(acts) > PAGE else None
    acts = acts[:PAGE]
    # Between two rows of the page, and below the last one down to the log's first row, lie the rows of machines.
    bounds = [end, *(act.seq for act in acts)]
    if older is None:
        bounds.append(store.log.find_oldest_seq(connection, row.name) - 1)
    gaps = [(low + 1, high - 1) for high, low in pairwise(bounds) if high - low > 1]
    folded = _fold(connection, row.name, gaps)
    rows = [item for number, act in enumerate([*acts, None]) for item in (*folded.get(bounds[number] - 1, ()), act)]
    return HistoryPage([item for item in rows if item is not None], older)


def _fold(connection: Connection, chart: str, gaps: Sequence[tuple[int, int]]) -> dict[int, Sequence[LogRow | Fold]]:
    """Return what stands for the rows of each gap, by the last seq of the gap."""
    short = [gap for gap in gaps if gap[1] - gap[0] < FEW]
    long = [gap for gap in gaps if gap[1] - gap[0] >= FEW]
    shown = store.log.list_rows(connection, chart, [seq for first, last in short for seq in range(first, last + 1)])
    found: dict[int, Sequence[LogRow | Fold]] = {
        last: [item for item in shown if first <= item.seq <= last] for first, last in short
    }
    if sum(last - first + 1 for first, last in long) > MAX_COUNTED:
        return found | {last: [Fold(first, last, [f"{say_number(last - first + 1)} rows"])] for first, last in long}
    counts = store.log.count_kinds(connection, chart, long)
    return found | {last: [Fold(first, last, _say_counts(counts.get(first, {})))] for first, last in long}


def _say_counts(counts: dict[tuple[str, str | None], int]) -> list[str]:
    """How many reports there are, failures among them, and other rows: `312 reports`, `4 failed`, `40 claims`."""
    kinds: dict[str, int] = {}
    for (kind, _), count in counts.items():
        kinds[kind] = kinds.get(kind, 0) + count
    updates = kinds.pop(str(Kind.UPDATE), 0)
    failed = counts.get((str(Kind.UPDATE), FAILED_KEY), 0)
    said = [_say(updates, "report"), f"{say_number(failed)} failed" if failed else ""]
    said += [_say(count, NOUNS.get(kind, kind)) for kind, count in sorted(kinds.items())]
    return [text for text in said if text]


def _say(count: int, noun: str) -> str:
    """A number and a noun, which takes an s for several: in the place of `*`, or at its end."""
    if not count:
        return ""
    one, _, rest = noun.partition("*")
    return f"{say_number(count)} {one}{'' if count == 1 else 's'}{rest}"
