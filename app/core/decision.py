"""A step being decided: the position so far, what the log will say, and what the clock does by itself.

`app.core.machine` decides what a happening does and calls `Decision` for each change that follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from app.core.arrival import (
    Recalled,
    begin,
    find_entry_move,
    measure,
    regroup,
    write_counted_on_entry,
    write_taken_over,
)
from app.core.chart import FAILED_KEY, Chart, OnExpire, State
from app.core.expect import NOTHING, FromRoster, Known
from app.core.position import (
    COUNTING_KINDS,
    Entry,
    Kind,
    Position,
    Reason,
    Report,
    Slot,
    Step,
    Verdict,
    Visit,
    next_due,
)
from app.core.window import Hours

# The most clock transitions in one transaction, whatever it carries; a cycle of clock guards continues in the next one.
MOVES_PER_STEP = 100


class Decision:
    """A step being decided: the position so far, and what there will be to write.

    `key` and `value` are the attribute that the answer is about, `group` the one that is full. `counted_on_entry` is
    None, or how many machines were counted on entering the state, if its guards are to be judged for that reason.
    `moves` is how many clock transitions it may take.
    """

    def __init__(
        self, chart: Chart, position: Position, now: datetime, known: Known = NOTHING, *, moves: int = MOVES_PER_STEP
    ) -> None:
        self.moves = moves
        self.chart = chart
        self.position = position
        self.now = now
        self._known = known
        self._start = position
        self.counted_on_entry: int | None = None
        self.state_at_start = position.state
        self.clock_moves = 0
        # The states that were left on entry in this step.
        self._left_on_entry: set[str] = set()
        self.entries: list[Entry] = []
        self.visits: list[Visit] = []
        self.withdrawn: list[Report] = []
        self.reports: list[Report] = []
        self.key: str | None = None
        self.value: int | None = None
        self.group: str | None = None

    @property
    def state(self) -> State:
        """The current state's definition."""
        here = self.position
        # Most states need no sizes, and a report asks for its state several times.
        return self.chart.states[here.state] if here.expected is None else self.chart.state_at(here)

    @property
    def known(self) -> Known:
        """What is known of machines, with the reports of this step so far."""
        if not self.reports and not self.withdrawn:
            return self._known
        states = {self._start.visit: self._start.state, **{visit.visit: visit.state for visit in self.visits}}
        return Recalled(self._known, self._start.run, states, self.reports, self.withdrawn)

    def reports_in_visit(self, before: Mapping[str, str | None]) -> dict[str, str | None]:
        """Return the standing reports in this visit: those of `before` this step, and those of this step."""
        made = {report.machine: report.key for report in self.reports if report.visit == self.position.visit}
        return {**before, **made}

    def takes_part(self, machine: str) -> bool:
        """Return whether `machine` is in the current state's set; True for every machine if no set names them."""
        expect = self.chart.expect_of(self.position.state)
        if expect is None or not expect.names_machines:
            return True
        return machine in expect.keep([machine], self.position, self.known)

    def has_entered(self, name: str) -> bool:
        """Return whether a visit of the state `name` has begun in this step."""
        return any(visit.state == name for visit in self.visits)

    def find_report(self, state: str, machine: str | None, known: Report | None) -> Report | None:
        """Return the machine's report in the latest visit of `state`, after the clock has run.

        `known` is the one that was written before this step.
        """
        if self.has_entered(state):
            return None
        # A lease that the clock has just ended may have reported the machine as failed.
        made = [report for report in self.reports if report.machine == machine]
        return made[-1] if made and state == self.state_at_start else known

    def is_other_run(self, run: int | None) -> bool:
        """Return whether the client means a `run` that is not the current one."""
        return run is not None and run != self.position.run

    def accept(self, reason: Reason) -> Step:
        """Finish with a yes."""
        return self._finish(Verdict.ACCEPTED, reason)

    def refuse(self, reason: Reason) -> Step:
        """Finish with a no; what the clock did before is still written."""
        return self._finish(Verdict.REFUSED, reason)

    def _finish(self, verdict: Verdict, reason: Reason) -> Step:
        return Step(
            verdict=verdict,
            reason=reason,
            position=self.position,
            key=self.key,
            value=self.value,
            entries=tuple(self.entries),
            visits=tuple(self.visits),
            withdrawn=tuple(self.withdrawn),
            reports=tuple(self.reports),
            due_at=next_due(self.chart, self.position),
            group=self.group,
            clock_moves=self.clock_moves,
            moves=any(entry.kind not in COUNTING_KINDS for entry in self.entries),
        )

    def log(
        self,
        kind: Kind,
        *,
        state: str | None = None,
        to_state: str | None = None,
        visit: int | None = None,
        key: str | None = None,
        value_before: int | None = None,
        value_after: int | None = None,
        machine: str | None = None,
        reason: str | None = None,
        note: str | None = None,
    ) -> None:
        """Add a row to the log; without `state`, `to_state` and `visit` it is about the current ones."""
        here = self.position
        from_state = here.state if state is None else state
        self.entries.append(
            Entry(
                kind=kind,
                version=here.version,
                run=here.run,
                visit=here.visit if visit is None else visit,
                from_state=from_state,
                to_state=from_state if to_state is None else to_state,
                key=key,
                value_before=value_before,
                value_after=value_after,
                machine=machine,
                reason=reason,
                note=note,
            )
        )

    def enter(self, name: str) -> None:
        """Begin a visit of the state `name`: values as defined, no slots, and the reports of the states it includes."""
        self.position = self.position.entered(self.chart.states[name], self.now)
        self.visits.append(Visit(self.position.run, self.position.visit, name))
        self.arrive()

    def arrive(self) -> None:
        """Find out who takes part in the visit that has begun, and count those who have done their part before."""
        self.counted_on_entry = None
        state, expect = self.chart.states[self.position.state], self.chart.expect_of(self.position.state)
        if not state.including and (expect is None or expect.is_fixed):
            return
        self.position, counted = begin(self.chart, self.position, self.known)
        self.reports += [Report(self.position.visit, machine, state.default_key) for machine in counted]
        if counted or self.position.expected == 0:
            self.counted_on_entry = len(counted)

    def follow(self, roster: str, version: int) -> None:
        """Go by another version of a roster, in a row of the log with the sizes before and after."""
        before, old = self.position, self.position.rosters.get(roster)
        after = replace(before, rosters={**before.rosters, roster: version})
        expect = self.chart.expect_of(before.state)
        is_own = isinstance(expect, FromRoster) and expect.roster == roster
        after = measure(self.chart, after, self.known) if is_own else after
        self.log(
            Kind.ROSTER,
            value_before=self._size_of(before, roster, is_own),
            value_after=self._size_of(after, roster, is_own),
            reason=write_taken_over(roster, old, version),
        )
        self.position = after

    def _size_of(self, position: Position, roster: str, is_own: bool) -> int | None:
        """Return the size of the current state's set if it goes by the roster, else that of the roster."""
        if roster not in position.rosters:
            return None
        return position.expected if is_own else self._known.count_machines(roster, position.rosters[roster], ())

    def regroup(self) -> None:
        """Look the groups of the machines that are down up again."""
        self.position = regroup(self.chart, self.position, self._known)

    def run_clock(self) -> None:
        """Take every clock transition and end every lease that is due, one after another.

        A state whose set is empty, or whose machines are counted already, is left as its guards say, too: at once,
        however few transitions the clock has left, because no later step would judge these guards again.
        """
        while self.position.paused_at is None:
            if self.counted_on_entry is not None and self._leave_on_entry(self.counted_on_entry):
                continue
            if self.clock_moves >= self.moves:
                return
            if not self._take_due_transition() and not self._expire_one_lease():
                return

    def _leave_on_entry(self, counted: int) -> bool:
        """Take the first transition that holds for the machines counted on entry, or because the set is empty.

        A state is left so once in a step: a circle of such states ends where it began.
        """
        self.counted_on_entry = None
        transition = find_entry_move(self.state, self.position, counted, self.now)
        if transition is None or transition.guard.is_clock or self.state.name in self._left_on_entry:
            return False
        self._left_on_entry.add(self.state.name)
        self.log(Kind.TRANSITION, to_state=transition.target, reason=write_counted_on_entry(transition.guard, counted))
        self.enter(transition.target)
        return True

    def _take_due_transition(self) -> bool:
        for transition in self.state.transitions:
            guard = transition.guard
            if guard.is_clock and guard.holds(self.position, self.now):
                self.log(Kind.TIMEOUT, to_state=transition.target, key=guard.key, reason=guard.log_text)
                self.enter(transition.target)
                self.clock_moves += 1
                return True
        return False

    def take_first_that_holds(self, kind: Kind = Kind.TRANSITION) -> None:
        """Take the first transition whose guard holds, if there is one, after something other than a PUT.

        The log calls a transition with a count guard `kind`; one that the clock takes is always a timeout.
        """
        for transition in self.state.transitions:
            guard = transition.guard
            if not guard.holds(self.position, self.now):
                continue
            if guard.is_clock:
                # If the transaction can take no more of the clock's transitions, the next one takes it.
                if self.clock_moves < self.moves:
                    self._take_due_transition()
                return
            self.log(kind, to_state=transition.target, reason=guard.log_text)
            self.enter(transition.target)
            return

    def find_target(self) -> str | None:
        """Return where the first transition whose guard holds leads; None if no guard holds or the chart is paused."""
        if self.position.paused_at is not None:
            return None
        for transition in self.state.transitions:
            if transition.guard.holds(self.position, self.now):
                return transition.target
        return None

    def apply_func(
        self, machine: str | None, key: str, moved_from: str | None, note: str | None = None
    ) -> tuple[int, int]:
        """Count one report on `key`; return the value before and after.

        If the machine counted on the attribute `moved_from` in this visit, that count is taken back. Raises
        AttributeRangeError past 64 bits.
        """
        state = self.state
        func = state.func
        assert func is not None  # a final state counts nothing
        values = dict(self.position.values)
        if moved_from is not None and moved_from in values:
            values[moved_from] = func.undo(moved_from, values[moved_from])
        before = values[key]
        values[key] = func.apply(key, before)
        self.position = replace(self.position, values=values)
        if machine is not None:
            self.reports.append(Report(self.position.visit, machine, key, note))
            # First the report: a machine that has failed stays down when it gives its slot back.
            self.note_report(machine, key)
            self.give_back(machine)
            first = state.default_key
            succeeded = self.position.succeeded + (key == first) - (moved_from == first)
            self.position = replace(self.position, succeeded=succeeded)
        return before, values[key]

    def withdraw(self, machine: str, key: str | None, reason: str, note: str | None = None) -> None:
        """Take back the report of `machine` on `key` in this visit; `reason` and `note` are those of the log row.

        If the state has no such attribute, or counts nothing, no value changes. The machine keeps its slot.
        """
        here, func = self.position, self.state.func
        counts = key is not None and key in here.values and self.state.is_counting
        before = after = None
        if counts and key is not None and func is not None:
            before = here.values[key]
            after = func.undo(key, before)
            here = replace(here, values={**here.values, key: after})
        self.log(
            Kind.WITHDRAW,
            key=key if counts else None,
            value_before=before,
            value_after=after,
            machine=machine,
            reason=reason,
            note=note,
        )
        holder_reports = {name: held for name, held in here.holder_reports.items() if name != machine}
        succeeded = here.succeeded - (counts and key == self.state.default_key)
        self.position = replace(here, holder_reports=holder_reports, succeeded=succeeded)
        self.note_report(machine, None)
        # A report that this step has made is not written at all.
        self.reports = [report for report in self.reports if (report.visit, report.machine) != (here.visit, machine)]
        self.withdrawn.append(Report(here.visit, machine, key))

    def follow_calendars(self, hours: Hours) -> None:
        """Put the calendars' versions in `hours` in force: one row for each that was another one before."""
        before = dict(self.position.hours.calendars)
        for name, version in hours.calendars:
            if before.get(name) != version:
                self.log(Kind.CALENDAR, key=name, value_before=before.get(name), value_after=version)
        merged = replace(self.position.hours, calendars=hours.calendars, events=hours.events)
        self.position = replace(self.position, hours=merged)

    def note_report(self, machine: str, key: str | None) -> None:
        """Keep who is down up to date: the report of `machine` stands on `key` now, or on nothing."""
        rule = self.state.slots
        if rule is not None and rule.per:
            self.position = self.position.with_report(machine, key)

    def give_back(self, machine: str) -> None:
        """Free the slot of `machine`, if it holds one, without a row in the log."""
        if machine in self.position.slots:
            self.position = self.position.without_slot(machine)

    def _expire_one_lease(self) -> bool:
        """End the lease that ran out first, as the state's `on_expire` says; return False if no lease is due."""
        leased = [slot for slot in self.position.slots.values() if slot.expires_at is not None]
        due = [slot for slot in leased if slot.is_over(self.now)]
        rule = self.state.slots if due else None
        if rule is None:
            return False
        slot = min(due, key=lambda item: (item.expires_at, item.fence))
        on_expire = rule.on_expire
        if on_expire is OnExpire.FAIL:
            if self.takes_part(slot.machine):
                self._fail_holder(slot)
                return True
            # The machine has left the state's set: its failure counts nothing, as its report would.
            on_expire = OnExpire.FREE
        self.log(Kind.EXPIRE, machine=slot.machine, value_before=slot.fence, reason=str(on_expire))
        if on_expire is OnExpire.FREE:
            self.give_back(slot.machine)
        else:
            self.position = self.position.with_slot(replace(slot, expired_at=self.now))
        return True

    def _fail_holder(self, slot: Slot) -> None:
        """Count the holder as failed, once, and take the transition whose guard then holds."""
        moved_from = self.position.holder_reports.get(slot.machine)
        if moved_from == FAILED_KEY:
            before = after = self.position.values[FAILED_KEY]
            self.give_back(slot.machine)
        else:
            before, after = self.apply_func(slot.machine, FAILED_KEY, moved_from)
        self.log(
            Kind.EXPIRE,
            key=FAILED_KEY,
            value_before=before,
            value_after=after,
            machine=slot.machine,
            reason=str(OnExpire.FAIL),
        )
        self.take_first_that_holds(Kind.TIMEOUT)
