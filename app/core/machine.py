"""The chart machine: what happens to a chart, decided from its definition, its position and the time alone.

`step` and `start` are the only ways in. Below them stands one function for each kind of happening: what machines
report, what becomes of slots, and what operators and imports do. All of these build their answer in a `Decision`
(`app/core/decision.py`): it holds the position so far, writes down what the log will say, and runs the clock.

The clock goes first. Before a happening is judged, every transition and lease that is due at `now` is settled, so
that the answer is the same as if the sweeper had come by at exactly the right moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from app.core.arrival import find_failed, find_full, find_labels, groups_of, measure
from app.core.chart import FAILED_KEY, Chart, SlotRule, State
from app.core.decision import MOVES_PER_STEP, Decision
from app.core.errors import BadRequestError, ConflictError, KeyReusedError
from app.core.expect import NOTHING, Known, write_group
from app.core.log import format_instant
from app.core.position import (
    LEASES_FOLLOW,
    TAKEN_BACK,
    Archive,
    Claim,
    Evict,
    FollowCalendar,
    Goto,
    Happening,
    Kind,
    LoggedUpdate,
    NewRoster,
    Open,
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
    Visit,
    say_upgrade,
)
from app.core.window import NO_HOURS, NO_LABELS, Hours, Labels, Schedule, judge


def step(
    chart: Chart,
    position: Position,
    happening: Happening,
    now: datetime,
    known: Known = NOTHING,
    *,
    moves: int = MOVES_PER_STEP,
) -> Step:
    """Decide what `happening` does to `chart` at `position` when the time is `now`.

    `known` answers questions about machines; a chart that has no roster and does not look back asks none. The clock
    takes at most `moves` transitions: what is left of those that the caller's transaction may take. Raises
    BadRequestError, KeyReusedError or ConflictError; then the caller must write nothing.
    """
    decision = Decision(chart, position, now, known, moves=moves)
    match happening:
        case Update():
            return _update(decision, happening)
        case Claim():
            return _claim(decision, happening)
        case Release():
            return _release(decision, happening)
        case Tick():
            decision.run_clock()
        case Pause():
            _pause(decision, happening.reason)
        case Resume():
            _resume(decision, happening.reason)
        case Reset():
            _reset(decision, happening.reason)
        case Goto():
            _goto(decision, happening.state, happening.reason)
        case Archive():
            decision.log(Kind.ARCHIVE, reason=happening.reason)
        case Upgrade():
            _upgrade(decision, happening)
        case Open():
            _open(decision, happening)
        case FollowCalendar():
            _follow_calendar(decision, happening)
        case NewRoster():
            _take_over_roster(decision, happening)
        case Evict():
            _evict(decision, happening)
    return decision.accept(Reason.UPDATED)


def start(
    chart: Chart,
    version: int,
    run: int,
    now: datetime,
    *,
    fence: int = 0,
    hours: Hours = NO_HOURS,
    rosters: Mapping[str, int] | None = None,
    known: Known = NOTHING,
) -> Step:
    """Decide the first step of a chart's run `run`: it enters its initial state, and the clock runs.

    The reports that the definition has for that state stand in it, because its values include them. `hours` has the
    calendars that the chart names, in the versions in force, and `rosters` the newest version of each roster that it
    follows.
    """
    reports = chart.states[chart.initial].reports
    position = Position(
        version=version,
        run=run,
        visit=1,
        state=chart.initial,
        values=chart.states[chart.initial].initial_values(),
        entered_at=now,
        fence=fence,
        succeeded=sum(key == chart.states[chart.initial].default_key for key in reports.values()),
    )
    decision = Decision(chart, position, now, known)
    decision.log(Kind.IMPORT, note=chart.sha256)
    decision.visits.append(Visit(run, 1, chart.initial))
    for roster in chart.rosters:
        decision.follow(roster, (rosters or {})[roster])
    decision.reports += [Report(1, machine, key) for machine, key in reports.items()]
    decision.follow_calendars(hours)
    decision.arrive()
    decision.run_clock()
    return decision.accept(Reason.UPDATED)


# Reports: a PUT on a state.


def _update(decision: Decision, request: Update) -> Step:
    decision.run_clock()
    if request.repeats is not None:
        return _repeat(decision, request, request.repeats)
    if request.machine is None and decision.chart.needs_machine_in(request.state):
        raise BadRequestError(f"chart {decision.chart.name!r} needs a machine id in every PUT: machine is missing")
    if decision.is_other_run(request.run):
        return decision.refuse(Reason.OTHER_RUN)
    if request.state not in decision.chart.states:
        return _answer_old_name(decision, request)
    key = _find_key(decision, request)
    report = decision.find_report(request.state, request.machine, request.report)
    if report is not None and report.key == key:
        return _replay(decision, request.state, report.machine, key)
    if report is not None and key is not None and request.state != decision.position.state:
        return _record(decision, request, report, key)
    takes_back = _takes_back(decision, request, report)
    refusal = _find_refusal(decision, request, takes_back)
    if refusal is Reason.NOT_ON_ROSTER and request.machine is not None and request.machine in decision.position.slots:
        # The machine left the roster while it worked. Its report counts nothing, but the work is done.
        _free(decision, request.machine)
    if refusal is not None:
        return decision.refuse(refusal)
    return _count(decision, request, str(key), report, takes_back)


def _repeat(decision: Decision, request: Update, logged: LoggedUpdate) -> Step:
    """Answer a PUT whose Idempotency-Key was accepted before. Raises KeyReusedError if it says something else now."""
    key = request.key if request.key is not None else logged.default_key
    if (request.state, request.machine, key) != (logged.state, logged.machine, logged.key):
        raise KeyReusedError(
            "this Idempotency-Key was used before with"
            f" state {logged.state!r}, machine {logged.machine!r}, key {logged.key!r}"
        )
    step = _replay(decision, logged.state, logged.machine, logged.key)
    return step if logged.row is None else replace(step, value=logged.row.value, repeated=logged.row)


def _replay(decision: Decision, state: str, machine: str | None, key: str | None) -> Step:
    is_current = state == decision.position.state
    decision.key = key
    decision.value = decision.position.values.get(key or "") if is_current else None
    if machine is not None and is_current and machine in decision.position.slots:
        # The machine claimed again after its report: repeating the report is how it gives the slot back.
        _free(decision, machine)
    return decision.accept(Reason.REPLAY)


def _answer_old_name(decision: Decision, request: Update) -> Step:
    """Answer a PUT on a state that the chart lacks: yes if it repeats a report made before an upgrade renamed it."""
    home = decision.position.renamed.get(request.state)
    report = None if home is None else decision.find_report(home, request.machine, request.report)
    if home is None or report is None:
        return decision.refuse(Reason.UNKNOWN_STATE)
    key = request.key if request.key is not None else decision.chart.states[home].default_key
    if report.key not in (key, None):
        return decision.refuse(Reason.UNKNOWN_STATE)
    return _replay(decision, home, report.machine, report.key)


def _find_key(decision: Decision, request: Update) -> str | None:
    """Return the attribute to count on; None in a state that counts nothing. Raises BadRequestError if it lacks it."""
    state = decision.chart.states[request.state]
    if not state.is_counting:
        # An upgrade may have made it of a state that counted: a report of then has no attribute any more, either.
        return None
    if request.key is None:
        return state.default_key
    if not state.has_attribute(request.key):
        raise BadRequestError(f"state {request.state!r} has no attribute {request.key!r}")
    return request.key


def _takes_back(decision: Decision, request: Update, report: Report | None) -> bool:
    """Return whether the PUT takes back a failure that the end of the machine's lease reported, now or before."""
    if not request.takes_back or report is None or report.key != FAILED_KEY:
        return False
    # Every report in this step so far was made by the clock.
    return request.failed_by_lease or report in decision.reports


