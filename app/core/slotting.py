"""Slots: claimed, given back, taken away."""

from __future__ import annotations

from app.core.errors import BadRequestError, ConflictError
from app.core.making import Making
from app.core.position import Claim, Evict, Kind, Reason, Release, Slot, Step, Verdict


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
