"""The chart machine: what happens to a chart, decided from its definition, its position and the time alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from app.core import funcs
from app.core.chart import Chart, ClockGuard, CountGuard, ElapsedGuard, Func, Guard, OnExpire, State
from app.core.errors import BadRequestError, ConflictError, KeyReusedError
from app.core.position import (
    Archive,
    Claim,
    Entry,
    Evict,
    Goto,
    Happening,
    Kind,
    LoggedUpdate,
    Pause,
    Position,
    Reason,
    Release,
    Report,
    Reset,
    Resume,
    Slot,
    Step,
    Tick,
    Update,
    Upgrade,
    Verdict,
    Visit,
)

# At most so many clock transitions in one transaction; a cycle of clock guards goes on in the next one.
MOVES_PER_STEP = 100


def step(chart: Chart, position: Position, happening: Happening, now: datetime) -> Step:
    """Decide what `happening` does to `chart` at `position` when the time is `now`.

    Raises BadRequestError, KeyReusedError or ConflictError; then nothing may be written.
    """
    making = _Making(chart, position, now)
    match happening:
        case Update():
            return making.update(happening)
        case Claim():
            return making.claim(happening)
        case Release():
            return making.release(happening)
        case Tick():
            making.run_clock()
        case Pause():
            making.pause(happening.reason)
        case Resume():
            making.resume(happening.reason)
        case Reset():
            making.reset(happening.reason)
        case Goto():
            making.goto(happening.state, happening.reason)
        case Archive():
            making.archive(happening.reason)
        case Upgrade():
            making.upgrade(happening)
        case Evict():
            making.evict(happening)
    return making.done(Verdict.ACCEPTED, Reason.UPDATED)


def start(chart: Chart, version: int, run: int, now: datetime, fence: int = 0) -> Step:
    """Decide the first step of a chart's run `run`: in its initial state, its clock guards judged."""
    position = _at_start(chart, version, run, now, fence)
    making = _Making(chart, position, now)
    making.log(Kind.IMPORT)
    making.visits.append(Visit(run, 1, chart.initial))
    making.run_clock()
    return making.done(Verdict.ACCEPTED, Reason.UPDATED)


def holds(guard: Guard, position: Position, now: datetime) -> bool:
    """True where `guard` holds at `position`; a paused clock never does."""
    match guard:
        case CountGuard():
            return funcs.compare(guard.op, position.values[guard.key], guard.threshold)
        case ClockGuard() | ElapsedGuard():
            return not position.is_paused and due_at(guard, position) <= now


def due_at(guard: ClockGuard | ElapsedGuard, position: Position) -> datetime:
    """Return the instant at which `guard` comes due, should the chart not be paused again."""
    if isinstance(guard, ClockGuard):
        return guard.instant
    return position.entered_at + guard.age + position.paused_for


def next_due(chart: Chart, position: Position) -> datetime | None:
    """Return when the clock next has something to do; None while paused or where it has nothing."""
    if position.is_paused:
        return None
    transitions = chart.states[position.state].transitions
    guards = [due_at(item.guard, position) for item in transitions if not isinstance(item.guard, CountGuard)]
    leases = [slot.expires_at for slot in position.slots.values() if slot.expires_at and not slot.expired_at]
    return min([*guards, *leases], default=None)


def _at_start(chart: Chart, version: int, run: int, now: datetime, fence: int) -> Position:
    values = chart.states[chart.initial].initial_values()
    return Position(version, run, 1, chart.initial, values, now, fence=fence)


