"""Comparing two texts: what is shown is true, and takes bounded time."""

from __future__ import annotations

import random
import time

import pytest

from app.web.ui.diff import MAX_COMPARED_LINES, compare


def texts_of(old: str, new: str) -> tuple[list[str], list[str]]:
    """The old and the new text, as a comparison without left-out lines shows them."""
    lines = compare(old, new)
    assert lines is not None
    return [line.text for line in lines if line.kind != "added"], [
        line.text for line in lines if line.kind != "removed"
    ]


def test_comparison_of_short_texts_shows_both_texts() -> None:
    dice = random.Random(3)
    for _ in range(2000):
        old, new = (["-", *(dice.choice("abcd") for _ in range(dice.randint(0, 5))), dice.choice("xy")] for _ in "12")
        if old != new:
            assert texts_of("\n".join(old), "\n".join(new)) == (old, new)


def test_unchanged_lines_far_from_a_change_are_left_out() -> None:
    old = [f"line {number}" for number in range(1, 31)]
    new = [*old[:14], "changed", *old[15:], "more"]
    lines = compare("\n".join(old), "\n".join(new))
    assert lines is not None
    assert [(line.kind, line.old, line.new) for line in lines if line.kind != "same"] == [
        ("removed", 15, None),
        ("added", None, 15),
        ("skipped", None, None),
        ("added", None, 31),
    ]
    assert len([line for line in lines if line.kind == "same"]) == 12
    assert compare("a\nb", "a\nb") == []


def test_shortest_edit_is_found_in_a_chart() -> None:
    state = "- name: s{0}\n  func: increment\n  current: {{key: count, value: 0}}\n"
    old = "".join(state.format(number) for number in range(300))
    lines = compare(old, old.replace("- name: s7\n", "- name: s7\n  slots: 3\n").replace("- name: s299\n", ""))
    assert lines is not None
    assert [(line.kind, line.text) for line in lines if line.kind in ("added", "removed")] == [
        ("added", "  slots: 3"),
        ("removed", "- name: s299"),
    ]


@pytest.mark.parametrize("words", ["ab", "abcdefghij"])
def test_texts_that_are_often_alike_are_compared_in_bounded_time(words: str) -> None:
    """1,600 such lines once took 29 s; these take less than 1 s."""
    dice = random.Random(5)
    old, new = ("\n".join(dice.choice(words) for _ in range(5000)) for _ in "12")
    started = time.process_time()
    assert compare(old, new)
    assert time.process_time() - started < 15


def test_very_long_texts_are_not_compared() -> None:
    assert compare("a\n" * (MAX_COMPARED_LINES + 1), "a") is None
