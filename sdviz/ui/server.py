"""The server's start: loads everything that the first page needs before anybody asks for it."""

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
# On a machine that is slower than this, pages are shown before everything is loaded
LONGEST_HOLD_SEC = 60.0
LISTENS_AFTER_SEC = 0.3
# Slow to import, and needed by a page: some only when it is drawn
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
    """Loads in the background, and holds back the server's answer on its health until all is loaded.

    The browser asks for the server's health before it connects; meanwhile it fetches Streamlit's own files.
    """

    def __init__(self) -> None:
        self._ready = threading.Event()

    @property
    def is_ready(self) -> bool:
        """Whether all is loaded, or loading has failed."""
        return self._ready.is_set()

    def begin(self) -> None:
        """Starts loading; does not wait."""
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
            # Streamlit collects garbage after every run of a page: looking through the million objects of torch
            # and pandas held up the process for half a second each time
            gc.collect()
            gc.freeze()
            self._ready.set()

    @asynccontextmanager
    async def lifespan(self, app: st.App) -> AsyncIterator[None]:
        """For `streamlit.App`: begins with the server, and opens the browser unless the server is headless."""
        self.begin()
        if not st.get_option("server.headless"):
            address = f"http://{st.get_option('browser.serverAddress')}:{st.get_option('server.port')}"
            loop = asyncio.get_running_loop()
            # the server listens once this function has yielded
            loop.call_later(LISTENS_AFTER_SEC, lambda: loop.run_in_executor(None, webbrowser.open, address))
        yield

    def middleware(self) -> list[Middleware]:
        """For `streamlit.App`: holds back the answer on the server's health."""
        return [Middleware(_HoldHealth, self)]


class _HoldHealth:
    """Holds back the answers on the server's health until all is loaded."""

    def __init__(self, app: ASGIApp, start: Start) -> None:
        self._app, self._start = app, start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == HEALTH:
            held_sec = 0.0
            while not self._start.is_ready and held_sec < LONGEST_HOLD_SEC:
                await asyncio.sleep(0.02)
                held_sec += 0.02
        await self._app(scope, receive, send)