def _find_refusal(decision: Decision, request: Update, takes_back: bool) -> Reason | None:
    # A pause refuses no report: the work is done, and a refusal would lose it.
    if request.state != decision.position.state:
        was_entered = request.was_entered or decision.has_entered(request.state)
        return Reason.LATE if was_entered and request.machine is not None else Reason.NOT_CURRENT
    state = decision.state
    if state.is_final:
        return Reason.FINAL
    if not state.is_counting:
        return Reason.TIME_DRIVEN
    if request.machine is not None and not decision.takes_part(request.machine):
        return Reason.NOT_ON_ROSTER
    if _is_own_change(decision.chart, state, request.machine):
        return Reason.OWN_CHANGE
    if state.slots is not None and request.machine not in decision.position.slots and not takes_back:
        return Reason.NO_SLOT
    return None


def _is_own_change(chart: Chart, state: State, person: str | None) -> bool:
    """Return whether `person` would approve the version that they imported, and the state forbids that."""
    rule = state.approvers
    return rule is not None and rule.not_importer and person is not None and person == chart.importer


def _record(decision: Decision, request: Update, report: Report, key: str) -> Step:
    """Keep what a machine that was counted says after the chart has left the state. No value changes."""
    decision.log(
        Kind.LATE,
        state=request.state,
        visit=report.visit,
        key=key,
        machine=request.machine,
        reason=f"after {report.key}" if report.key is not None else None,
        note=request.note,
    )
    decision.reports.append(Report(report.visit, report.machine, key, request.note))
    decision.key = key
    return decision.accept(Reason.RECORDED)


