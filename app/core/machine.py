"""The chart machine: what happens to a chart, decided from its definition, its position and the time alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from app.core import chart as chart_module
from app.core.chart import Chart, CountGuard, Func, OnExpire, State
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
    holds,
    next_due,
)

# At most so many clock transitions in one transaction; a cycle of clock guards goes on in the next one.
MOVES_PER_STEP = 100


class Making:
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
            values[moved_from] = chart_module.undo(func, moved_from, values[moved_from])
        before = values[key]
        values[key] = chart_module.apply(func, key, before)
        self.position = replace(self.position, values=values)
        if machine is not None:
            self.reports.append(Report(self.position.visit, machine, key))
            self.give_back(machine)
            if not has_report:
                self.position = replace(self.position, reported=self.position.reported + 1)
        return before, values[key]

    def give_back(self, machine: str) -> None:
        self.position = self.position.without_slot(machine)

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


def claim(making: Making, claim: Claim) -> Step:
    making.run_clock()
    refusal = find_claim_refusal(making, claim)
    if refusal is not None:
        return making.refuse(refusal)
    rule = making.state.slots
    if rule is None:
        raise BadRequestError(f"state {claim.state!r} has no slots")
    held = making.position.slots.get(claim.machine)
    if held is None and len(making.position.slots) >= rule.limit(making.position.reported):
        return making.refuse(Reason.FULL)
    if held is not None and rule.lease is None and held.expires_at is None:
        return making.done(Verdict.ACCEPTED, Reason.REPLAY)
    fence = held.fence if held is not None else making.position.fence + 1
    expires = None if rule.lease is None else making.now + rule.lease
    claimed = held.claimed_at if held is not None else making.now
    slot = Slot(claim.machine, fence, claimed, making.now, expires)
    making.log(
        Kind.CLAIM,
        machine=claim.machine,
        value_before=None if held is None else fence,
        value_after=fence,
    )
    making.position = making.position.with_slot(slot)
    return making.done(Verdict.ACCEPTED, Reason.UPDATED if held is None else Reason.REPLAY)


def find_claim_refusal(making: Making, claim: Claim) -> Reason | None:
    if claim.state not in making.chart.states:
        return Reason.UNKNOWN_STATE
    if making.position.is_paused:
        return Reason.PAUSED
    if claim.state != making.position.state:
        return Reason.NOT_CURRENT
    if not making.chart.is_on_roster(claim.machine):
        return Reason.NOT_ON_ROSTER
    return None


def release(making: Making, release: Release) -> Step:
    making.run_clock()
    if release.state != making.position.state or release.machine not in making.position.slots:
        return making.done(Verdict.ACCEPTED, Reason.REPLAY)
    free(making, release.machine)
    return making.done(Verdict.ACCEPTED, Reason.UPDATED)


def free(making: Making, machine: str) -> None:
    making.log(Kind.RELEASE, machine=machine, value_before=making.position.slots[machine].fence)
    making.give_back(machine)


def evict(making: Making, evict: Evict) -> None:
    making.run_clock()
    held = making.position.slots.get(evict.machine)
    if held is None:
        raise ConflictError(f"machine {evict.machine!r} holds no slot")
    making.log(Kind.EVICT, machine=evict.machine, value_before=held.fence, reason=evict.reason)
    making.give_back(evict.machine)


def update(making: Making, update: Update) -> Step:
    making.run_clock()
    if update.repeats is not None:
        return repeat(making, update, update.repeats)
    if making.chart.require_machine and update.machine is None:
        raise BadRequestError(f"chart {making.chart.name!r} wants a machine id with every PUT: machine is missing")
    if update.state not in making.chart.states:
        return making.refuse(Reason.UNKNOWN_STATE)
    key = wanted_key(making, update)
    report = standing_report(making, update)
    if report is not None and report.key == key:
        return replay(making, update.state, report.machine, key)
    refusal = find_refusal(making, update)
    if refusal is not None:
        return making.refuse(refusal)
    return count(making, update.machine, str(key), report)


def repeat(making: Making, update: Update, logged: LoggedUpdate) -> Step:
    key = update.key if update.key is not None else logged.default_key
    if (update.state, update.machine, key) != (logged.state, logged.machine, logged.key):
        raise KeyReusedError(
            "this Idempotency-Key was used before with"
            f" state {logged.state!r}, machine {logged.machine!r}, key {logged.key!r}"
        )
    return replay(making, logged.state, logged.machine, logged.key)


def replay(making: Making, state: str, machine: str | None, key: str | None) -> Step:
    making.key, making.value = key, value_now(making, state, key)
    if machine is not None and state == making.position.state and machine in making.position.slots:
        # It claimed again after its report: what it came for this time is to give the slot back.
        free(making, machine)
    return making.done(Verdict.ACCEPTED, Reason.REPLAY)


def wanted_key(making: Making, update: Update) -> str | None:
    state = making.state_named(update.state)
    if update.key is None:
        return state.default_key
    if state.func not in (None, Func.TIME) and not state.has_attribute(update.key):
        raise BadRequestError(f"state {update.state!r} has no attribute {update.key!r}")
    return update.key


def standing_report(making: Making, update: Update) -> Report | None:
    """The machine's report in the latest visit of the state it names, as it is after the clock has run."""
    if any(visit.state == update.state for visit in making.visits):
        return None
    # A lease that the clock has just ended may have reported for the machine.
    made = [report for report in making.reports if report.machine == update.machine]
    return made[-1] if made and update.state == making.state_at_start else update.report


