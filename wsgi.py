"""The application for gunicorn: `gunicorn -c gunicorn.conf.py wsgi:app`."""

from __future__ import annotations

import os
import sys

from app.config import read_config, require_auth
from app.core.errors import SettingError
from app.logs import configure_logging
from app.wiring import create_app

try:
    config = read_config(os.environ)
    require_auth(config)
    configure_logging(config.logger)
except SettingError as error:
    sys.exit(str(error))

app = create_app(config)
