"""The start of the server: loads what the first page needs before anybody asks for it."""

import asyncio
import gc
import importlib
import logging
import threading
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import streamlit as st
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from sdviz.ui.cache import background

LOG = logging.getLogger(__name__)
HEALTH = "/_stcore/health"
# A slow machine shows pages after this time, even if not everything is loaded
LONGEST_HOLD_SEC = 60.0
# The server listens once `lifespan` has yielded
LISTENS_AFTER_SEC = 0.3
# Slow to import, and needed by a page
MODULES = (
    "sdviz.ui.home",
    *(f"sdviz.ui.{page}.page" for page in ("lab", "pseudo_labels", "embeddings", "sample_votes")),
    *(f"sdviz.ui.{page}.page" for page in ("failures", "results", "training")),
    "sdviz.pipeline",
    "sklearn.datasets",
    "sklearn.decomposition",
    "sklearn.manifold",
)


class Start:
    """Loads in the background, and delays the answer to the health check until all is loaded.

    A browser asks for the server's health before it connects. Meanwhile it fetches Streamlit's own files.
    """

    def __init__(self) -> None:
        self._ready = threading.Event()

    @property
    def is_ready(self) -> bool:
        """Whether all is loaded, or loading has failed."""
        return self._ready.is_set()

    def begin(self) -> None:
        """Starts loading without waiting for it."""
        background.start("memory", background.trim_memory)
        background.start("start", lambda task: self._load())

    def _load(self) -> None:
        try:
            for name in MODULES:
                importlib.import_module(name)
            from sdviz.ui.preload import open_first_bundle

            open_first_bundle()
        except Exception:  # the page that meets the same error shows it
            LOG.debug("Loading at the start has failed", exc_info=True)
        finally:
            # Streamlit collects garbage after each run of a page: the million objects of torch and pandas would
            # make that half a second
            gc.collect()
            gc.freeze()
            self._ready.set()

    @asynccontextmanager
    async def lifespan(self, app: st.App) -> AsyncIterator[None]:
        """For `streamlit.App`: starts loading, and opens the browser unless the server is headless."""
        self.begin()
        if not st.get_option("server.headless"):
            background.start("browser", _open_browser)
        yield

    def middleware(self) -> list[Middleware]:
        """For `streamlit.App`: delays the answer to the health check."""
        return [Middleware(_HoldHealth, self)]


def _open_browser(task: background.Task[bool]) -> bool:
    task.pause(LISTENS_AFTER_SEC)
    return webbrowser.open(f"http://{st.get_option('browser.serverAddress')}:{st.get_option('server.port')}")


class _HoldHealth:
    def __init__(self, app: ASGIApp, start: Start) -> None:
        self._app, self._start = app, start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == HEALTH:
            held_sec = 0.0
            while not self._start.is_ready and held_sec < LONGEST_HOLD_SEC:
                await asyncio.sleep(0.02)
                held_sec += 0.02
        await self._app(scope, receive, send)
