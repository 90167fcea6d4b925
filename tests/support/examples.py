"""How many examples Hypothesis tries of each property."""

from __future__ import annotations

import os

from hypothesis import settings

FEW, MANY, ALL = 50, 300, 1000
# `all` is as `many`, but for what takes minutes: that is tried whole.
IS_ALL = os.environ.get("STATE_SERVICE_EXAMPLES") == "all"
IS_MANY = IS_ALL or os.environ.get("STATE_SERVICE_EXAMPLES") == "many"


def load_profile() -> None:
    """Set the number of examples of each test that does not name its own."""
    settings.register_profile("few", max_examples=FEW, deadline=None)
    settings.register_profile("many", max_examples=MANY, deadline=None)
    settings.register_profile("all", max_examples=ALL, deadline=None)
    settings.load_profile("all" if IS_ALL else "many" if IS_MANY else "few")


def examples(many: int, few: int) -> int:
    """The number of examples of a property for which the profile's number is too many or too few."""
    return many if IS_MANY else few