def _count(decision: Decision, request: Update, key: str, report: Report | None, takes_back: bool) -> Step:
    """Apply the func, give the slot back, and take the first transition that now holds: one log row.

    While the chart is paused, no transition is taken; the resume judges every guard.
    """
    machine, moved_from = request.machine, report.key if report is not None else None
    reason = None if moved_from is None else f"moved from {moved_from}"
    if takes_back and machine not in decision.position.slots:
        reason = TAKEN_BACK
    before, after = decision.apply_func(machine, key, moved_from, request.note)
    decision.key, decision.value = key, after
    target = decision.find_target()
    decision.log(
        Kind.UPDATE if target is None else Kind.TRANSITION,
        to_state=target,
        key=key,
        value_before=before,
        value_after=after,
        machine=machine,
        reason=reason,
        note=request.note,
    )
    if target is None:
        return decision.accept(Reason.UPDATED)
    decision.enter(target)
    decision.run_clock()
    return decision.accept(Reason.TRANSITIONED)


# Slots: a machine claims one, gives it back, or an operator takes it away.


def _claim(decision: Decision, request: Claim) -> Step:
    decision.run_clock()
    refusal = _find_claim_refusal(decision, request)
    if refusal is not None:
        return decision.refuse(refusal)
    rule, here = decision.state.slots, decision.position
    if rule is None:
        raise BadRequestError(f"state {request.state!r} has no slots")
    held = here.slots.get(request.machine)
    if held is None and not request.again and _has_done_its_part(decision, request):
        return decision.refuse(Reason.DONE)
    refusal = _find_window_refusal(decision, request, rule)
    if refusal is not None:
        return decision.refuse(refusal)
    if held is None and len(here.slots) >= rule.limit(here.succeeded):
        return decision.refuse(Reason.FULL)
    full = find_full(decision.chart, here, decision.known, rule, request.machine) if held is None and rule.per else None
    if full is not None:
        decision.group = write_group(full)
        return decision.refuse(Reason.GROUP_FULL)
    if held is not None and rule.lease is None and held.expires_at is None:
        return decision.accept(Reason.REPLAY)
    slot = Slot(
        machine=request.machine,
        fence=here.fence + 1 if held is None else held.fence,
        claimed_at=decision.now if held is None else held.claimed_at,
        renewed_at=decision.now,
        expires_at=None if rule.lease is None else decision.now + rule.lease,
    )
    decision.log(
        Kind.CLAIM,
        machine=request.machine,
        value_before=None if held is None else slot.fence,
        value_after=slot.fence,
    )
    groups = groups_of(decision.chart, here, decision.known, rule, request.machine) if held is None else None
    decision.position = here.with_slot(slot, groups)
    return decision.accept(Reason.UPDATED if held is None else Reason.REPLAY)


def _has_done_its_part(decision: Decision, request: Claim) -> bool:
    """Return whether the machine's report in this visit stands on the state's first attribute."""
    report = decision.find_report(request.state, request.machine, request.report)
    return report is not None and report.key is not None and report.key == decision.state.default_key


