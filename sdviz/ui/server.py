"""The start of the server: loads what the first page needs before anybody asks for it."""

import asyncio
import gc
import importlib
import logging
import threading
import time
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import streamlit as st
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sdviz.ui.assets import read_asset
from sdviz.ui.cache import background

LOG = logging.getLogger(__name__)
HEALTH = "/_stcore/health"
# A slow machine shows pages after this time, even if not everything is loaded
LONGEST_LOAD_SEC = 60.0
# Streamlit's page gives up a question after 15 s, says so, and asks again 4 s later
HOLD_HEALTH_SEC = 10.0
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
    """Loads in the background; visits meanwhile get a page that says so and opens by itself.

    A page that was open before the server's start asks for the server's health. That answer waits until all is
    loaded, at most `HOLD_HEALTH_SEC`, and is 503 then.
    """

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._begun = time.monotonic()

    @property
    def is_ready(self) -> bool:
        """Whether all is loaded, or loading has failed or takes too long."""
        return self._ready.is_set() or time.monotonic() - self._begun > LONGEST_LOAD_SEC

    def begin(self) -> None:
        """Starts loading without waiting for it."""
        self._begun = time.monotonic()
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
        """For `streamlit.App`: answers visits while the server loads."""
        return [Middleware(_WhileLoading, self)]


def _open_browser(task: background.Task[bool]) -> bool:
    task.pause(LISTENS_AFTER_SEC)
    return webbrowser.open(f"http://{st.get_option('browser.serverAddress')}:{st.get_option('server.port')}")


class _WhileLoading:
    def __init__(self, app: ASGIApp, start: Start) -> None:
        self._app, self._start = app, start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self._app
        if scope["type"] == "http" and not self._start.is_ready:
            if scope["path"] == HEALTH:
                until = time.monotonic() + HOLD_HEALTH_SEC
                while not self._start.is_ready and time.monotonic() < until:
                    await asyncio.sleep(0.02)
                if not self._start.is_ready:
                    answer = PlainTextResponse("sdviz is starting", 503)
            elif "text/html" in Headers(scope=scope).get("accept", ""):  # a browser opens a page
                answer = HTMLResponse(
                    read_asset(__name__, ".html"), 503, {"Retry-After": "1", "Cache-Control": "no-store"}
                )
        await answer(scope, receive, send)
