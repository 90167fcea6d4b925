"""Holds what clients saw against the log: pure, no clock, no I/O.

The log's `seq` is a total order of a chart's writes, so that no search is needed: each answer either fits the order
or does not. Version N of a chart is what it was after the row with `seq` N.
"""

from __future__ import annotations

import bisect
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from app.core.log import LogRow, chain_hash
from app.core.position import Kind
from proof.history import Attempt
from proof.model import ENTERING, Definition, View, replay

# An attempt's identity in the log: what it asks for, state, machine, attribute, Idempotency-Key or an act's reason.
Identity = tuple[str, str, str | None, str | None, str | None]
# What an answer may be. An operator hears 409 if there is nothing to pause or to resume.
ALLOWED = frozenset({200, 406, 503, None})
ACTS = frozenset({"PAUSE", "RESUME", "RESET", "GOTO", "UPGRADE"})
# A waiting client usually hears of a move within so many seconds, and what a question usually takes.
WAKE_SECONDS = 0.2
# The time after which a client looks that nobody has woken is shorter than this.
LONG_VISIT = timedelta(seconds=0.9)
# Fewer wakes say nothing of what is usual.
LEAST_WAKES = 5


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the log, and its hash."""

    logged: LogRow
    hash: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What the checker must know of a chart: its states' default attributes, and its chart files by their SHA-256.

    If there are no `definitions`, rows are not judged by values and guards, and `ages` says when the clock may act.
    Once the service's clock has `leapt`, at that monotonic instant, the time that passes says nothing of deadlines.
    """

    default_keys: Mapping[str, str]
    ages: Mapping[str, timedelta] = field(default_factory=dict)
    definitions: Mapping[str, Definition] = field(default_factory=dict)
    leapt: int | None = None


def check(rows: Sequence[Row], attempts: Sequence[Attempt], terms: Terms) -> list[str]:
    """Return every way in which the attempts on one chart and its log contradict each other."""
    damage = list(_check_log(rows, terms))
    views = list(_list_plain_views(rows, terms))
    if not damage and terms.definitions:
        damage, views = replay([row.logged for row in rows], terms.definitions)
    if damage:
        # What follows would only say the same in many ways.
        return damage + list(_check_statuses(attempts))
    return _History(rows, attempts, terms, views).problems()


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
    found = Counter(
        (attempt.method, attempt.status)
        for attempt in attempts
        if attempt.status not in ALLOWED and not (attempt.method in ACTS and attempt.status == 409)
    )
    for (method, status), count in sorted(found.items(), key=str):
        yield f"{count} x {method} answered {status}"


def _is_put(logged: LogRow) -> bool:
    return logged.kind in (Kind.UPDATE, Kind.TRANSITION, Kind.LATE) and logged.key is not None


def _identify(logged: LogRow) -> Identity | None:
    """What a row's attempt must have asked for; None if nobody asks for such a row."""
    if _is_put(logged):
        return "PUT", logged.from_state, logged.machine, logged.key, logged.idempotency_key
    match logged.kind:
        case Kind.CLAIM | Kind.RELEASE:
            return logged.kind.upper(), logged.from_state, logged.machine, None, None
        case Kind.PAUSE | Kind.RESUME | Kind.RESET:
            return logged.kind.upper(), "", None, None, logged.reason
        case Kind.GOTO:
            return "GOTO", logged.to_state, None, None, logged.reason
        case Kind.UPGRADE:
            return "UPGRADE", "", None, logged.note, None
    return None


