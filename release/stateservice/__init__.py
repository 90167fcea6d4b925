"""StateService, installed as a package.

The service lies in the folder `home` as it lies in its repository, because gunicorn, alembic and the pages find their
files there. Nothing but this package is seen by other programs.
"""

import gc
import signal
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent / "home"


def main() -> None:
    """Run the program `stateservice`."""
    sys.path.insert(0, str(HOME))
    # Imported modules stay: searching them for garbage would take a quarter of a command's time.
    gc.disable()
    # Ctrl-C meanwhile ends this process at once, without a traceback.
    has_ctrl_c = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if has_ctrl_c:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from app.cli.root import installed

    if has_ctrl_c:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.freeze()
    gc.enable()
    installed()
