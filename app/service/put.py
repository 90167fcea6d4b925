"""What changes a chart without an operator: a machine reports, claims a slot or gives it back; and time passes.

Everything that machines send at about the same time is judged in one transaction, each request alone: `apply` below
locks the charts, reads what is known of the machines, decides, and records. docs/concurrency.md tells the whole story.

A lease is not mutual exclusion: a machine that sleeps past its lease does not know it. What it changes elsewhere
should carry its fencing number, which rises with every claim of the chart, and be refused if a higher one was seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
from datetime import timedelta
from typing import Any

from app import store
from app.core.arrival import find_labels
from app.core.chart import Chart
from app.core.decision import MOVES_PER_STEP
from app.core.errors import (
    BadRequestError,
    ChartNotFoundError,
    ConflictError,
    DatabaseUnavailableError,
    ForbiddenError,
    StateServiceError,
)
from app.core.log import Author
from app.core.position import (
    COUNTED,
    Claim,
    Happening,
    LoggedUpdate,
    Reason,
    Release,
    Report,
    Step,
    Tick,
    Update,
    Verdict,
    find_asked_for,
    find_counted,
    is_due,
)
from app.core.window import NO_LABELS
from app.db import Connection, asking, retrying, snapshot, transaction
from app.db.sqlite import find_clock
from app.service.context import ClaimAddresses, LockedChart, Service, locked, locked_charts, record_all
from app.service.crowds import UncountedGroupsError
from app.service.hours import WINDOW_REASONS, Closed, describe_closed
from app.service.metrics import lock_is_held


@dataclass(frozen=True, slots=True)
class SlotCount:
    """How many slots the state has, how many are held, and the fencing number of the one asked about, if held.

    `group` is the group that is full, if the claim was refused for it.
    """

    slots: int
    held: int
    fence: int | None
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Yes or no, and everything there is to say about it.

    `run` and `visit` are those in which the question was judged; `seq` is the chart's last log row that the answer
    reflects, for an accepted PUT its own row. `needs_slot` is whether the state has slots, in the answer to a machine
    that asks for its turn. `claimed_from` is the address from which the machine claimed the slot that it asks for
    again, if that is another one than it asks from now.
    """

    chart: str
    run: int
    visit: int
    seq: int
    state: str
    current_state: str
    is_yes: bool
    reason: Reason
    key: str | None = None
    value: int | None = None
    slots: SlotCount | None = None
    needs_slot: bool | None = None
    closed: Closed | None = None
    claimed_from: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The answer as the HTTP interface gives it to a client that accepts JSON."""
        fields = asdict(self)
        is_yes, slots, needs_slot = fields.pop("is_yes"), fields.pop("slots"), fields.pop("needs_slot")
        del fields["closed"]
        if self.closed is not None:
            fields |= self.closed.as_json()
        if self.claimed_from is None:
            del fields["claimed_from"]
        if needs_slot is not None:
            fields["slots"] = needs_slot
        if slots is not None and slots["group"] is None:
            del slots["group"]
        return {**fields, **(slots or {}), "answer": "yes" if is_yes else "no", "replay": self.reason is Reason.REPLAY}


def answer_step(chart: str, seq: int, state: str, step: Step) -> Answer:
    """The answer that a decided PUT comes to, `seq` being the chart's last log row before it."""
    here = step.position
    run, visit, last_seq = here.run, here.visit, seq + len(step.entries)
    if step.reason in COUNTED:
        # What the clock did by itself comes before and after the PUT's own row; a tick has no row of its own.
        own = find_asked_for(step.entries)
        if own is not None:
            run, visit, last_seq = own[1].run, own[1].visit, seq + own[0]
    elif step.repeated is not None:
        run, visit, last_seq = step.repeated.run, step.repeated.visit, step.repeated.seq
    is_yes = step.verdict is Verdict.ACCEPTED
    return Answer(
        chart=chart,
        run=run,
        visit=visit,
        seq=last_seq,
        state=state,
        current_state=here.state,
        is_yes=is_yes,
        reason=step.reason,
        key=step.key,
        value=step.value,
    )


@dataclass(frozen=True, slots=True)
class Put:
    """What a machine says it did, in which run if it says so.

    With `takes_back` it needs no slot if the end of its lease has reported it as failed.
    """

    state: str
    machine: str | None = None
    key: str | None = None
    _: KW_ONLY
    run: int | None = None
    note: str | None = None
    takes_back: bool = False


