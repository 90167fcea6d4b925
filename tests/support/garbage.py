"""Python's collector of garbage does not look for it while pytest collects: of seven thousand tests, all are kept."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

# From here on, the tests' modules and the application are imported.
gc.disable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[None]:
    try:
        result: Any = yield
    finally:
        # What there is now is not looked at again, however often there is a look for what tests leave.
        gc.freeze()
        gc.enable()
    return result