def _find_claim_refusal(decision: Decision, request: Claim) -> Reason | None:
    if decision.is_other_run(request.run):
        return Reason.OTHER_RUN
    if request.state not in decision.chart.states:
        return Reason.UNKNOWN_STATE
    if decision.position.is_paused:
        return Reason.PAUSED
    if request.state != decision.position.state:
        return Reason.NOT_CURRENT
    if not decision.takes_part(request.machine):
        return Reason.NOT_ON_ROSTER
    return None


def _find_window_refusal(decision: Decision, request: Claim, rule: SlotRule) -> Reason | None:
    """Return why the claim comes at the wrong time, if it does. A renewal is judged as a new claim is."""
    schedule = decision.chart.find_schedule(request.state)
    if schedule is None:
        return None
    opening = judge(
        schedule, decision.position.hours, decision.now, _find_zone_labels(decision, request.machine, schedule)
    )
    if not opening.is_open:
        return Reason.WINDOW
    if not schedule.fit or rule.lease is None or opening.closes_at is None:
        return None
    return Reason.WINDOW_SHORT if decision.now + rule.lease > opening.closes_at else None


def _find_zone_labels(decision: Decision, machine: str, schedule: Schedule) -> Labels:
    """Return the labels of `machine` if one of the windows goes by the machine's own time zone."""
    if not schedule.needs_labels:
        return NO_LABELS
    return find_labels(decision.chart, decision.position, decision.known, [machine])[machine]


def _release(decision: Decision, request: Release) -> Step:
    decision.run_clock()
    if decision.is_other_run(request.run):
        return decision.refuse(Reason.OTHER_RUN)
    state = decision.position.renamed.get(request.state, request.state)
    if state != decision.position.state or request.machine not in decision.position.slots:
        return decision.accept(Reason.REPLAY)
    _free(decision, request.machine)
    return decision.accept(Reason.UPDATED)


def _free(decision: Decision, machine: str) -> None:
    decision.log(Kind.RELEASE, machine=machine, value_before=decision.position.slots[machine].fence)
    decision.give_back(machine)


def _evict(decision: Decision, request: Evict) -> None:
    decision.run_clock()
    held = decision.position.slots.get(request.machine)
    if held is None:
        raise ConflictError(f"machine {request.machine!r} holds no slot")
    decision.log(Kind.EVICT, machine=request.machine, value_before=held.fence, reason=request.reason)
    decision.give_back(request.machine)


# Acts of operators, and imports.


def _pause(decision: Decision, reason: str) -> None:
    if decision.position.is_paused:
        raise ConflictError(f"chart {decision.chart.name!r} is paused already")
    decision.run_clock()
    decision.log(Kind.PAUSE, reason=reason)
    decision.position = replace(decision.position, paused_at=decision.now)


def _resume(decision: Decision, reason: str) -> None:
    if not decision.position.is_paused:
        raise ConflictError(f"chart {decision.chart.name!r} is not paused")
    here = decision.position
    decision.log(Kind.RESUME, reason=reason)
    schedule = decision.chart.find_schedule(decision.position.state)
    decision.position = decision.position.resumed(decision.now, schedule)
    entered_paused = here.paused_at is not None and here.entered_at >= here.paused_at
    if entered_paused and here.expected == 0:
        # The set was empty when the operator moved the paused chart here.
        decision.counted_on_entry = 0
    else:
        decision.take_first_that_holds()
    decision.run_clock()


def _reset(decision: Decision, reason: str) -> None:
    here, initial = decision.position, decision.chart.initial
    decision.position = replace(here, run=here.run + 1, visit=0, renamed={})
    # The row already belongs to the new run and to the visit that begins below.
    decision.log(Kind.RESET, to_state=initial, reason=reason, visit=1)
    decision.enter(initial)
    decision.run_clock()


def _goto(decision: Decision, state: str, reason: str) -> None:
    if state not in decision.chart.states:
        raise BadRequestError(f"chart {decision.chart.name!r} has no state {state!r}")
    decision.run_clock()
    decision.log(Kind.GOTO, to_state=state, reason=reason)
    decision.enter(state)
    decision.run_clock()