@dataclass(frozen=True, slots=True)
class ClaimCurrent:
    """A machine wants a slot of whichever state is current, also if it has done its part there before."""

    machine: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent to which chart, and by whom; the author carries the Idempotency-Key."""

    chart: str
    what: Put | Claim | ClaimCurrent | Release | Tick
    author: Author


def find_machine(sent: Sent) -> str | None:
    """Return the machine that a request is about; None if it names none."""
    return None if isinstance(sent.what, Tick) else sent.what.machine


@dataclass(frozen=True, slots=True)
class Applied:
    """The answer to what was sent, and whether waiting may turn a no into a yes."""

    answer: Answer
    may_change: bool = False


class PriorReports:
    """What the log and the reports already say of the PUTs and claims of one transaction on one chart.

    Read once under the chart's lock, and kept up to date with each step decided after that.
    """

    def __init__(self, service: Service, connection: Connection, chart: LockedChart, sent: Sequence[Sent]) -> None:
        row = chart.row
        self._renamed = chart.position.renamed
        self._visits = {row.state: row.visit}
        self._reports: dict[tuple[int, str], Report] = {}
        self._keys: dict[str, LoggedUpdate] = {}
        self._failed_by_lease: set[str] = set()
        # Idempotency-Keys to remember that no log row has.
        self.replayed: list[store.log.UsedKey] = []
        self._read_reports(connection, row, [item.what for item in sent if isinstance(item.what, Put | Claim)])
        keys = {item.author.idempotency_key for item in sent if isinstance(item.what, Put)}
        self._read_keys(service, connection, row, {key for key in keys if key is not None})

    def complete(self, put: Put, idempotency_key: str | None) -> Update:
        """Return the PUT together with what is known of it now."""
        visit = self._visits.get(self._name_now(put.state))
        report = None if visit is None or put.machine is None else self._reports.get((visit, put.machine))
        repeats = None if idempotency_key is None else self._keys.get(idempotency_key)
        return Update(
            state=put.state,
            machine=put.machine,
            key=put.key,
            run=put.run,
            note=put.note,
            report=report,
            was_entered=visit is not None,
            repeats=repeats,
            takes_back=put.takes_back,
            failed_by_lease=put.machine in self._failed_by_lease,
        )

    def _name_now(self, state: str) -> str:
        """Return the name by which the visits of a state are known, which an upgrade may have renamed."""
        return self._renamed.get(state, state)

    def complete_claim(self, claim: Claim, visit: int) -> Claim:
        """Return the claim together with the machine's report in `visit`, the current one."""
        return replace(claim, report=self._reports.get((visit, claim.machine)))

    def follow(self, chart: Chart, seq: int, idempotency_key: str | None, step: Step) -> None:
        """Take in what `step` decided, for the PUTs that are judged after it.

        `seq` is that of the chart's last log row before the step; `idempotency_key` is that of the PUT, if `step`
        answers one.
        """
        self._visits.update((visit.state, visit.visit) for visit in step.visits)
        self._reports.update(((report.visit, report.machine), report) for report in step.reports)
        if idempotency_key is not None:
            counted = find_counted(chart, seq, step)
            if counted is not None:
                self._keys[idempotency_key] = counted

    def remember(self, chart: Chart, version: int, sent: Sent, step: Step) -> None:
        """Keep the Idempotency-Key of a PUT that was answered as its machine's replay, unless it was used before."""
        put, idempotency_key = sent.what, sent.author.idempotency_key
        if not isinstance(put, Put) or idempotency_key is None or idempotency_key in self._keys:
            return
        if step.reason is Reason.REPLAY:
            # The report may have lost the attribute that the PUT names to an upgrade.
            key = step.key if put.key is None else put.key
            self._keys[idempotency_key] = LoggedUpdate.of(chart, put.state, put.machine, key)
            self.replayed.append(store.log.UsedKey(idempotency_key, version, put.state, put.machine, key))

    def _read_reports(self, connection: Connection, row: store.charts.ChartRow, asked: Sequence[Put | Claim]) -> None:
        named = [item for item in asked if item.machine is not None]
        if not named:
            return
        # A claim is about the current visit alone.
        others = {self._name_now(item.state) for item in named if isinstance(item, Put)} - {row.state}
        if others:
            self._visits.update(store.machines.list_latest_visits(connection, row, others))
        machines = {item.machine for item in named if item.machine is not None}
        for report in store.machines.find_reports(connection, row, set(self._visits.values()), machines):
            self._reports[report.visit, report.machine] = report
        puts = [item for item in named if isinstance(item, Put)]
        returning = {put.machine for put in puts if put.takes_back and put.state == row.state}
        self._failed_by_lease = {
            machine
            for machine in returning
            if machine is not None and store.machines.was_failed_by_lease(connection, row, machine)
        }

    def _read_keys(
        self, service: Service, connection: Connection, row: store.charts.ChartRow, keys: Collection[str]
    ) -> None:
        if not keys:
            return
        for used, counted in store.log.list_used_keys(connection, row, keys):
            # What a PUT without `key` meant is what the version of that time made of it.
            chart = service.definitions.get_version(connection, row, used.version)
            first = LoggedUpdate.of(chart, used.state, used.machine, used.key, counted)
            self._keys[used.idempotency_key] = first


