"""gunicorn with something of it, or of the service, broken: what a proof must not call proven."""

from __future__ import annotations

from pathlib import Path

from tests.support.servers import GUNICORN, ROOT

_CONFIG = ROOT / "gunicorn.conf.py"


def broken(folder: Path, patch: str) -> list[str]:
    """The command that serves as ever, once the Python of `patch` has run after gunicorn.conf.py."""
    config = folder / "broken.conf.py"
    config.write_text(f"__file__ = {str(_CONFIG)!r}\nexec(open(__file__).read())\n{patch}\n")
    return [str(config) if word == str(_CONFIG) else word for word in GUNICORN]