class _Making:
    """A step in the making: the position so far and what is to be written."""

    def __init__(self, chart: Chart, position: Position, now: datetime) -> None:
        self.chart = chart
        self.position = position
        self.now = now
        self.state_at_start = position.state
        self.clock_moves = 0
        self.entries: list[Entry] = []
        self.visits: list[Visit] = []
        self.reports: list[Report] = []
        self.key: str | None = None
        self.value: int | None = None

    @property
    def state(self) -> State:
        return self.chart.states[self.position.state]

    def done(self, verdict: Verdict, reason: Reason) -> Step:
        return Step(
            verdict,
            reason,
            self.position,
            self.key,
            self.value,
            tuple(self.entries),
            tuple(self.visits),
            tuple(self.reports),
            next_due(self.chart, self.position),
        )

    def refuse(self, reason: Reason) -> Step:
        return self.done(Verdict.REFUSED, reason)

    def log(
        self,
        kind: Kind,
        *,
        to_state: str | None = None,
        key: str | None = None,
        value_before: int | None = None,
        value_after: int | None = None,
        machine: str | None = None,
        reason: str | None = None,
    ) -> None:
        here = self.position
        target = here.state if to_state is None else to_state
        self.entries.append(
            Entry(
                kind,
                here.version,
                here.run,
                here.visit,
                here.state,
                target,
                key,
                value_before,
                value_after,
                machine,
                reason,
            )
        )

    # Moving

    def enter(self, name: str) -> None:
        """Begin a visit of the state `name`: values as defined, no reports, no slots."""
        self.position = self.position.entered(self.state_named(name), self.now)
        self.visits.append(Visit(self.position.run, self.position.visit, name))

    def state_named(self, name: str) -> State:
        return self.chart.states[name]

    def run_clock(self) -> None:
        """Take every clock transition and end every lease that is due, one after another."""
        while not self.position.is_paused and self.clock_moves < MOVES_PER_STEP:
            if not self.take_due_transition() and not self.expire_one_lease():
                return

    def take_due_transition(self) -> bool:
        for transition in self.state.transitions:
            guard = transition.guard
            if not isinstance(guard, CountGuard) and holds(guard, self.position, self.now):
                self.log(
                    Kind.TIMEOUT,
                    to_state=transition.target,
                    key=guard.key,
                    reason=f"{guard.key} {guard.written}",
                )
                self.enter(transition.target)
                self.clock_moves += 1
                return True
        return False

    def take_first_that_holds(self, kind: Kind = Kind.TRANSITION) -> bool:
        """Take the first transition whose guard holds, counts included, where no PUT was its cause.

        `kind` is what the log calls it where the guard counts.
        """
        for transition in self.state.transitions:
            guard = transition.guard
            if not holds(guard, self.position, self.now):
                continue
            if isinstance(guard, CountGuard):
                text = f"{guard.key} {guard.op} {guard.written}"
                self.log(kind, to_state=transition.target, reason=text)
                self.enter(transition.target)
                return True
            return self.take_due_transition()
        return False

    # A machine's report

    def update(self, update: Update) -> Step:
        self.run_clock()
        if update.repeats is not None:
            return self.repeat(update, update.repeats)
        if self.chart.require_machine and update.machine is None:
            raise BadRequestError(f"chart {self.chart.name!r} wants a machine id with every PUT: machine is missing")
        if update.state not in self.chart.states:
            return self.refuse(Reason.UNKNOWN_STATE)
        key = self.wanted_key(update)
        report = self.standing_report(update)
        if report is not None and report.key == key:
            return self.replay(update.state, report.machine, key)
        refusal = self.find_refusal(update)
        if refusal is not None:
            return self.refuse(refusal)
        return self.count(update.machine, str(key), report)

    def repeat(self, update: Update, logged: LoggedUpdate) -> Step:
        key = update.key if update.key is not None else logged.default_key
        if (update.state, update.machine, key) != (logged.state, logged.machine, logged.key):
            raise KeyReusedError(
                "this Idempotency-Key was used before with"
                f" state {logged.state!r}, machine {logged.machine!r}, key {logged.key!r}"
            )
        return self.replay(logged.state, logged.machine, logged.key)

    def replay(self, state: str, machine: str | None, key: str | None) -> Step:
        self.key, self.value = key, self.value_now(state, key)
        if machine is not None and state == self.position.state and machine in self.position.slots:
            # It claimed again after its report: what it came for this time is to give the slot back.
            self.free(machine)
        return self.done(Verdict.ACCEPTED, Reason.REPLAY)

    def wanted_key(self, update: Update) -> str | None:
        state = self.state_named(update.state)
        if update.key is None:
            return state.default_key
        if state.func not in (None, Func.TIME) and not state.has_attribute(update.key):
            raise BadRequestError(f"state {update.state!r} has no attribute {update.key!r}")
        return update.key

    def standing_report(self, update: Update) -> Report | None:
        """The machine's report in the latest visit of the state it names, as it is after the clock has run."""
        if any(visit.state == update.state for visit in self.visits):
            return None
        # A lease that the clock has just ended may have reported for the machine.
        made = [report for report in self.reports if report.machine == update.machine]
        return made[-1] if made and update.state == self.state_at_start else update.report

    def value_now(self, state: str, key: str | None) -> int | None:
        return self.position.values.get(key or "") if state == self.position.state else None

    def find_refusal(self, update: Update) -> Reason | None:
        if self.position.is_paused:
            return Reason.PAUSED
        if update.state != self.position.state:
            was_entered = update.was_entered or any(visit.state == update.state for visit in self.visits)
            return Reason.LATE if was_entered and update.machine is not None else Reason.NOT_CURRENT
        if self.state.func is None:
            return Reason.FINAL
        if self.state.func is Func.TIME:
            return Reason.TIME_DRIVEN
        if update.machine is not None and not self.chart.is_on_roster(update.machine):
            return Reason.NOT_ON_ROSTER
        if self.state.slots is not None and update.machine not in self.position.slots:
            return Reason.NO_SLOT
        return None

    def count(self, machine: str | None, key: str, report: Report | None) -> Step:
        """Apply the func, give the slot back, and take the first transition that now holds: one log row."""
        moved_from = report.key if report is not None else None
        before, after = self.apply_func(machine, key, report is not None, moved_from)
        self.key, self.value = key, after
        target = self.find_target()
        self.log(
            Kind.UPDATE if target is None else Kind.TRANSITION,
            to_state=target,
            key=key,
            value_before=before,
            value_after=after,
            machine=machine,
            reason=None if moved_from is None else f"moved from {moved_from}",
        )
        if target is None:
            return self.done(Verdict.ACCEPTED, Reason.UPDATED)
        self.enter(target)
        self.run_clock()
        return self.done(Verdict.ACCEPTED, Reason.TRANSITIONED)

    def find_target(self) -> str | None:
        for transition in self.state.transitions:
            if holds(transition.guard, self.position, self.now):
                return transition.target
        return None

    def apply_func(self, machine: str | None, key: str, has_report: bool, moved_from: str | None) -> tuple[int, int]:
        func = self.state.func
        assert func is not None  # a final state counts nothing
        values = dict(self.position.values)
        if moved_from is not None and moved_from in values:
            values[moved_from] = funcs.undo(func, moved_from, values[moved_from])
        before = values[key]
        values[key] = funcs.apply(func, key, before)
        self.position = replace(self.position, values=values)
        if machine is not None:
            self.reports.append(Report(self.position.visit, machine, key))
            self.give_back(machine)
            if not has_report:
                self.position = replace(self.position, reported=self.position.reported + 1)
        return before, values[key]

    def give_back(self, machine: str) -> None:
        self.position = self.position.without_slot(machine)

    # Slots

    def claim(self, claim: Claim) -> Step:
        self.run_clock()
        refusal = self.find_claim_refusal(claim)
        if refusal is not None:
            return self.refuse(refusal)
        rule = self.state.slots
        if rule is None:
            raise BadRequestError(f"state {claim.state!r} has no slots")
        held = self.position.slots.get(claim.machine)
        if held is None and len(self.position.slots) >= rule.limit(self.position.reported):
            return self.refuse(Reason.FULL)
        if held is not None and rule.lease is None and held.expires_at is None:
            return self.done(Verdict.ACCEPTED, Reason.REPLAY)
        fence = held.fence if held is not None else self.position.fence + 1
        expires = None if rule.lease is None else self.now + rule.lease
        claimed = held.claimed_at if held is not None else self.now
        slot = Slot(claim.machine, fence, claimed, self.now, expires)
        self.log(
            Kind.CLAIM,
            machine=claim.machine,
            value_before=None if held is None else fence,
            value_after=fence,
        )
        self.position = self.position.with_slot(slot)
        return self.done(Verdict.ACCEPTED, Reason.UPDATED if held is None else Reason.REPLAY)

    def find_claim_refusal(self, claim: Claim) -> Reason | None:
        if claim.state not in self.chart.states:
            return Reason.UNKNOWN_STATE
        if self.position.is_paused:
            return Reason.PAUSED
        if claim.state != self.position.state:
            return Reason.NOT_CURRENT
        if not self.chart.is_on_roster(claim.machine):
            return Reason.NOT_ON_ROSTER
        return None

    def release(self, release: Release) -> Step:
        self.run_clock()
        if release.state != self.position.state or release.machine not in self.position.slots:
            return self.done(Verdict.ACCEPTED, Reason.REPLAY)
        self.free(release.machine)
        return self.done(Verdict.ACCEPTED, Reason.UPDATED)

    def free(self, machine: str) -> None:
        self.log(Kind.RELEASE, machine=machine, value_before=self.position.slots[machine].fence)
        self.give_back(machine)

    def evict(self, evict: Evict) -> None:
        self.run_clock()
        held = self.position.slots.get(evict.machine)
        if held is None:
            raise ConflictError(f"machine {evict.machine!r} holds no slot")
        self.log(Kind.EVICT, machine=evict.machine, value_before=held.fence, reason=evict.reason)
        self.give_back(evict.machine)

    def expire_one_lease(self) -> bool:
        """End the lease that ran out first, as the state's `on_expire` says; False where none is due."""
        due = [slot for slot in self.position.slots.values() if slot.is_over(self.now)]
        rule = self.state.slots
        if not due or rule is None:
            return False
        slot = min(due, key=lambda item: (item.expires_at, item.fence))
        if rule.on_expire is OnExpire.FAIL:
            self.fail_holder(slot)
            return True
        self.log(Kind.EXPIRE, machine=slot.machine, value_before=slot.fence, reason=str(rule.on_expire))
        if rule.on_expire is OnExpire.FREE:
            self.give_back(slot.machine)
        else:
            self.position = self.position.with_slot(replace(slot, expired_at=self.now))
        return True

    def fail_holder(self, slot: Slot) -> None:
        """Count the holder as failed, once, and take the transition that this makes hold."""
        key = "failed"
        has_report = slot.machine in self.position.holder_reports
        moved_from = self.position.holder_reports.get(slot.machine)
        if has_report and moved_from == key:
            before = after = self.position.values[key]
            self.give_back(slot.machine)
        else:
            before, after = self.apply_func(slot.machine, key, has_report, moved_from)
        self.log(
            Kind.EXPIRE,
            key=key,
            value_before=before,
            value_after=after,
            machine=slot.machine,
            reason=str(OnExpire.FAIL),
        )
        self.take_first_that_holds(Kind.TIMEOUT)

    # An operator's acts

    def pause(self, reason: str) -> None:
        if self.position.is_paused:
            raise ConflictError(f"chart {self.chart.name!r} is paused already")
        self.run_clock()
        self.log(Kind.PAUSE, reason=reason)
        self.position = replace(self.position, paused_at=self.now)

    def resume(self, reason: str) -> None:
        if not self.position.is_paused:
            raise ConflictError(f"chart {self.chart.name!r} is not paused")
        self.log(Kind.RESUME, reason=reason)
        self.position = self.position.resumed(self.now)
        self.take_first_that_holds()
        self.run_clock()

    def reset(self, reason: str) -> None:
        here = self.position
        self.position = replace(here, run=here.run + 1, visit=0)
        self.entries.append(
            Entry(Kind.RESET, here.version, here.run + 1, 1, here.state, self.chart.initial, reason=reason)
        )
        self.enter(self.chart.initial)
        self.run_clock()

    def goto(self, state: str, reason: str) -> None:
        if state not in self.chart.states:
            raise BadRequestError(f"chart {self.chart.name!r} has no state {state!r}")
        self.run_clock()
        self.log(Kind.GOTO, to_state=state, reason=reason)
        self.enter(state)
        self.run_clock()

    def archive(self, reason: str) -> None:
        self.log(Kind.ARCHIVE, reason=reason)

    def upgrade(self, upgrade: Upgrade) -> None:
        self.run_clock()
        old = self.position
        home = find_home(old.state, upgrade)
        if home is None:
            raise ConflictError(
                f"state {old.state!r} is current and version {upgrade.version} has no such state: name its new home"
            )
        self.chart = upgrade.chart
        self.position = replace(old, version=upgrade.version)
        self.log(Kind.UPGRADE, to_state=home, reason=f"version {old.version} to {upgrade.version}")
        self.position = old.upgraded(upgrade.version, self.state_named(home))
        if not self.position.is_paused:
            self.take_first_that_holds()
            self.run_clock()


def find_home(state: str, upgrade: Upgrade) -> str | None:
    """Return the state of the new version where `state` lives on; None where it is neither kept nor mapped."""
    if state in upgrade.chart.states:
        return state
    return upgrade.homes.get(state)
