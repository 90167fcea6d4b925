"""How a test starts Debian's Chromium: it runs as root too, and sends no requests of its own."""

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
    """Start the browser. If it is missing, the error names the path at which it was expected."""
    return playwright.chromium.launch(executable_path=EXECUTABLE, args=list(ARGUMENTS))
