"""The service as this suite serves it: `wsgi:app`, with crash points and, where one is named, a seeded defect."""

from __future__ import annotations

import os
from pathlib import Path

from proof import crashes, defects
from wsgi import app

__all__ = ["app"]

if os.environ.get(defects.VARIABLE):
    defects.DEFECTS[os.environ[defects.VARIABLE]]()
crashes.install(Path(os.environ[crashes.VARIABLE]))
