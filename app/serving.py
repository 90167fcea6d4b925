"""What a serving process does besides answering: the sweeper, and watching for those who wait."""

from __future__ import annotations

import logging
import threading
from queue import SimpleQueue

from flask import Flask

from app.config import Config
from app.core.errors import StateServiceError
from app.service.context import Service
from app.service.metrics import sweep_is_done
from app.service.put import sweep
from app.waiting.hub import Hub
from app.waiting.places import Places

logger = logging.getLogger("stateservice.sweeper")


class Sweeper:
    """A thread that performs due clock guards of charts nobody asks.

    Every process runs one; the chart's row lock, and judging again under it, make each transition happen once.
    """

    def __init__(self, service: Service, seconds: float) -> None:
        self._service = service
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def stop(self) -> None:
        """End after the pass in hand."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                sweep(self._service)
                sweep_is_done()
            except StateServiceError as error:
                logger.warning("could not look for due clock guards, will try again: %s", error)
            except Exception:
                logger.exception("the sweeper failed, and will try again")


def start(app: Flask, places: Places | None = None) -> None:
    """Start what works beside the requests. Called once in each process that serves.

    `places` counts the waiters of all workers of this server; without it each process counts its own.
    """
    service: Service = app.extensions["stateservice"]
    config: Config = app.extensions["stateservice.config"]
    sweeper = Sweeper(service, config.sweep_seconds)
    app.extensions["stateservice.sweeper"] = sweeper
    if places is not None:
        service.hub.places = places
    stopping: SimpleQueue[None] = SimpleQueue()
    app.extensions["stateservice.stopping"] = stopping
    threading.Thread(target=_close_when_told, args=(stopping, service.hub), name="stopping", daemon=True).start()
    service.hub.start()
    sweeper.start()


def _close_when_told(stopping: SimpleQueue[None], hub: Hub) -> None:
    stopping.get()
    hub.close()


def release_waiters(app: Flask) -> None:
    """Answer everybody who waits, at once: the server was told to stop.

    Fit for a signal handler, which may have interrupted a thread that holds any lock: this takes none.
    """
    app.extensions["stateservice.stopping"].put(None)


def stop(app: Flask | None) -> None:
    """Stop what `start` started; nothing where it never did."""
    sweeper = None if app is None else app.extensions.get("stateservice.sweeper")
    if app is not None and sweeper is not None:
        release_waiters(app)
        sweeper.stop()
