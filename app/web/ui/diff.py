"""Comparing two texts line by line, in a time that is bounded whatever the texts are.

Lines that occur once in each text are matched first, in the longest order that both share (a patience diff). Between
two such lines, a shortest edit is searched for (Myers), within a budget of steps for the whole comparison. What the
budget does not cover counts as removed and added.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Longer texts are not compared: no person reads the result.
MAX_COMPARED_LINES = 20_000
# Unchanged lines shown around each change.
CONTEXT_LINES = 4
# Steps of the search for shortest edits; a million takes about a second.
MAX_STEPS = 200_000

# The lines that stay: their numbers, from 0, in the old and in the new text.
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class DiffLine:
    """A line of a comparison: `kind` is added, removed or same, or skipped for lines that are left out.

    `old` and `new` are the line's numbers in the two texts, from 1.
    """

    kind: str
    old: int | None
    new: int | None
    text: str


def compare(old: str, new: str) -> list[DiffLine] | None:
    """The changed lines with some around them; empty if no line changed, None if a text is too long."""
    before, after = old.splitlines(), new.splitlines()
    if max(len(before), len(after)) > MAX_COMPARED_LINES:
        return None
    return _shorten(list(_list_lines(before, after, _match(before, after))))


def _list_lines(before: Sequence[str], after: Sequence[str], kept: Sequence[Pair]) -> Iterator[DiffLine]:
    left = right = 0
    for left_end, right_end in (*kept, (len(before), len(after))):
        for number in range(left, left_end):
            yield DiffLine("removed", number + 1, None, before[number])
        for number in range(right, right_end):
            yield DiffLine("added", None, number + 1, after[number])
        left, right = left_end + 1, right_end + 1
        if left_end < len(before):
            yield DiffLine("same", left, right, before[left_end])


def _shorten(lines: Sequence[DiffLine]) -> list[DiffLine]:
    """Leave out unchanged lines that are far from every change."""
    near = [False] * len(lines)
    for index, line in enumerate(lines):
        if line.kind != "same":
            first, last = max(index - CONTEXT_LINES, 0), min(index + CONTEXT_LINES + 1, len(lines))
            near[first:last] = [True] * (last - first)
    found: list[DiffLine] = []
    for index, line in enumerate(lines):
        if not near[index]:
            continue
        if found and not near[index - 1]:
            found.append(DiffLine("skipped", None, None, ""))
        found.append(line)
    return found


def _match(before: Sequence[str], after: Sequence[str]) -> list[Pair]:
    """The pairs of lines that stay, in order."""
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    pairs = [(number, number) for number in range(start)]
    left, right, steps = start, start, MAX_STEPS
    for left_end, right_end in (*_find_anchors(before, after, start, end), (len(before) - end, len(after) - end)):
        found, spent = _find_shortest(before[left:left_end], after[right:right_end], steps)
        steps -= spent
        pairs += [(left + one, right + other) for one, other in found]
        if left_end < len(before) - end:
            pairs.append((left_end, right_end))
        left, right = left_end + 1, right_end + 1
    return pairs + [(len(before) - back, len(after) - back) for back in range(end, 0, -1)]


def _find_anchors(before: Sequence[str], after: Sequence[str], start: int, end: int) -> list[Pair]:
    """The lines that occur once in each text between `start` and `end`, as many as keep their order."""
    counts = Counter(before[start : len(before) - end]), Counter(after[start : len(after) - end])
    places = {after[number]: number for number in range(start, len(after) - end)}
    unique = [
        (number, places[before[number]])
        for number in range(start, len(before) - end)
        if counts[0][before[number]] == 1 and counts[1][before[number]] == 1
    ]
    # The longest rising sequence of places in the new text: `tails` has the smallest end of each length so far.
    tails: list[int] = []
    ends: list[int] = []
    previous: list[int] = []
    for index, (_, place) in enumerate(unique):
        length = bisect_left(tails, place)
        if length == len(tails):
            tails.append(place)
            ends.append(index)
        tails[length], ends[length] = place, index
        previous.append(ends[length - 1] if length else -1)
    chain: list[Pair] = []
    index = ends[-1] if ends else -1
    while index >= 0:
        chain.append(unique[index])
        index = previous[index]
    return chain[::-1]


def _find_shortest(before: Sequence[str], after: Sequence[str], budget: int) -> tuple[list[Pair], int]:
    """The lines that a shortest edit keeps, and the steps that it took; no line if `budget` steps do not suffice."""
    reached: dict[int, int] = {1: 0}
    rounds: list[dict[int, int]] = []
    spent = 0
    for edits in range(len(before) + len(after) + 1):
        rounds.append(dict(reached))
        spent += 2 * (edits + 1)
        for diagonal in range(-edits, edits + 1, 2):
            down = diagonal == -edits or (diagonal != edits and reached[diagonal - 1] < reached[diagonal + 1])
            left = reached[diagonal + 1] if down else reached[diagonal - 1] + 1
            right = left - diagonal
            while left < len(before) and right < len(after) and before[left] == after[right]:
                left, right, spent = left + 1, right + 1, spent + 1
            reached[diagonal] = left
            if left >= len(before) and right >= len(after):
                return _walk_back(rounds, len(before), len(after)), spent
        if spent > budget:
            return [], spent
    return [], spent


def _walk_back(rounds: Sequence[dict[int, int]], left: int, right: int) -> list[Pair]:
    kept: list[Pair] = []
    for edits in range(len(rounds) - 1, -1, -1):
        reached, diagonal = rounds[edits], left - right
        down = diagonal == -edits or (diagonal != edits and reached[diagonal - 1] < reached[diagonal + 1])
        origin = diagonal + 1 if down else diagonal - 1
        start = reached[origin]
        # Where the lines that are alike begin, after this round's edit.
        first = (start if down else start + 1) if edits else 0
        while left > first:
            left, right = left - 1, right - 1
            kept.append((left, right))
        left, right = start, start - origin
    return kept[::-1]
