"""gunicorn's settings, from the service's own (see docs/settings.md): `gunicorn -c gunicorn.conf.py wsgi:app`."""

import atexit
import gc
import os
import resource
import shutil
import signal
import sys
import tempfile
from pathlib import Path

# gunicorn reads this file before it looks for the application beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent))

# Where all workers count what /metrics sums up. The client library reads it when it is first imported: by ours, below.
# New and empty for every master, also for one that takes over from another (SIGUSR2) and inherits its environment;
# a reload (SIGHUP) reads this file again in the same master, whose workers go on counting.
_master = os.getpid()
_prefix = f"stateservice-metrics-{_master}-"
if not Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")).name.startswith(_prefix):
    try:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=_prefix)
    except OSError as error:
        sys.exit(f"state_service: a writable folder for temporary files is needed, set TMPDIR to one: {error}")


def _remove_metrics(folder):
    # Workers are forks, and end through the same door.
    if os.getpid() == _master:
        shutil.rmtree(folder, ignore_errors=True)


atexit.register(_remove_metrics, os.environ["PROMETHEUS_MULTIPROC_DIR"])

# What is imported stays: looking through it for what can go, now and again at each process's end, would take longer
# than all that is done to start and to stop.
gc.disable()

from gunicorn.glogging import Logger
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import ThreadWorker
from prometheus_client.multiprocess import mark_process_dead

from app.config import find_unknown, read_config, require_auth
from app.core.errors import SettingError
from app.db.engine import normalize_url
from app.logs import JsonFormatter, configure_logging
from app.serving import release_waiters, start, stop
from app.waiting.places import SharedPlaces
from app.web.request import REPEATED

gc.freeze()
gc.enable()

try:
    _config = read_config(os.environ)
    require_auth(_config)
    normalize_url(_config.database_url)
    configure_logging(_config.logger)
except SettingError as error:
    sys.exit(str(error))
for _variable in find_unknown(os.environ):
    sys.stderr.write(f"state_service: warning: unknown setting {_variable}\n")


# What is read of a body that nobody wanted before its connection is closed: as much as deploy/nginx.conf lets through.
# A peer whose body is cut off may never see the answer, and nginx says 502 where a PUT was done.
MAX_DRAIN = 2 * 1024 * 1024 + 65536


# What tells a process to end.
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

# Headers that say something once; gunicorn has their names in capitals.
_ONCE = {"X-MACHINE", "IDEMPOTENCY-KEY"}


class Worker(ThreadWorker):
    """gunicorn's threaded worker, but for three things.

    It sees connections off where it holds up nobody: gunicorn waits up to two seconds for a peer to close its end, on
    the thread that accepts connections. It ends at once without its master. And it ends also when it is told to in the
    moment of its birth.
    """

    # Set by post_fork: until a worker has signal handlers of its own, its master's put what comes into this copy.
    signals_at_birth = None

    def init_signals(self):
        """Listen to signals, and heed those that came before.

        gunicorn tells a worker once to stop. One that was forked in that moment would miss it and serve on, and its
        master would wait for it the whole graceful_timeout.
        """
        super().init_signals()
        while not self.signals_at_birth.empty():
            if self.signals_at_birth.get_nowait() in _STOPS:
                self.alive = False

    def handle(self, conn):
        """Handle a request, and close the connection if it is not kept, on the request's own thread."""
        is_kept = super().handle(conn)
        if not is_kept:
            close_graceful(conn.sock, max_drain=MAX_DRAIN)
            # The main thread has only to count it out.
            conn.close = lambda graceful=False: None
        return is_kept

    def is_parent_alive(self):
        """False where the master is gone; no connection is kept any longer, nor does anybody wait.

        Else a busy client would keep the orphan, and with it the port, for the whole graceful_timeout.
        """
        is_alive = super().is_parent_alive()
        if not is_alive:
            self.alive = False
            release_waiters(self.wsgi)
        return is_alive


class JsonLogger(Logger):
    """gunicorn's own log, in the form of this service's: one JSON object a line."""

    def setup(self, cfg):
        """Set gunicorn's log up, and give it our format."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(JsonFormatter())


logger_class = JsonLogger
# gunicorn would take one text with commas for one address.
bind = [address.strip() for address in _config.bind.split(",")]
workers = _config.workers
# Threads, because a waiting request must not hold a worker; they are started only when they are needed.
worker_class = Worker
threads = _config.threads + _config.max_waiters
# A connection that is kept alive holds no thread, but counts here.
worker_connections = threads + 1000
# A waiter is an open connection, and the usual soft limit on open files, 1,024, would end a worker that has more.
_files = worker_connections + _config.pool_size + 200
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if _hard != resource.RLIM_INFINITY and _hard < _files:
    sys.stderr.write(f"state_service: warning: {_hard} open files (ulimit -Hn) are too few, {_files} may be needed\n")
    _files = _hard
if _soft != resource.RLIM_INFINITY and _soft < _files:
    resource.setrlimit(resource.RLIMIT_NOFILE, (_files, _hard))
# Shared by all workers, who are forked after this: one count of waiters each, zeroed when its worker ends.
_places = SharedPlaces()
# Not preloaded: a pool of database connections does not cross a fork.
preload_app = False
graceful_timeout = 30
keepalive = 75
# The most there is: a parameter that is far too long is refused in the service's words, not in gunicorn's.
limit_request_line = 8190
# Of what a proxy says only ProxyFix believes anything, and that as STATE_SERVICE_PROXY_HOPS has it; gunicorn would
# believe whoever connects from this machine.
forwarded_allow_ips = ""
# ... and over a Unix socket, anybody.
secure_scheme_headers = {}
forwarder_headers = ""
# gunicorn's own control socket would be one more door; nothing here uses it.
control_socket_disable = True


def pre_request(worker, req):
    """Note which of our headers were sent more than once: WSGI joins them, and two machines would become a third."""
    names = [name for name, _ in req.headers if name in _ONCE]
    if repeated := {name for name in names if names.count(name) > 1}:
        req.headers.append((REPEATED, " ".join(repeated)))


def post_fork(server, worker):
    """Keep what the worker was told before it could listen."""
    worker.signals_at_birth = server.SIG_QUEUE


def post_worker_init(worker):
    """Start what works beside the requests, and have a stop answer those who wait instead of keeping them."""
    start(worker.wsgi, _places.own(worker.age))
    end = worker.handle_exit

    def release_and_end(signum, frame):
        release_waiters(worker.wsgi)
        end(signum, frame)

    # Ctrl-C reaches a worker as SIGINT from the terminal and as SIGQUIT from the master, and to gunicorn both mean to
    # drop every request. Nobody waits any longer, so ending in order takes no time.
    for number in _STOPS:
        signal.signal(number, release_and_end)


def worker_exit(server, worker):
    """Stop the sweeper, so that it ends between two transactions and not within one."""
    # A worker that could not load its application has none.
    stop(getattr(worker, "wsgi", None))


def child_exit(server, worker):
    """Forget the waiters of a worker that is gone, however it went; what it has counted stays."""
    _places.own(worker.age).clear()
    mark_process_dead(worker.pid)
