"""A machine's report: every check in its order, then the func and the transition that it makes hold."""

from __future__ import annotations

from app.core.chart import Func
from app.core.errors import BadRequestError, KeyReusedError
from app.core.making import Making
from app.core.position import Kind, LoggedUpdate, Reason, Report, Step, Update, Verdict
from app.core.slotting import free


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