# Adds requests to a batch; to a batch that waits for the rows of its charts, only requests on these charts.
Join = Callable[[], None]

# Reasons of a no that waiting may change.
_MAY_CHANGE = frozenset(
    {Reason.FULL, Reason.GROUP_FULL, Reason.NOT_CURRENT, Reason.PAUSED, Reason.WINDOW, Reason.WINDOW_SHORT}
)
# Why the report of a machine that held a slot a moment ago is refused.
_SLOT_IS_GONE = frozenset({Reason.NO_SLOT, Reason.NOT_CURRENT, Reason.LATE, Reason.UNKNOWN_STATE, Reason.FINAL})


@retrying
def apply(
    service: Service, batch: Sequence[Sent], *, skip_locked: bool = False, join: Join = lambda: None
) -> list[Applied | StateServiceError]:
    """Judge each request of `batch` and write what was decided, in one transaction; answer each in its place.

    With `skip_locked` the requests on charts that another transaction has locked are answered ChartLockedError,
    and were not judged. `join` is called when the wait for other transactions is over: what it adds to `batch` is
    judged and answered, too. If the clock has more to do than one transaction may, the requests that need it follow in
    further transactions. Raises DatabaseUnavailableError for all of them.
    """
    try:
        return _apply(service, batch, skip_locked=skip_locked, join=join)
    except UncountedGroupsError as uncounted:
        # Nothing was written, and nothing is locked any more. Each roster's version needs this once in each process.
        with snapshot(service.database) as connection:
            uncounted.count(service.definitions.rosters, connection)
        return apply(service, batch, skip_locked=skip_locked, join=join)


def _apply(
    service: Service, batch: Sequence[Sent], *, skip_locked: bool, join: Join
) -> list[Applied | StateServiceError]:
    asked_at = time.perf_counter()
    missing = ChartLockedError if skip_locked else ChartNotFoundError
    found: dict[int, Applied | StateServiceError] = {}
    later: list[int] = []
    with transaction(service.database) as connection:
        rows = _lock(connection, batch, skip_locked=skip_locked, join=join)
        if not rows:
            return [missing(sent.chart) for sent in batch]
        lock_is_held(asked_at)
        by_chart: dict[str, list[int]] = {}
        for place, sent in enumerate(batch):
            by_chart.setdefault(sent.chart, []).append(place)
        charts = locked_charts(service, connection, rows)
        for chart in charts:
            named = {place: name_approver(chart, batch[place]) for place in by_chart[chart.row.name]}
            found |= {place: sent for place, sent in named.items() if isinstance(sent, StateServiceError)}
            judged = {place: sent for place, sent in named.items() if isinstance(sent, Sent)}
            if chart.chart.looks_up:
                chart.expect_from({name for sent in judged.values() if (name := find_machine(sent)) is not None})
            prior = PriorReports(service, connection, chart, list(judged.values()))
            addresses = ClaimAddresses(connection, chart)
            for place, sent in judged.items():
                if (later and batch[later[-1]].chart == sent.chart) or chart.must_wait():
                    later.append(place)
                else:
                    found[place] = _judge(chart, prior, addresses, sent)
            if prior.replayed:
                store.log.remember_keys(connection, chart.row.id, chart.seq, prior.replayed)
        record_all(service, connection, charts)
    for chart in charts:
        for step in chart.steps:
            service.tell(chart.row.name, step)
    found |= _apply_later(service, batch, later, skip_locked=skip_locked)
    return [found[place] if place in found else missing(sent.chart) for place, sent in enumerate(batch)]


def _lock(
    connection: Connection, batch: Sequence[Sent], *, skip_locked: bool, join: Join
) -> list[store.charts.ChartRow]:
    """Lock the charts of the batch. What was sent during the wait for other transactions joins it."""
    waits_for_rows = not (connection.is_sqlite or skip_locked)
    if not waits_for_rows:
        # SQLite waits in BEGIN, and a transaction that skips locked rows never waits.
        join()
    lock = store.charts.lock_free_charts if skip_locked else store.charts.lock_charts
    rows = lock(connection, {sent.chart for sent in batch})
    if waits_for_rows:
        join()
    return rows


