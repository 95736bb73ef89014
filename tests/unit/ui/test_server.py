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


def ask(start: Start, path: str, kind: str = "http") -> asyncio.Task[None]:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        await send({"path": scope["path"]})

    async def receive() -> dict[str, str]:
        return {}

    async def send(message: Any) -> None:  # noqa: ANN401
        assert message == {"path": path}

    (middleware,) = start.middleware()
    held = middleware.cls(app, *middleware.args)
    return asyncio.create_task(held({"type": kind, "path": path}, receive, send))


def test_only_the_answer_on_health_waits_and_comes_when_all_is_loaded() -> None:
    async def scene() -> None:
        start = Start()
        health, page, socket = ask(start, HEALTH), ask(start, "/"), ask(start, HEALTH, "websocket")
        await asyncio.sleep(0.1)
        assert page.done() and socket.done() and not health.done()
        start._ready.set()
        await asyncio.wait_for(health, 5)

    asyncio.run(scene())


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_HOLD_SEC", 0.1)

    async def scene() -> None:
        await asyncio.wait_for(ask(Start(), HEALTH), 5)

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
