"""gunicorn.conf.py for an application that is not this service: gunicorn's gthread workers, 64 threads each."""

import os

bind = os.environ["STATE_SERVICE_BIND"]
workers = int(os.environ.get("STATE_SERVICE_WORKERS", "2"))
worker_class = "gthread"
threads = 64
keepalive = 75
control_socket_disable = True
