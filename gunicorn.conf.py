"""gunicorn's settings, from the service's own (see docs/settings.md): `gunicorn -c gunicorn.conf.py wsgi:app`."""

import os
import signal
import sys
import threading
from pathlib import Path

# gunicorn reads this file before it looks for the application beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from app.background import release_waiters, start, stop
from app.config import find_unknown, read_config, require_auth
from app.core.errors import SettingError
from app.logs import configure_logging
from app.waiting import SharedPlaces

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
threads = _config.threads + _config.max_waiters
# A connection that is kept alive holds no thread, but counts here.
worker_connections = threads + 1000
# Shared by all workers, who are forked after this: one count of waiters each, zeroed when its worker ends.
_places = SharedPlaces()
# Not preloaded: a pool of database connections does not cross a fork.
preload_app = False
graceful_timeout = 30
keepalive = 75
# gunicorn's own control socket would be one more door; nothing here uses it.
control_socket_disable = True


def post_worker_init(worker):
    """Start what works beside the requests, and have SIGTERM answer those who wait instead of keeping them."""
    start(worker.wsgi, _places.own(worker.age))
    end = worker.handle_exit

    def release_and_end(signum, frame):
        # Not in the handler itself: it may have interrupted a thread that holds the very lock this needs.
        threading.Thread(target=release_waiters, args=(worker.wsgi,)).start()
        end(signum, frame)

    signal.signal(signal.SIGTERM, release_and_end)


def worker_exit(server, worker):
    """Stop the sweeper, so that it ends between two transactions and not within one."""
    stop(worker.wsgi)


def child_exit(server, worker):
    """Forget the waiters of a worker that is gone, however it went."""
    _places.own(worker.age).clear()
