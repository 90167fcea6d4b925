"""The answer to a machine's question."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from app.core.position import CLOCK_KINDS, Reason, Step, Verdict


@dataclass(frozen=True, slots=True)
class SlotCount:
    """How many slots the state has, how many are held, and the fencing number of the one asked about, if held."""

    slots: int
    held: int
    fence: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Yes or no, and everything there is to say about it.

    `run` and `visit` are those in which the question was judged; `seq` is the chart's last log row that the answer
    reflects, for an accepted PUT its own row.
    """

    chart: str
    run: int
    visit: int
    seq: int
    state: str
    current_state: str
    is_yes: bool
    reason: Reason
    key: str | None = None
    value: int | None = None
    slots: SlotCount | None = None

    def as_json(self) -> dict[str, Any]:
        """The answer as the HTTP interface gives it to whoever accepts JSON."""
        fields = asdict(self)
        is_yes, slots = fields.pop("is_yes"), fields.pop("slots")
        return {**fields, **(slots or {}), "answer": "yes" if is_yes else "no", "replay": self.reason is Reason.REPLAY}


def answer_step(chart: str, seq: int, state: str, step: Step) -> Answer:
    """The answer that a decided PUT comes to, `seq` being the chart's last log row before it."""
    here = step.position
    run, visit, last_seq = here.run, here.visit, seq + len(step.entries)
    if step.reason in (Reason.UPDATED, Reason.TRANSITIONED):
        offset, entry = next(item for item in enumerate(step.entries, 1) if item[1].kind not in CLOCK_KINDS)
        run, visit, last_seq = entry.run, entry.visit, seq + offset
    is_yes = step.verdict is Verdict.ACCEPTED
    return Answer(chart, run, visit, last_seq, state, here.state, is_yes, step.reason, step.key, step.value)
