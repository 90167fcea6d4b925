"""gunicorn's settings, from the service's own (see docs/settings.md): `gunicorn -c gunicorn.conf.py wsgi:app`."""

import atexit
import os
import signal
import sys
from pathlib import Path

# gunicorn reads this file before it looks for the application beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from app.metric_files import prepare_folder, remove_folder

# The metrics library reads where to count when it is first imported: by app.serving, below.
try:
    _folder = prepare_folder()
except OSError as error:
    sys.exit(f"state_service: no folder for temporary files can be written ({error}); set TMPDIR to one")
if _folder is not None:
    atexit.register(remove_folder, _folder, os.getpid())

from app.config import find_unknown, read_config, require_auth
from app.core.errors import SettingError
from app.db.engine import normalize_url
from app.limits import allow_connections, list_shortages
from app.logs import configure_logging
from app.serving import GunicornLogger, Worker, forget_worker
from app.waiting.places import SharedPlaces

try:
    _config = read_config(os.environ)
    require_auth(_config)
    normalize_url(_config.database_url)
    configure_logging(_config.logger)
except SettingError as error:
    sys.stderr.write(f"{error}\n")
    sys.exit(2)
if _config.machine_header and not _config.proxy_hops:
    _warning = "STATE_SERVICE_MACHINE_HEADER is not read while STATE_SERVICE_PROXY_HOPS is 0"
    sys.stderr.write(f"state_service: warning: {_warning}\n")
for _variable in find_unknown(os.environ):
    sys.stderr.write(f"state_service: warning: unknown setting {_variable}\n")

logger_class = GunicornLogger
# gunicorn would take one text with commas for one address.
bind = [address.strip() for address in _config.bind.split(",")]
workers = _config.workers
worker_class = Worker
# A waiting request is an open connection; so is one that is kept alive between two requests.
_wanted = _config.max_waiters + 2000
worker_connections = allow_connections(_config, _wanted)
for _warning in list_shortages(_config, _wanted, worker_connections):
    sys.stderr.write(f"state_service: warning: {_warning}\n")
# Shared by all workers, which are forked after this: one count of waiters each, zeroed when its worker ends.
Worker.places = SharedPlaces()
# Not preloaded: a pool of database connections does not cross a fork.
preload_app = False
graceful_timeout = 30
keepalive = 75
# A caller that hangs up is no waiter: what is done for it ends at once.
asgi_disconnect_grace_period = 0
asgi_lifespan = "off"
# The longest target that is a good one has a note of 1,000 characters, 12 bytes each. There is room for more, so that a
# parameter that is far too long is refused in the service's words.
limit_request_line = 65536
# Of what a proxy says, only STATE_SERVICE_PROXY_HOPS tells how much is believed; gunicorn would believe every client on
# this machine.
forwarded_allow_ips = ""
# ... and over a Unix socket, every client.
secure_scheme_headers = {}
forwarder_headers = ""
# gunicorn's own control socket would be one more door; nothing here uses it.
control_socket_disable = True


def when_ready(server):
    """End with the terminal that this server was started on: a hang-up is a reload only if nobody has hung up."""

    def handle_hang_up(number, frame):
        has_hung_up = has_terminal and not os.isatty(0)
        server.signal(signal.SIGTERM if has_hung_up else number, frame)

    has_terminal = os.isatty(0)
    signal.signal(signal.SIGHUP, handle_hang_up)


def post_fork(server, worker):
    """Keep what the worker was told before it could listen."""
    worker.signals_at_birth = server.SIG_QUEUE


def child_exit(server, worker):
    """Forget what the master knows of a worker that is gone."""
    forget_worker(worker)