def _open(decision: Decision, request: Open) -> None:
    if request.until <= decision.now:
        raise BadRequestError(f"until {format_instant(request.until)} is past")
    if not decision.chart.can_close:
        raise ConflictError(f"chart {decision.chart.name!r} has no windows: it is always open")
    decision.run_clock()
    decision.log(Kind.OPEN, reason=request.reason, note=format_instant(request.until))
    here = decision.position
    decision.position = replace(here, hours=here.hours.opened(decision.now, request.until))
    decision.run_clock()


def _follow_calendar(decision: Decision, request: FollowCalendar) -> None:
    decision.run_clock()
    decision.follow_calendars(request.hours)
    decision.run_clock()


def read_homes(maps: Sequence[str], old: Chart, new: Chart) -> Mapping[str, str]:
    """Read texts `old:new` into a mapping from old to new states. A state's name may itself contain colons.

    Raises BadRequestError.
    """
    homes: dict[str, str] = {}
    for text in maps:
        gone, home = _read_home(text, old, new)
        if homes.get(gone, home) != home:
            raise BadRequestError(f"map: state {gone!r} is given two new homes")
        homes[gone] = home
    return homes


def _read_home(text: str, old: Chart, new: Chart) -> tuple[str, str]:
    cuts = [(text[:at], text[at + 1 :]) for at, character in enumerate(text) if character == ":"]
    known = [(gone, home) for gone, home in cuts if gone in old.states and home in new.states]
    fitting = [(gone, home) for gone, home in known if gone not in new.states]
    if len(fitting) == 1:
        return fitting[0]
    if fitting or not known:
        raise BadRequestError(f"map {text!r} is not OLD:NEW, a state of the running version and one of the new version")
    raise BadRequestError(f"map {text!r}: the new version still has the state {known[0][0]!r}")


def _upgrade(decision: Decision, request: Upgrade) -> None:
    reported_in = decision.position.visit
    decision.run_clock()
    old = decision.position
    # The clock may have begun another visit, which has no reports yet: those of the visit before stand as they are.
    reports = decision.reports_in_visit(request.reports if old.visit == reported_in else {})
    home = old.state if old.state in request.chart.states else request.homes.get(old.state)
    if home is None:
        raise ConflictError(
            f"state {old.state!r} is current and version {request.version} has no such state: name its new home"
        )
    old_rule, state = decision.state.slots, request.chart.states[home]
    upgraded = old.upgraded(request.version, request.chart, home, request.homes)
    after = upgraded.with_leases(old_rule, state.slots, decision.now)
    follows = LEASES_FOLLOW if after != upgraded else ""
    had_approvers, approved = decision.state.approvers is not None, decision.chart.sha256
    decision.chart = request.chart
    decision.position = replace(old, version=request.version)
    reason = say_upgrade(old.version, request.version, request.homes, follows)
    decision.log(Kind.UPGRADE, to_state=home, reason=reason, note=request.chart.sha256)
    after = replace(after, hours=old.hours.of_calendars(request.chart.calendars))
    decision.position = measure(request.chart, after.following(request.chart.rosters), decision.known)
    decision.follow_calendars(request.hours)
    for roster, newest in request.rosters.items():
        if decision.position.rosters.get(roster) != newest:
            decision.follow(roster, newest)
    decision.position = find_failed(request.chart, decision.position, reports)
    if had_approvers:
        for name in sorted(reports):
            decision.withdraw(name, reports[name], f"version {old.version} was approved", approved)
        reports = {}
    _withdraw_absent(decision, reports)


def _take_over_roster(decision: Decision, request: NewRoster) -> None:
    reported_in = decision.position.visit
    decision.run_clock()
    decision.follow(request.roster, request.version)
    reports = request.reports if decision.position.visit == reported_in else {}
    _withdraw_absent(decision, decision.reports_in_visit(reports))


def _withdraw_absent(decision: Decision, reports: Mapping[str, str | None]) -> None:
    """Withdraw the reports of machines that take part no more, and judge the guards."""
    decision.regroup()
    expect = decision.chart.expect_of(decision.position.state)
    if reports and expect is not None:
        present = expect.keep(reports.keys(), decision.position, decision.known)
        for name in sorted(reports.keys() - present):
            decision.withdraw(name, reports[name], f"{name} is not on the roster")
    if not decision.position.is_paused:
        decision.take_first_that_holds()
        decision.run_clock()
