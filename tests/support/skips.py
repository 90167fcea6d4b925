"""A run that must not skip a test fails if it skips one: with `CI=true` or `STATE_SERVICE_NO_SKIPS=1`."""

from __future__ import annotations

import os
from typing import Any

import pytest


def must_not_skip() -> bool:
    return os.environ.get("CI") == "true" or os.environ.get("STATE_SERVICE_NO_SKIPS") == "1"


def skipped_count(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", [])) if reporter else 0


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turn a run with skipped tests into a failed one; under xdist only the controller has a reporter."""
    if must_not_skip() and skipped_count(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    count = skipped_count(config)
    if must_not_skip() and count:
        terminalreporter.write_line(f"FAILED: {count} skipped, and nothing may be skipped here (CI=true)", red=True)
