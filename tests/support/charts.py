"""Charts that waiting is tested with."""

from __future__ import annotations

THREE = """
current_state: first
states:
  - {name: first, func: increment, current: {key: n, value: 0}, target: {name: second, when: {key: n, value: 1}}}
  - {name: second, func: increment, current: {key: n, value: 0}, target: {name: third, when: {key: n, value: 1}}}
  - {name: third, func: increment, current: {key: n, value: 0}, target: {name: end, when: {key: n, value: 1}}}
  - name: end
"""

ROSTER = "expect: [m1, m2]\n" + THREE

# Without `second`, whose home an import must name.
TWO = """
current_state: first
states:
  - {name: first, func: increment, current: {key: n, value: 0}, target: {name: third, when: {key: n, value: 1}}}
  - {name: third, func: increment, current: {key: n, value: 0}, target: {name: end, when: {key: n, value: 1}}}
  - name: end
"""


def deadline(age: str) -> str:
    """A chart that leaves its first state when that is `age` old."""
    return f"""
current_state: open
states:
  - name: open
    func: increment
    current: {{key: count, value: 0}}
    target:
      - {{name: full, when: {{key: count, value: 100}}}}
      - {{name: over, when: {{key: elapsed, value: {age}}}}}
  - name: over
    func: increment
    current: {{key: count, value: 0}}
    target: {{name: full, when: {{key: count, value: 100}}}}
  - name: full
"""
