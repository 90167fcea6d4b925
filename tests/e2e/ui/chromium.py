"""Debian's Chromium, as a test starts it: also as root, and asking nobody else for anything."""

from __future__ import annotations

import os

from playwright.sync_api import Browser, Playwright

EXECUTABLE = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def launch(playwright: Playwright) -> Browser:
    """Start the browser; a missing one is an error that says where it was looked for."""
    return playwright.chromium.launch(executable_path=EXECUTABLE, args=list(ARGUMENTS))
