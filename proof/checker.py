"""Holds what clients saw against the log: pure, no clock, no I/O.

The log's `seq` is a total order of a chart's writes, so that no search is needed: each answer either fits the order
or does not. Version N of a chart is what it was after the row with `seq` N.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from app.core.log import LogRow, chain_hash
from app.core.position import Kind
from proof.history import Attempt

# An attempt's identity in the log: state, machine, attribute, Idempotency-Key.
Identity = tuple[str, str | None, str | None, str | None]
ALLOWED = frozenset({200, 406, 503, None})
# The rows that enter a state.
ENTERING = frozenset({Kind.IMPORT, Kind.TRANSITION, Kind.TIMEOUT, Kind.RESET, Kind.GOTO})


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the log, and its hash."""

    logged: LogRow
    hash: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What the checker must know of a chart: its states' default attributes, and the age at which the clock may act."""

    default_keys: Mapping[str, str]
    ages: Mapping[str, timedelta] = field(default_factory=dict)


def check(rows: Sequence[Row], attempts: Sequence[Attempt], terms: Terms) -> list[str]:
    """Return every way in which the attempts on one chart and its log contradict each other."""
    damage = list(_check_log(rows, terms))
    if damage:
        # What follows would only say the same in many ways.
        return damage + list(_check_statuses(attempts))
    return _History(rows, attempts, terms).problems()


def _check_log(rows: Sequence[Row], terms: Terms) -> Iterator[str]:
    if not rows:
        yield "the log is empty"
    previous = ""
    entered = None
    for number, row in enumerate(rows, 1):
        logged = row.logged
        if logged.seq != number:
            yield f"seq {logged.seq} stands where {number} should"
            return
        if chain_hash(previous, logged) != row.hash:
            yield f"seq {number}: the hash does not fit the row and its chain"
            return
        previous = row.hash
        age = terms.ages.get(logged.from_state)
        if logged.kind == Kind.TIMEOUT and age is not None and entered is not None and logged.at - entered < age:
            yield f"seq {number}: the clock moved the chart after {logged.at - entered}, {age} was the rule"
        if logged.kind in ENTERING:
            entered = logged.at
    yield from _check_visits(rows)


def _check_visits(rows: Sequence[Row]) -> Iterator[str]:
    """A machine counts once per visit: another row of it must be on another attribute."""
    latest: dict[tuple[int, int, str], str | None] = {}
    for row in rows:
        logged = row.logged
        if not _is_put(logged) or logged.machine is None:
            continue
        place = (logged.run, logged.visit, logged.machine)
        if place in latest and latest[place] == logged.key:
            yield f"seq {logged.seq}: machine {logged.machine!r} counted twice on {logged.key!r} in a visit"
        latest[place] = logged.key


def _check_statuses(attempts: Sequence[Attempt]) -> Iterator[str]:
    found = Counter((attempt.method, attempt.status) for attempt in attempts if attempt.status not in ALLOWED)
    for (method, status), count in sorted(found.items(), key=str):
        yield f"{count} x {method} answered {status}"


def _is_put(logged: LogRow) -> bool:
    return logged.kind in (Kind.UPDATE, Kind.TRANSITION, Kind.LATE) and logged.key is not None


