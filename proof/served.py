"""The service as this suite serves it: `wsgi:app`, with crash points, a clock that moves and a seeded defect."""

from __future__ import annotations

import os
from pathlib import Path

from proof import clocks, crashes, defects
from wsgi import app

__all__ = ["app"]

defect = os.environ.get(defects.VARIABLE)
if defect in defects.DEFECTS:
    defects.DEFECTS[defect].seed()
elif defect:
    from proof import groups

    # It lasts as long as the process.
    seeded = groups.DEFECTS[defect]()
    next(seeded)
crashes.install(Path(os.environ[crashes.VARIABLE]))
clocks.install(Path(os.environ[crashes.VARIABLE]))