class _History:
    """A sound log, the attempts on it, and who wrote which row."""

    def __init__(self, rows: Sequence[Row], attempts: Sequence[Attempt], terms: Terms, views: Sequence[View]) -> None:
        self._rows = rows
        own = _list_acts(rows)
        self._attempts = sorted((_place_act(item, own) for item in attempts), key=lambda attempt: attempt.returned)
        self._terms = terms
        self._found: list[str] = []
        # After version N at [N]; before the import there was nothing.
        self._views = [View("", True, 0), *views]
        # When the row's PUT was sent, at [seq]: no answer before then can reflect it.
        self._called = [0] * (len(rows) + 1)
        self._begun = self._called
        self._by_identity: dict[Identity, list[Attempt]] = defaultdict(list)
        self._logged: dict[Identity, list[int]] = defaultdict(list)
        # The rows in which the end of a lease counted a machine as failed.
        self._expired: dict[Identity, list[int]] = defaultdict(list)

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
            if attempt.is_write:
                self._by_identity[self._identity(attempt)].append(attempt)
        for row in self._rows:
            identity = _identify(row.logged)
            # A chart without definitions has the reports of machines alone.
            if identity is not None and (self._terms.definitions or identity[0] == "PUT"):
                self._logged[identity].append(row.logged.seq)
            if row.logged.kind == Kind.EXPIRE and row.logged.key is not None:
                self._expired["PUT", row.logged.from_state, row.logged.machine, row.logged.key, None].append(
                    row.logged.seq
                )

    def _identity(self, attempt: Attempt) -> Identity:
        key = attempt.key
        if attempt.method == "PUT" and key is None:
            key = self._terms.default_keys.get(attempt.state)
        return attempt.method, attempt.state, attempt.machine, key, attempt.idempotency_key

    def _match_writes(self) -> None:
        for identity in self._logged.keys() - self._by_identity.keys():
            if self._list_repeats(identity):
                continue
            self._say(f"seq {self._logged[identity]}: {identity} was applied, and nobody sent it")
        for identity, attempts in self._by_identity.items():
            self._match(identity, attempts, self._logged.get(identity, []))

    def _match(self, identity: Identity, attempts: Sequence[Attempt], seqs: Sequence[int]) -> None:
        """Give each row its one attempt, and each yes its row."""
        if identity[4] is not None and len(seqs) > 1:
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
                self._compare_value(attempt, attempt.seq)
        self._explain_others(identity, attempts, [seq for seq in seqs if seq not in claims])
        # A slot is given back with a yes also if none was held.
        is_told = any(item.is_yes for item in attempts if item.replay or item.seq is None)
        if not seqs and is_told and identity[0] == "PUT" and identity not in self._expired:
            self._say(f"{identity} was answered 200 and is not in the log")

    def _compare_value(self, attempt: Attempt, seq: int) -> None:
        logged = self._rows[seq - 1].logged
        written = logged.version if attempt.method == "UPGRADE" else logged.value_after
        # A late report changes no value, and an act has none.
        if attempt.value is not None and written is not None and attempt.value != written:
            self._say(f"{_describe(attempt)} with {attempt.value}, and its row, seq {seq}, says {written}")

    def _list_repeats(self, identity: Identity) -> list[Attempt]:
        """The reports that may have given a slot back: those of its holder that were counted before."""
        if identity[0] != "RELEASE":
            return []
        return [
            item
            for other, attempts in self._by_identity.items()
            if other[0] == "PUT" and other[1:3] == identity[1:3]
            for item in attempts
            if item.replay or item.may_be_applied or (item.is_yes and item.seq is None)
        ]

    def _explain_others(self, identity: Identity, attempts: Sequence[Attempt], seqs: Sequence[int]) -> None:
        # A yes without a seq is a row or a replay; a row that nobody was told of is one of the unknown attempts.
        possible = [item for item in attempts if item.may_be_applied or (item.is_yes and item.seq is None)]
        possible += self._list_repeats(identity) if len(seqs) > len(possible) else []
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
            own = self._find_repeated_row(attempt)
            if own is not None:
                self._check_repeated(attempt, attempt.seq, own, high)
                return None
            return self._look_exactly(attempt, attempt.seq, low, high)
        if attempt.is_write and attempt.is_yes:
            return None
        return self._look_around(attempt, low, high)

    def _look_exactly(self, attempt: Attempt, seq: int, low: int, high: int) -> int | None:
        is_write = attempt.is_write and attempt.is_yes and not attempt.replay
        if seq < low + is_write or seq > min(high, len(self._rows)):
            self._say(f"{_describe(attempt)} reflects seq {seq}, but {low} was known before and {high} begun")
            return None
        view = self._views[seq]
        if attempt.method == "GET" and not self._is_explained(attempt, seq):
            self._say(f"{_describe(attempt)} reflects seq {seq}, where the state was {view.answering!r}")
        if attempt.is_no and attempt.method != "GET" and not _is_refused(attempt, view):
            self._say(f"{_describe(attempt)} reflects seq {seq}, where that was the state{_say_slots(view)}")
        if attempt.method == "PUT" and attempt.replay and not self._was_applied(attempt, seq):
            self._say(f"{_describe(attempt)} replays what was not applied up to seq {seq}")
        return seq

    def _find_repeated_row(self, attempt: Attempt) -> int | None:
        """The row whose answer the attempt was given again, because it has the row's Idempotency-Key."""
        if attempt.method != "PUT" or not attempt.replay or attempt.idempotency_key is None:
            return None
        return next(iter(self._logged.get(self._identity(attempt), [])), None)

    def _check_repeated(self, attempt: Attempt, seq: int, own: int, high: int) -> None:
        """Such an answer is about the row that counted, and says nothing of where the chart stands now."""
        if seq != own:
            self._say(f"{_describe(attempt)} replays seq {seq}, but seq {own} has its Idempotency-Key")
        elif own > high:
            self._say(f"{_describe(attempt)} replays what was not applied up to seq {high}")
        else:
            self._compare_value(attempt, own)

    def _is_explained(self, attempt: Attempt, seq: int) -> bool:
        """True if the answer to a GET is that of version `seq`, or of what its clock had made of it by then.

        While another request holds the chart, a GET is answered as if the clock had done what is due, with the `seq`
        that the chart then has. The row of the clock follows, perhaps after rows that were judged before the deadline.
        A reset, and what was judged before the deadline and moves or pauses the chart, come in the place of that row.
        """
        view = self._views[seq]
        if (view.answering == attempt.state) == attempt.is_yes:
            return True
        if view.due_at is None or not self._may_be_due(attempt, view):
            return False
        later = (row.logged for row in self._rows[seq:])
        strike = next((row for row in later if row.at >= view.due_at or row.kind in ENTERING | {Kind.PAUSE}), None)
        if strike is not None and strike.kind == Kind.TIMEOUT:
            return (strike.to_state == attempt.state) == attempt.is_yes
        if strike is None and view.due_state is None:
            return True
        is_foreseen = view.due_state is not None and (view.due_state == attempt.state) == attempt.is_yes
        return is_foreseen and (strike is None or strike.kind == Kind.RESET or strike.at < view.due_at)

    def _may_be_due(self, attempt: Attempt, view: View) -> bool:
        """True if the answer may have come after the deadline, by the time that has passed."""
        if self._terms.leapt is not None and attempt.returned >= self._terms.leapt:
            return True
        return attempt.returned - self._begun[view.entered] >= view.age / timedelta(microseconds=1) * 1000

    def _was_applied(self, attempt: Attempt, seq: int) -> bool:
        identity = self._identity(attempt)
        # A machine that reports its failure after its lease ran out repeats what the end of the lease has counted.
        seqs = [*self._logged.get(identity, []), *self._expired.get(identity, [])]
        return bool(seqs) and min(seqs) <= seq

    def _look_around(self, attempt: Attempt, low: int, high: int) -> int | None:
        for version in range(low, min(high, len(self._rows)) + 1):
            if attempt.method == "GET" and self._is_explained(attempt, version):
                return version
            if attempt.method != "GET" and _is_refused(attempt, self._views[version]):
                return version
        self._say(f"{_describe(attempt)} is explained by no version from {low} to {high}")
        return None


