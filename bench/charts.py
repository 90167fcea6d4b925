"""The charts that are measured: of any size, and never done."""

from __future__ import annotations

# A count that no run of the benchmark reaches: the chart stays in its first state, and every PUT is a yes.
NEVER = 2**62
STATE = "s1"
HOT = "hot"


CLOCK = """
current_state: before
states:
- {{name: before, func: time, target: {{name: after, when: {{key: clock, value: "{instant}"}}}}}}
- {{name: after}}
"""


def chart_text(states: int = 3) -> str:
    """A chart file with that many states in a chain, as compact as YAML allows; the first is never done."""
    goals = [NEVER, *[1] * states]
    counted = [
        f"- {{name: s{number},func: increment,current: {{key: c,value: 0}},"
        f"target: {{name: s{number + 1},when: {{key: c,value: {goals[number - 1]}}}}}}}"
        for number in range(1, states)
    ]
    return "\n".join([f"current_state: {STATE}", "states:", *counted, f"- {{name: s{states}}}", ""])