def value_now(making: Making, state: str, key: str | None) -> int | None:
    return making.position.values.get(key or "") if state == making.position.state else None


def find_refusal(making: Making, update: Update) -> Reason | None:
    if making.position.is_paused:
        return Reason.PAUSED
    if update.state != making.position.state:
        was_entered = update.was_entered or any(visit.state == update.state for visit in making.visits)
        return Reason.LATE if was_entered and update.machine is not None else Reason.NOT_CURRENT
    if making.state.func is None:
        return Reason.FINAL
    if making.state.func is Func.TIME:
        return Reason.TIME_DRIVEN
    if update.machine is not None and not making.chart.is_on_roster(update.machine):
        return Reason.NOT_ON_ROSTER
    if making.state.slots is not None and update.machine not in making.position.slots:
        return Reason.NO_SLOT
    return None


def count(making: Making, machine: str | None, key: str, report: Report | None) -> Step:
    """Apply the func, give the slot back, and take the first transition that now holds: one log row."""
    moved_from = report.key if report is not None else None
    before, after = making.apply_func(machine, key, report is not None, moved_from)
    making.key, making.value = key, after
    target = making.find_target()
    making.log(
        Kind.UPDATE if target is None else Kind.TRANSITION,
        to_state=target,
        key=key,
        value_before=before,
        value_after=after,
        machine=machine,
        reason=None if moved_from is None else f"moved from {moved_from}",
    )
    if target is None:
        return making.done(Verdict.ACCEPTED, Reason.UPDATED)
    making.enter(target)
    making.run_clock()
    return making.done(Verdict.ACCEPTED, Reason.TRANSITIONED)


def pause(making: Making, reason: str) -> None:
    if making.position.is_paused:
        raise ConflictError(f"chart {making.chart.name!r} is paused already")
    making.run_clock()
    making.log(Kind.PAUSE, reason=reason)
    making.position = replace(making.position, paused_at=making.now)


def resume(making: Making, reason: str) -> None:
    if not making.position.is_paused:
        raise ConflictError(f"chart {making.chart.name!r} is not paused")
    making.log(Kind.RESUME, reason=reason)
    making.position = making.position.resumed(making.now)
    making.take_first_that_holds()
    making.run_clock()


def reset(making: Making, reason: str) -> None:
    here = making.position
    making.position = replace(here, run=here.run + 1, visit=0)
    making.entries.append(
        Entry(Kind.RESET, here.version, here.run + 1, 1, here.state, making.chart.initial, reason=reason)
    )
    making.enter(making.chart.initial)
    making.run_clock()


def goto(making: Making, state: str, reason: str) -> None:
    if state not in making.chart.states:
        raise BadRequestError(f"chart {making.chart.name!r} has no state {state!r}")
    making.run_clock()
    making.log(Kind.GOTO, to_state=state, reason=reason)
    making.enter(state)
    making.run_clock()


def archive(making: Making, reason: str) -> None:
    making.log(Kind.ARCHIVE, reason=reason)


def upgrade(making: Making, upgrade: Upgrade) -> None:
    making.run_clock()
    old = making.position
    home = find_home(old.state, upgrade)
    if home is None:
        raise ConflictError(
            f"state {old.state!r} is current and version {upgrade.version} has no such state: name its new home"
        )
    making.chart = upgrade.chart
    making.position = replace(old, version=upgrade.version)
    making.log(Kind.UPGRADE, to_state=home, reason=f"version {old.version} to {upgrade.version}")
    making.position = old.upgraded(upgrade.version, making.state_named(home))
    if not making.position.is_paused:
        making.take_first_that_holds()
        making.run_clock()


def find_home(state: str, upgrade: Upgrade) -> str | None:
    """Return the state of the new version where `state` lives on; None where it is neither kept nor mapped."""
    if state in upgrade.chart.states:
        return state
    return upgrade.homes.get(state)


def step(chart: Chart, position: Position, happening: Happening, now: datetime) -> Step:
    """Decide what `happening` does to `chart` at `position` when the time is `now`.

    Raises BadRequestError, KeyReusedError or ConflictError; then nothing may be written.
    """
    making = Making(chart, position, now)
    match happening:
        case Update():
            return update(making, happening)
        case Claim():
            return claim(making, happening)
        case Release():
            return release(making, happening)
        case Tick():
            making.run_clock()
        case Pause():
            pause(making, happening.reason)
        case Resume():
            resume(making, happening.reason)
        case Reset():
            reset(making, happening.reason)
        case Goto():
            goto(making, happening.state, happening.reason)
        case Archive():
            archive(making, happening.reason)
        case Upgrade():
            upgrade(making, happening)
        case Evict():
            evict(making, happening)
    return making.done(Verdict.ACCEPTED, Reason.UPDATED)


def start(chart: Chart, version: int, run: int, now: datetime, fence: int = 0) -> Step:
    """Decide the first step of a chart's run `run`: in its initial state, its clock guards judged."""
    position = _at_start(chart, version, run, now, fence)
    making = Making(chart, position, now)
    making.log(Kind.IMPORT)
    making.visits.append(Visit(run, 1, chart.initial))
    making.run_clock()
    return making.done(Verdict.ACCEPTED, Reason.UPDATED)


def _at_start(chart: Chart, version: int, run: int, now: datetime, fence: int) -> Position:
    values = chart.states[chart.initial].initial_values()
    return Position(version, run, 1, chart.initial, values, now, fence=fence)
