"""A chart with every optional key is read, including the state `freeze`, which only an operator enters."""

from app.chart_file import parse

EXAMPLE = """
chart: kernel-rollout
description: one line for people
current_state: canary
expect: 5000
require_machine: true
states:
  - name: canary
    description: five machines first
    func: increment
    current:
      - {key: count, value: 0}
      - {key: failed, value: 0}
    target:
      - {name: rollback, when: {key: failed, value: 1}}
      - {name: rollout, when: {key: count, value: 5}}
      - {name: stuck, when: {key: elapsed, value: 30m}}
  - name: rollout
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: rollback, when: {key: failed, value: "1%"}}
      - {name: done, when: {key: count, value: "95%"}}
  - name: freeze
    func: time
    target: {name: done, when: {key: clock, value: "3000-01-01T12:00:00"}}
  - name: rollback
  - name: stuck
  - name: done
"""


def test_example_is_a_chart():
    chart = parse(EXAMPLE).chart
    assert list(chart.states) == ["canary", "rollout", "freeze", "rollback", "stuck", "done"]


def test_example_warns_about_the_state_that_only_goto_enters():
    messages = [warning.message for warning in parse(EXAMPLE).warnings]
    assert "no transition enters state 'freeze'; only an operator's goto does" in messages
