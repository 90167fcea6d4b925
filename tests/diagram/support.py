"""Charts that the tests of pictures share."""

from __future__ import annotations

from app import chart_file
from app.core.chart import Attribute, Chart, CountGuard, Func, Op, State, Transition

ROLLOUT = """\
chart: rollout
current_state: canary
expect: 400
states:
  - name: canary
    description: five <first> & "only"
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: rolled_back, when: {key: failed, value: 1}}
      - {name: fleet, when: {key: count, value: 5}}
      - {name: overdue, when: {key: elapsed, value: 1h}}
  - name: fleet
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}, {key: again, value: 0}]
    target:
      - {name: rolled_back, when: {key: failed, op: ">", value: "1%"}}
      - {name: canary, when: {key: again, value: 1}}
      - {name: freeze, when: {key: count, value: "99%"}}
  - name: freeze
    func: time
    target: {name: done, when: {key: clock, value: "2031-01-02T06:00:00+01:00"}}
  - name: done
  - name: rolled_back
  - name: overdue
"""


def parsed(text: str) -> Chart:
    return chart_file.parse(text, default_name="chart").chart


def chain(length: int) -> Chart:
    """Return a long chart in which every state may also lead to `abort` or back to the first state."""
    attributes = (Attribute("count", 0), Attribute("failed", 0), Attribute("again", 0))
    states = {
        f"s{number}": State(
            name=f"s{number}",
            func=Func.INCREMENT,
            attributes=attributes,
            transitions=(_move(f"s{number + 1}", "count"), _move("abort", "failed"), _move("s0", "again")),
        )
        for number in range(length - 2)
    }
    last = f"s{length - 2}"
    return Chart(name="chain", initial="s0", states={**states, last: State(name=last), "abort": State(name="abort")})


def _move(target: str, key: str) -> Transition:
    return Transition(target, CountGuard(key, Op.GE, 1, "1"))
