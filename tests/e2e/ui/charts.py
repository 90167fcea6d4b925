"""Charts for the tests in a browser."""

from __future__ import annotations

import json
import uuid

from tests.e2e.ui.conftest import Client

YAML = {"Content_Type": "application/yaml"}


def rollout(needed: int = 5, description: str = "five machines, then all") -> str:
    """A chart file: `needed` machines report in canary, then all in fleet; three failures roll it back."""
    return f"""\
description: {json.dumps(description)}
current_state: canary
expect: 20
states:
  - name: canary
    description: {json.dumps(description)}
    func: increment
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target:
      - {{name: rolled_back, when: {{key: failed, value: 3}}}}
      - {{name: fleet, when: {{key: count, value: {needed}}}}}
      - {{name: overdue, when: {{key: elapsed, value: 6h}}}}
  - name: fleet
    func: increment
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target: [{{name: done, when: {{key: count, value: "100%"}}}}, {{name: overdue, when: {{key: elapsed, value: 1d}}}}]
  - name: done
  - name: rolled_back
  - name: overdue
"""


def chain(states: int) -> str:
    """A chart of many states, each of which can abort."""
    states_of = "".join(
        f"  - {{name: s{number}, func: increment, current: [{{key: count, value: 0}}, {{key: failed, value: 0}}],"
        f" target: [{{name: s{number + 1}, when: {{key: count, value: 2}}}},"
        f" {{name: abort, when: {{key: failed, value: 1}}}}]}}\n"
        for number in range(states - 2)
    )
    return f"current_state: s0\nstates:\n{states_of}  - name: s{states - 2}\n  - name: abort\n"


def new_chart(client: Client, text: str | None = None, prefix: str = "chart") -> str:
    """Import a chart under a new name; returns the name."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    client.ask("PUT", f"/charts/{name}", text or rollout(), **YAML)
    return name
