"""What an operator does to a chart."""

from __future__ import annotations

from dataclasses import replace

from app.core.errors import BadRequestError, ConflictError
from app.core.making import Making
from app.core.position import Entry, Kind, Upgrade


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
