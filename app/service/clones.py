"""A hint that two machines have one id: cloned images, or a name such as `localhost`.

A slot belongs to an id, so that a machine may ask for its slot again. If the second request comes from another address
than the first, the service says so: it may be another machine, which works at the same time.
"""

from __future__ import annotations

import logging

from app import store
from app.core.position import Claim, Reason, Step
from app.db import Connection
from app.service.locked import LockedChart

logger = logging.getLogger("stateservice.machines")


class ClaimAddresses:
    """From which addresses the slots of one chart are claimed, in one transaction."""

    def __init__(self, connection: Connection, chart: LockedChart) -> None:
        self._connection = connection
        self._chart = chart
        # What this transaction has decided, which the log does not have yet.
        self._claimed: dict[str, str | None] = {}

    def find_other(self, claim: Claim, step: Step, address: str | None) -> str | None:
        """Return the address from which the machine claimed the slot that it now asked for from `address`, and log it.

        None if that is the same address, or is not known, or if the slot is a new one.
        """
        before = None
        if step.reason is Reason.REPLAY and address is not None:
            before = self._find(claim.machine)
        if step.reason in (Reason.UPDATED, Reason.REPLAY) and step.entries:
            self._claimed[claim.machine] = address
        if before is None or before == address:
            return None
        slot = f"chart {self._chart.row.name}: machine {claim.machine!r} has a slot of {claim.state}"
        logger.warning(
            "%s, claimed from %s, and asks for it from %s: do two machines have this id?", slot, before, address
        )
        return before

    def _find(self, machine: str) -> str | None:
        if machine in self._claimed:
            return self._claimed[machine]
        return store.log.find_claim_address(self._connection, self._chart.row, machine)