def _is_refused(attempt: Attempt, view: View) -> bool:
    """True if a report or a claim is to be refused where the chart stands."""
    is_elsewhere = view.state != attempt.state
    if attempt.method == "CLAIM":
        is_full = view.slots is None or len(view.holders) >= view.slots
        return is_elsewhere or view.is_paused or is_full or attempt.reason == "done"
    return is_elsewhere or (view.slots is not None and attempt.machine not in view.holders)


def _say_slots(view: View) -> str:
    return "" if view.slots is None else f", and {len(view.holders)} of {view.slots} slots were held"


def _list_acts(rows: Sequence[Row]) -> dict[tuple[str, str | int | None], int]:
    """The row of each act of an operator: by its reason, or an upgrade by its version."""
    found: dict[tuple[str, str | int | None], int] = {}
    for row in rows:
        identity = _identify(row.logged)
        if identity is not None and identity[0] in ACTS:
            name = row.logged.version if identity[0] == "UPGRADE" else row.logged.reason
            found.setdefault((identity[0], name), row.logged.seq)
    return found


def _place_act(attempt: Attempt, own: Mapping[tuple[str, str | int | None], int]) -> Attempt:
    """An act that was answered yes, with its row in place of the last row that it caused."""
    if attempt.method not in ACTS or not attempt.is_yes or attempt.replay:
        return attempt
    name = attempt.value if attempt.method == "UPGRADE" else attempt.idempotency_key
    return replace(attempt, seq=own.get((attempt.method, name), 0))


