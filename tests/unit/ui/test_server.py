from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from sdviz.ui import server as module
from sdviz.ui.server import HEALTH, Start


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


HTML = [(b"accept", b"text/html,application/xhtml+xml;q=0.9")]


def ask(
    start: Start, path: str, kind: str = "http", headers: list[tuple[bytes, bytes]] | None = None
) -> asyncio.Task[tuple[int, str]]:
    """Status and text of the answer, (0, path) where it is the app's own."""

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        await send({"type": "own", "path": scope["path"]})

    async def receive() -> dict[str, str]:
        return {}

    async def answered() -> tuple[int, str]:
        messages: list[Any] = []

        async def send(message: Any) -> None:  # noqa: ANN401
            messages.append(message)

        (middleware,) = start.middleware()
        scope = {"type": kind, "path": path, "headers": headers or []}
        await middleware.cls(app, *middleware.args)(scope, receive, send)
        if messages[0]["type"] == "own":
            return 0, str(messages[0]["path"])
        return int(messages[0]["status"]), b"".join(one.get("body", b"") for one in messages[1:]).decode()

    return asyncio.create_task(answered())


def test_while_loading_a_visit_is_told_so_at_once_and_health_waits_until_all_is_loaded() -> None:
    async def scene() -> None:
        start = Start()
        health, socket = ask(start, HEALTH), ask(start, HEALTH, "websocket")
        page, script = ask(start, "/Training", headers=HTML), ask(start, "/static/js/index.js")
        await asyncio.sleep(0.1)
        assert not health.done()
        status, text = page.result()
        assert status == 503 and "sdviz is starting" in text and "opens by itself" in text
        assert socket.result() == (0, HEALTH) and script.result() == (0, "/static/js/index.js")
        start._ready.set()
        assert await asyncio.wait_for(health, 5) == (0, HEALTH)
        assert await ask(start, "/Training", headers=HTML) == (0, "/Training")

    asyncio.run(scene())


def test_health_is_answered_before_a_browser_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_HEALTH_SEC", 0.1)

    async def scene() -> None:
        assert (await asyncio.wait_for(ask(Start(), HEALTH), 5))[0] == 503

    asyncio.run(scene())


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_LOAD_SEC", 0.1)

    async def scene() -> None:
        start = Start()
        assert await asyncio.wait_for(ask(start, HEALTH), 5) == (0, HEALTH)
        assert await ask(start, "/", headers=HTML) == (0, "/")

    asyncio.run(scene())


def test_a_failure_while_loading_does_not_hold_the_server_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MODULES", ("sdviz.there_is_no_such_module",))
    start = Start()
    start._load()
    assert start.is_ready


def test_what_is_loaded_is_left_alone_by_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MODULES", ())
    monkeypatch.setattr("sdviz.ui.preload.open_first_bundle", lambda: None)
    assert gc.get_freeze_count() == 0
    Start()._load()
    assert gc.get_freeze_count() > 10_000
