"""gunicorn.conf.py for an application that is not this service: all of it but the hooks, which want the service."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_HOOKS = ("post_worker_init", "worker_exit", "child_exit")
_spec = spec_from_file_location("shipped", Path(__file__).resolve().parent.parent / "gunicorn.conf.py")
_shipped = module_from_spec(_spec)
_spec.loader.exec_module(_shipped)
globals().update({name: value for name, value in vars(_shipped).items() if name[0] != "_" and name not in _HOOKS})
