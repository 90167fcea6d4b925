"""The service as this suite serves it: `wsgi:app`, with crash points, a clock that moves and a seeded defect."""

from __future__ import annotations

import os
from pathlib import Path

from proof import clocks, crashes, defects
from wsgi import app

__all__ = ["app"]

if os.environ.get(defects.VARIABLE):
    defects.DEFECTS[os.environ[defects.VARIABLE]].seed()
crashes.install(Path(os.environ[crashes.VARIABLE]))
clocks.install(Path(os.environ[crashes.VARIABLE]))
