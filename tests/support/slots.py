"""Charts with slots, machines that claim them, and a reader of the log that knows nothing of the service's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from app.core.log import LogRow
from app.core.position import Reason
from app.service.context import Service
from app.service.put import Answer
from app.service.upkeep import verify
from tests.service.support import NOBODY
from tests.support import requests


def rolling(
    slots: str = "2",
    *,
    lease: str | None = None,
    on_expire: str | None = None,
    count: str = "9",
    failed: str = "2",
    expect: str | None = None,
    deadline: str = "9d",
) -> str:
    """A chart `web` that reboots with slots, then, or when a deadline comes, restarts services with one slot."""
    lines = ["chart: web", "current_state: reboot"]
    lines += [f"expect: {expect}"] if expect else []
    lines += ["states:", "- name: reboot", "  func: increment", f"  slots: {slots}"]
    lines += [f"  lease: {lease}"] if lease else []
    lines += [f"  on_expire: {on_expire}"] if on_expire else []
    lines += [
        "  current: [{key: count, value: 0}, {key: failed, value: 0}]",
        "  target:",
        f"  - {{name: halted, when: {{key: failed, value: {failed}}}}}",
        f"  - {{name: restart, when: {{key: count, value: {count}}}}}",
        f"  - {{name: restart, when: {{key: elapsed, value: {deadline}}}}}",
        "  - {name: plain, when: {key: clock, value: 3000-01-01}}",
        "- name: restart",
        "  func: increment",
        "  slots: 1",
        "  current: [{key: count, value: 0}]",
        "  target: {name: done, when: {key: count, value: 1}}",
        "- name: plain",
        "  func: increment",
        "  current: [{key: count, value: 0}]",
        "  target: {name: done, when: {key: count, value: 1}}",
        "- name: halted",
        "- name: done",
    ]
    return "\n".join(lines) + "\n"


def claim(service: Service, machine: str, state: str = "reboot", wait: float = 0) -> Answer:
    return requests.claim(service, "web", state, machine, NOBODY, wait)


def claim_all(service: Service, *machines: str) -> None:
    """Claim for each of `machines`, which must all get a slot."""
    for machine in machines:
        assert claim(service, machine).reason is Reason.UPDATED, machine


def is_sound(service: Service) -> bool:
    """True where the log of `web` leads to what the tables have."""
    return verify(service, "web").differences == ()


@dataclass
class Ledger:
    """Who holds a slot, by the log alone: written from the contract's text, shares nothing with the service's replay.

    `stages` are the limits of the one state that has slots, by version. `most` is the most that were ever held,
    `fences` the number of every claim of a new slot, in order.
    """

    stages: Mapping[int, tuple[int, ...]]
    holders: set[str] = field(default_factory=set)
    succeeded: set[str] = field(default_factory=set)
    most: int = 0
    fences: list[int] = field(default_factory=list)

    def read(self, rows: Iterable[LogRow]) -> Ledger:
        """Carry on over `rows`; fails at a claim past the limit."""
        for row in rows:
            self._read(row)
        return self

    def limit(self, version: int) -> int:
        """How many slots there are after so many reports on the first attribute."""
        left = len(self.succeeded)
        for stage in self.stages[version]:
            if left < stage:
                return stage
            left -= stage
        return self.stages[version][-1]

    def _read(self, row: LogRow) -> None:
        machine = str(row.machine)
        if row.kind == "claim" and row.value_before is None:
            assert machine not in self.holders, f"seq {row.seq}: {machine} holds one"
            limit = self.limit(row.version)
            assert len(self.holders) < limit, f"seq {row.seq}: {len(self.holders) + 1} of {limit}"
            self.holders.add(machine)
            self.fences.append(int(row.value_after or 0))
        elif row.kind == "claim":
            assert machine in self.holders, f"seq {row.seq}: {machine} renews what it does not hold"
        elif row.kind in ("release", "evict") or (row.kind == "expire" and row.reason != "hold"):
            self.holders.remove(machine)
        elif row.kind == "expire":
            assert machine in self.holders, f"seq {row.seq}: {machine} holds none"
        elif row.kind in ("update", "transition") and row.key is not None:
            assert machine in self.holders, f"seq {row.seq}: {machine} reports without a slot"
            self.holders.remove(machine)
        if row.key is not None and row.machine is not None:
            (self.succeeded.discard if row.key == "failed" else self.succeeded.add)(machine)
        self.most = max(self.most, len(self.holders))
        if row.kind in ("import", "reset", "goto", "transition", "timeout"):
            self.holders, self.succeeded = set(), set()