class _History:
    """A sound log, the attempts on it, and who wrote which row."""

    def __init__(self, rows: Sequence[Row], attempts: Sequence[Attempt], terms: Terms) -> None:
        self._rows = rows
        self._attempts = sorted(attempts, key=lambda attempt: attempt.returned)
        self._terms = terms
        self._found: list[str] = []
        # After version N at [N]; before the import there was nothing.
        self._states = [None, *_list_states(rows)]
        # When the row's PUT was sent, at [seq]: no answer before then can reflect it.
        self._called = [0] * (len(rows) + 1)
        self._begun = self._called
        # The version that brought the state of version N, at [N].
        self._entered = [0, *_list_entries(rows)]
        self._by_identity: dict[Identity, list[Attempt]] = defaultdict(list)
        self._logged: dict[Identity, list[int]] = defaultdict(list)

    def problems(self) -> list[str]:
        self._found.extend(_check_statuses(self._attempts))
        self._group()
        self._match_writes()
        self._check_order()
        return self._found

    def _say(self, text: str) -> None:
        self._found.append(text)

    # Who wrote what

    def _group(self) -> None:
        for attempt in self._attempts:
            if attempt.method == "PUT":
                self._by_identity[self._identity(attempt)].append(attempt)
        for row in self._rows:
            if _is_put(row.logged):
                logged = row.logged
                identity = (logged.from_state, logged.machine, logged.key, logged.idempotency_key)
                self._logged[identity].append(logged.seq)

    def _identity(self, attempt: Attempt) -> Identity:
        key = attempt.key or self._terms.default_keys.get(attempt.state)
        return attempt.state, attempt.machine, key, attempt.idempotency_key

    def _match_writes(self) -> None:
        for identity in self._logged.keys() - self._by_identity.keys():
            self._say(f"seq {self._logged[identity]}: {identity} was applied, and nobody sent it")
        for identity, attempts in self._by_identity.items():
            self._match(identity, attempts, self._logged.get(identity, []))

    def _match(self, identity: Identity, attempts: Sequence[Attempt], seqs: Sequence[int]) -> None:
        """Give each row its one attempt, and each yes its row."""
        if identity[3] is not None and len(seqs) > 1:
            self._say(f"seq {seqs}: {identity} was applied more than once")
        claims = Counter(item.seq for item in attempts if item.is_yes and not item.replay and item.seq is not None)
        for seq, count in claims.items():
            if seq not in seqs:
                self._say(f"{identity} was answered 200 with seq {seq}, which is not its row")
            if count > 1:
                self._say(f"{identity} was answered seq {seq} {count} times")
        for attempt in attempts:
            if attempt.is_yes and not attempt.replay and attempt.seq is not None and attempt.seq in seqs:
                self._called[attempt.seq] = attempt.called
        self._explain_others(identity, attempts, [seq for seq in seqs if seq not in claims])
        if not seqs and any(item.is_yes for item in attempts if item.replay or item.seq is None):
            self._say(f"{identity} was answered 200 and is not in the log")

    def _explain_others(self, identity: Identity, attempts: Sequence[Attempt], seqs: Sequence[int]) -> None:
        # A yes without a seq is a row or a replay; a row that nobody was told of is one of the unknown attempts.
        possible = [item for item in attempts if item.may_be_applied or (item.is_yes and item.seq is None)]
        if len(seqs) > len(possible):
            told = sorted({str(item.status) for item in attempts})
            self._say(f"seq {seqs}: {identity} was applied, but its {len(attempts)} attempts were answered {told}")
        if possible:
            first = min(item.called for item in possible)
            for seq in seqs:
                self._called[seq] = first

    # The order of time

    def _check_order(self) -> None:
        """Each answer lies between what was known before its call and what was begun before its return."""
        begun = self._begun = _running_maximum(self._called)
        returned: list[int] = []
        known: list[int] = []
        for attempt in self._attempts:
            before = bisect.bisect_left(returned, attempt.called)
            low = known[before - 1] if before else 1
            high = bisect.bisect_right(begun, attempt.returned) - 1
            seen = self._look(attempt, low, high)
            if seen is not None:
                returned.append(attempt.returned)
                known.append(max(seen, known[-1] if known else 1))

    def _look(self, attempt: Attempt, low: int, high: int) -> int | None:
        """The earliest version that the answer can reflect; None where it tells nothing."""
        if attempt.status not in (200, 406):
            return None
        if attempt.seq is not None:
            return self._look_exactly(attempt, attempt.seq, low, high)
        if attempt.method == "PUT" and attempt.is_yes:
            return None
        return self._look_around(attempt, low, high)

    def _look_exactly(self, attempt: Attempt, seq: int, low: int, high: int) -> int | None:
        is_write = attempt.method == "PUT" and attempt.is_yes and not attempt.replay
        if seq < low + is_write or seq > min(high, len(self._rows)):
            self._say(f"{_describe(attempt)} reflects seq {seq}, but {low} was known before and {high} begun")
            return None
        if attempt.method == "GET" and not self._is_explained(attempt, seq):
            self._say(f"{_describe(attempt)} reflects seq {seq}, where the state was {self._states[seq]!r}")
        if attempt.method == "PUT" and attempt.is_no and self._states[seq] == attempt.state:
            self._say(f"{_describe(attempt)} reflects seq {seq}, where that was the state")
        if attempt.replay and not self._was_applied(attempt, seq):
            self._say(f"{_describe(attempt)} replays what was not applied up to seq {seq}")
        return seq

    def _is_explained(self, attempt: Attempt, seq: int) -> bool:
        """True if the answer to a GET is that of version `seq`, or of what its clock had made of it by then.

        While another request holds the chart, a GET is answered as if the clock had done what is due, with the `seq`
        that the chart then has. The row of the clock follows, perhaps after rows that were judged before the deadline.
        """
        if (self._states[seq] == attempt.state) == attempt.is_yes:
            return True
        age = self._terms.ages.get(self._states[seq] or "")
        if age is None or attempt.returned - self._begun[self._entered[seq]] < age / timedelta(microseconds=1) * 1000:
            return False
        due = self._rows[self._entered[seq] - 1].logged.at + age
        later = (row.logged for row in self._rows[seq:])
        strike = next((row for row in later if row.at >= due or row.from_state != row.to_state), None)
        if strike is None:
            return True
        return strike.kind == Kind.TIMEOUT and (strike.to_state == attempt.state) == attempt.is_yes

    def _was_applied(self, attempt: Attempt, seq: int) -> bool:
        state, machine, key, idempotency_key = self._identity(attempt)
        seqs = self._logged.get((state, machine, key, idempotency_key), [])
        return bool(seqs) and seqs[0] <= seq

    def _look_around(self, attempt: Attempt, low: int, high: int) -> int | None:
        for version in range(low, min(high, len(self._rows)) + 1):
            is_same = (self._states[version] == attempt.state) == attempt.is_yes
            if is_same or (attempt.method == "GET" and self._is_explained(attempt, version)):
                return version
        self._say(f"{_describe(attempt)} is explained by no version from {low} to {high}")
        return None


def _list_states(rows: Sequence[Row]) -> Iterator[str | None]:
    """The state that answers yes after each row; None while the chart is paused."""
    is_paused, state = False, None
    for row in rows:
        kind = row.logged.kind
        # A late report is about a state that the chart has left.
        state = state if kind == Kind.LATE else row.logged.to_state
        is_paused = kind == Kind.PAUSE or (is_paused and kind not in (Kind.RESUME, Kind.RESET, Kind.IMPORT))
        yield None if is_paused else state


def _list_entries(rows: Sequence[Row]) -> Iterator[int]:
    entered = 1
    for row in rows:
        if row.logged.kind in ENTERING:
            entered = row.logged.seq
        yield entered


def _running_maximum(values: Sequence[int]) -> list[int]:
    found, highest = [], 0
    for value in values:
        highest = max(highest, value)
        found.append(highest)
    return found


def _describe(attempt: Attempt) -> str:
    identity = [part for part in (attempt.machine, attempt.key, attempt.idempotency_key) if part is not None]
    return f"{attempt.method} {attempt.state} {' '.join(identity)} answered {attempt.status}"