def _apply_later(
    service: Service, batch: Sequence[Sent], places: Sequence[int], *, skip_locked: bool
) -> dict[int, Applied | StateServiceError]:
    """Apply what the transaction before this one had no clock transitions left for."""
    if not places:
        return {}
    try:
        answers: Sequence[Applied | StateServiceError] = apply(
            service, [batch[place] for place in places], skip_locked=skip_locked
        )
    except DatabaseUnavailableError as error:
        # The requests before are committed: the error is that of these alone.
        answers = [error] * len(places)
    return dict(zip(places, answers, strict=True))


class ChartLockedError(StateServiceError):
    """Another transaction holds the chart's row, and this one must not wait for it."""


def apply_one(service: Service, chart: str, what: Put | Claim | ClaimCurrent | Release, author: Author) -> Answer:
    """Apply one request in a transaction of its own, on the caller's thread.

    Raises ChartNotFoundError, BadRequestError, KeyReusedError, ConflictError, DatabaseUnavailableError.
    """
    (found,) = apply(service, [Sent(chart, what, author)])
    if isinstance(found, StateServiceError):
        raise found
    return found.answer


def name_approver(chart: LockedChart, sent: Sent) -> Sent | StateServiceError:
    """Return what was sent; if it is a report on a state of approvers, with the sender's name as the machine.

    The answer is an error if the sender may not report on the state.
    """
    put, author = sent.what, sent.author
    if not isinstance(put, Put):
        return sent
    state = chart.chart.states.get(chart.position.renamed.get(put.state, put.state))
    if state is None or state.approvers is None:
        if author.may_report:
            return sent
        return ForbiddenError(f"token {author.actor!r} is an approver's: it reports only on states of approvers")
    if not author.may_approve:
        return ForbiddenError(f"token {author.actor!r} is not an approver's: only approvers report on {put.state!r}")
    name = put.machine if author.actor is None else author.actor
    if name is None:
        return BadRequestError(f"machine is missing: the name of the person who reports on {put.state!r}")
    if put.machine not in (None, name):
        return ForbiddenError(f"token {author.actor!r} cannot report as {put.machine!r}")
    return replace(sent, what=replace(put, machine=name))


def _judge(
    chart: LockedChart, prior: PriorReports, addresses: ClaimAddresses, sent: Sent
) -> Applied | StateServiceError:
    """Decide one request on a locked chart; an error is this request's alone."""
    state, happening = _happening(chart, prior, sent)
    seq, key = chart.seq, sent.author.idempotency_key
    try:
        step = chart.decide(happening, sent.author)
    except DatabaseUnavailableError:
        raise
    except StateServiceError as error:
        return error
    prior.follow(chart.chart, seq, key if isinstance(sent.what, Put) else None, step)
    prior.remember(chart.chart, step.position.version, sent, step)
    answer = answer_step(sent.chart, seq, state, step)
    if isinstance(sent.what, Put | Tick):
        return Applied(answer)
    may_change = (
        step.reason in _MAY_CHANGE
        and state in chart.chart.states
        and chart.chart.states[state].slots is not None
        and chart.chart.can_reach(step.position.state, state)
    )
    slots = _count_slots(chart.chart, step, sent.what.machine)
    if isinstance(happening, Claim):
        answer = replace(answer, claimed_from=addresses.find_other(happening, step, sent.author.remote_addr))
    return Applied(replace(answer, slots=slots, closed=_find_closed(chart, state, step, sent.what.machine)), may_change)


def _find_closed(chart: LockedChart, state: str, step: Step, machine: str) -> Closed | None:
    schedule, labels = chart.chart.find_schedule(state), NO_LABELS
    if step.reason in WINDOW_REASONS and schedule is not None and schedule.needs_labels:
        labels = find_labels(chart.chart, step.position, chart.known, [machine])[machine]
    return describe_closed(chart.chart, state, step.position.hours, chart.now, reason=step.reason, labels=labels)


def _happening(chart: LockedChart, prior: PriorReports, sent: Sent) -> tuple[str, Happening]:
    """Return the state that the request is about, and what it asks of the core."""
    match sent.what:
        case Put() as put:
            return put.state, prior.complete(put, sent.author.idempotency_key)
        case ClaimCurrent(machine):
            # Which state is current is asked after the clock has done what is due.
            chart.decide(Tick())
            return chart.position.state, Claim(chart.position.state, machine, again=True)
        case Claim() as claim:
            return claim.state, prior.complete_claim(claim, chart.position.visit)
        case Release() as what:
            return what.state, what
        case Tick():
            return chart.position.state, sent.what


