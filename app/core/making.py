"""A step in the making: what every happening needs, and all that the clock does."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from app.core import funcs
from app.core.chart import Chart, CountGuard, OnExpire, State
from app.core.guards import holds, next_due
from app.core.position import Entry, Kind, Position, Reason, Report, Slot, Step, Verdict, Visit

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
