"""gunicorn's settings, from the service's own (see docs/settings.md): `gunicorn -c gunicorn.conf.py wsgi:app`."""

import os
import sys
from pathlib import Path

# gunicorn reads this file before it looks for the application beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from app.background import start, stop  # noqa: E402  the path above comes first
from app.config import find_unknown, read_config, require_auth  # noqa: E402  the same
from app.core.errors import SettingError  # noqa: E402  the same
from app.logs import configure_logging  # noqa: E402  the same

try:
    _config = read_config(os.environ)
    require_auth(_config)
    configure_logging(_config.logger)
except SettingError as error:
    sys.exit(str(error))
for _variable in find_unknown(os.environ):
    sys.stderr.write(f"state_service: warning: {_variable} is no setting of this service\n")

bind = _config.bind
workers = _config.workers
# Threads, because a waiting request must not hold a worker; they are started only when they are needed.
worker_class = "gthread"
threads = _config.threads
# A connection that is kept alive holds no thread, but counts here.
worker_connections = threads + 2000
# Not preloaded: a pool of database connections does not cross a fork.
preload_app = False
graceful_timeout = 30
keepalive = 75
# gunicorn's own control socket would be one more door; nothing here uses it.
control_socket_disable = True


def post_worker_init(worker):
    """Start the sweeper once the worker has its application."""
    start(worker.wsgi)


def worker_exit(server, worker):
    """Stop the sweeper, so that it ends between two transactions and not within one."""
    stop(worker.wsgi)