def _count_slots(chart: Chart, step: Step, machine: str) -> SlotCount:
    position = step.position
    rule = chart.state_at(position).slots
    held = position.slots.get(machine)
    limit = 0 if rule is None else rule.limit(position.succeeded)
    return SlotCount(limit, len(position.slots), None if held is None else held.fence, step.group)


def report_if_held(service: Service, name: str, machine: str, author: Author) -> Answer | None:
    """Report `machine` as done in the current state if it holds a slot there, or if the end of its lease failed it.

    Returns None in every other case. Raises ChartNotFoundError, DatabaseUnavailableError.
    """
    with snapshot(service.database, is_long=False) as connection:
        row = store.charts.get_chart(connection, name)
        held = store.machines.read_held_slots(connection, row)
        may_report = machine in held or store.machines.was_failed_by_lease(connection, row, machine)
    if not may_report:
        return None
    answer = apply_one(service, name, Put(row.state, machine, takes_back=True), author)
    # Between the look and the report the machine may have lost its slot, by the clock or with the visit.
    return None if answer.reason in _SLOT_IS_GONE else answer


@retrying
def tick(service: Service, name: str) -> store.charts.ChartRow:
    """Take the clock transitions of a chart that are due; return its row as it is then."""
    with locked(service, name) as chart:
        chart.decide(Tick())
    return chart.row


def find_next_due(service: Service) -> timedelta | None:
    """Return in how long the clock next has something to do, zero if it has now; None if it has nothing to do."""
    with asking(service.database) as connection:
        due_at = store.charts.find_next_due(connection)
        now = service.read_now(connection)
    return None if due_at is None else max(due_at - now, timedelta(0))


# At most so many charts are prepared for their deadlines.
PREPARED = 5000
# A deadline that is further away than this does not keep the service from going by the machine's clock again.
NEAR = timedelta(days=1)


def settle_clock(service: Service, due_in: timedelta | None) -> None:
    """Go by the machine's clock again after it was set back (SQLite only), unless a deadline is near.

    `due_in` is what `find_next_due` has returned.
    """
    if service.database.is_sqlite and (due_in is None or due_in > NEAR):
        find_clock(service.database.engine).settle()


def prepare(service: Service, ahead: timedelta) -> None:
    """Read the definitions of the charts that are due within `ahead`, so that moving them need not wait for that."""
    with asking(service.database) as connection:
        rows = store.charts.list_charts_due(connection, service.read_now(connection) + ahead, PREPARED)
    for first in range(0, len(rows), MOVES_PER_STEP):
        with asking(service.database) as connection:
            service.definitions.get_all(connection, rows[first : first + MOVES_PER_STEP])


def sweep(service: Service) -> int:
    """Move on every chart whose clock has something to do; return how many there were.

    Each transaction takes many charts. A chart that cannot be moved keeps no other from its turn: its error is raised
    after the last. A cycle of clock guards goes on in the next call.
    """
    if find_next_due(service) != timedelta(0):
        return 0
    failures: list[ConflictError] = []
    swept: dict[int, bool] = {}
    while (found := _sweep_some(service, failures, [chart for chart, still_due in swept.items() if still_due])) != {}:
        swept |= found
    if failures:
        raise failures[0]
    return len(swept)


@retrying
def _sweep_some(service: Service, failures: list[ConflictError], leave: Sequence[int]) -> dict[int, bool]:
    """Run the clock of charts that are due, except those with an id in `leave`, in one transaction.

    Returns for each chart that had its turn whether it is still due.
    """
    with transaction(service.database) as connection:
        now = service.read_now(connection)
        rows = store.charts.lock_due_charts(connection, now, leave, MOVES_PER_STEP)
        charts = locked_charts(service, connection, rows)
        had_turn = [chart for chart in charts if _run_clock(chart, failures)]
        if had_turn:
            record_all(service, connection, had_turn)
    for chart in had_turn:
        for step in chart.steps:
            service.tell(chart.row.name, step)
    return {chart.row.id: is_due(chart.chart, chart.position, chart.now) for chart in had_turn}


def _run_clock(chart: LockedChart, failures: list[ConflictError]) -> bool:
    """Run the chart's clock, or note why it cannot be moved; return whether the chart had its turn."""
    try:
        return chart.run_clock()
    except ConflictError as error:
        failures.append(error)
        return True
