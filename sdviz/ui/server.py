"""The server's start: loads what the first page needs before anybody asks for it."""

from __future__ import annotations

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

from sdviz.ui.cache.memory import begin_tidying

LOG = logging.getLogger(__name__)
HEALTH = "/_stcore/health"
# A machine so slow that it has not loaded all by then shows its pages as they come
PATIENCE_SEC = 60.0
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
    """Loads in the background of a server that is up already.

    The browser fetches Streamlit's own files meanwhile and shows an empty page. It asks for the server's health
    before it connects: that answer waits until all is loaded, as a probe of readiness does.
    """

    def __init__(self) -> None:
        """Begins nothing."""
        self._ready = threading.Event()

    @property
    def is_ready(self) -> bool:
        """Whether all is loaded, or could not be."""
        return self._ready.is_set()

    def begin(self) -> None:
        """Starts loading in a thread; does not wait."""
        begin_tidying()
        threading.Thread(target=self._load, name="start", daemon=True).start()

    def _load(self) -> None:
        try:
            for name in MODULES:
                importlib.import_module(name)
            from sdviz.ui.preload import open_ahead

            open_ahead()
        except Exception:  # whatever it is, the page that meets it again says it in its own words
            LOG.debug("Loading ahead of the pages stopped", exc_info=True)
        finally:
            _leave_what_is_loaded()
            self._ready.set()

    @asynccontextmanager
    async def lifespan(self, app: st.App) -> AsyncIterator[None]:
        """For `streamlit.App`: begins with the server, and opens the browser unless the server is headless."""
        self.begin()
        if not st.get_option("server.headless"):
            address = f"http://{st.get_option('browser.serverAddress')}:{st.get_option('server.port')}"
            # the server listens once this function has yielded
            opener = threading.Timer(LISTENS_AFTER_SEC, webbrowser.open, [address])
            opener.daemon = True
            opener.start()
        yield

    def middleware(self) -> list[Middleware]:
        """For `streamlit.App`: delays the answer to health checks."""
        return [Middleware(_HoldHealth, self)]


def _leave_what_is_loaded() -> None:
    """Exempts all loaded objects from garbage collection: they stay until the end.

    Streamlit collects after every run of a page. With a million objects of torch and pandas to visit
    that held the process, and so the page's own messages, for half a second each time.
    """
    gc.collect()
    gc.freeze()


class _HoldHealth:
    """Delays the answer to health checks until all is loaded."""

    def __init__(self, app: ASGIApp, start: Start) -> None:
        self._app, self._start = app, start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == HEALTH:
            waited = 0.0
            while not self._start.is_ready and waited < PATIENCE_SEC:
                await asyncio.sleep(0.02)
                waited += 0.02
        await self._app(scope, receive, send)