def _list_plain_views(rows: Sequence[Row], terms: Terms) -> Iterator[View]:
    """What a chart is after each row, as far as the rows themselves say it."""
    is_paused, state, entered, entered_at = False, "", 1, None
    for row in rows:
        logged, kind = row.logged, row.logged.kind
        # A late report is about a state that the chart has left.
        state = state if kind == Kind.LATE else logged.to_state
        is_paused = kind == Kind.PAUSE or (is_paused and kind not in (Kind.RESUME, Kind.IMPORT))
        if kind in ENTERING:
            entered, entered_at = logged.seq, logged.at
        age = terms.ages.get(state)
        due_at = None if age is None or is_paused or entered_at is None else entered_at + age
        yield View(state, is_paused, entered, due_at, age or timedelta(0))


# How soon waiting clients hear of a move


def list_wakes(rows: Sequence[Row], attempts: Sequence[Attempt]) -> list[float]:
    """How many seconds after the answer to the report that moved the chart each waiting client had its own.

    Visits that were soon over do not count: a client that heard late of those heard nothing.
    """
    entered, entry = [0] * (len(rows) + 1), 0
    for number, row in enumerate(rows, 1):
        if row.logged.kind in ENTERING:
            if entry and row.logged.at - rows[entry - 1].logged.at < LONG_VISIT:
                entered[entry:number] = [0] * (number - entry)
            entry = number
        entered[number] = entry
    movers = {item.seq: item for item in attempts if item.method == "PUT" and item.is_yes and not item.replay}
    found = []
    for item in attempts:
        if not item.wait or not item.is_yes or item.seq is None or not 0 < item.seq <= len(rows):
            continue
        mover = movers.get(entered[item.seq])
        # Who came only after the move was not woken by it.
        if mover is not None and item.called < mover.called:
            found.append(max(item.returned - mover.returned, 0) / 1e9)
    return found


def check_wakes(wakes: Sequence[float], attempts: Sequence[Attempt]) -> list[str]:
    """Return what is wrong with how soon waiting clients hear of a move, where nothing was broken meanwhile."""
    answers = [(item.returned - item.called) / 1e9 for item in attempts if item.method == "GET" and not item.wait]
    if len(wakes) < LEAST_WAKES or not answers:
        return []
    usual, answer = statistics.median(wakes), statistics.median(answers)
    if usual <= WAKE_SECONDS + answer:
        return []
    return [f"waiting clients usually hear of a move {usual:.2f} s late, of {len(wakes)} that were woken"]


def _running_maximum(values: Sequence[int]) -> list[int]:
    found, highest = [], 0
    for value in values:
        highest = max(highest, value)
        found.append(highest)
    return found


def _describe(attempt: Attempt) -> str:
    identity = [part for part in (attempt.machine, attempt.key, attempt.idempotency_key) if part is not None]
    return f"{attempt.method} {attempt.state} {' '.join(identity)} answered {attempt.status}"
