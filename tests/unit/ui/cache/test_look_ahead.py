from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from sdviz.bundle import Bundle
from sdviz.ui import cache
from sdviz.ui.cache import Edit, look_ahead, make_edits, outlier_store
from tests.patience import patience


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cache, "_LOOK_AHEAD_AFTER_SEC", 0.0)
    outlier_store.clear()
    yield
    outlier_store.clear()


@pytest.fixture
def edits(
    tiny_bundle: Callable[..., Bundle], tiny_images: Callable[..., np.ndarray]
) -> tuple[Bundle, list[Edit]]:
    bundle = tiny_bundle()
    recipe = bundle.recipe(100, 2.0, 10)
    return bundle, [Edit(f"{i}", one, 0, 1, recipe) for i, one in enumerate(tiny_images(3))]


def at_s(edits: list[Edit], s: int) -> list[Edit]:
    return [replace(one, recipe=replace(one.recipe, start_timestep=s)) for one in edits]


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def kept() -> int:
    return len(outlier_store()._kept)


def test_what_was_made_ahead_is_what_would_be_made(edits: tuple[Bundle, list[Edit]]) -> None:
    bundle, now = edits
    look_ahead(bundle, [at_s(now, 105), at_s(now, 95)])
    wait_until(lambda: kept() == 6 and not cache.is_looking_ahead())
    assert outlier_store().misses == 0  # nobody asked for them
    ahead = make_edits(bundle, at_s(now, 105))
    assert outlier_store().misses == 0
    outlier_store.clear()
    asked = make_edits(bundle, at_s(now, 105))
    assert outlier_store().misses == 3
    for one, other in zip(ahead, asked, strict=True):
        assert np.array_equal(one.outlier, other.outlier)


def test_it_gives_way_to_who_asks(edits: tuple[Bundle, list[Edit]], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, now = edits
    entered, may_go_on = threading.Event(), threading.Event()
    make = bundle.generate_together
    calls: list[int] = []

    def slow(requests: object, on_step: Callable[..., None]) -> object:
        def stop_at_the_third(part: int, step: int, x_t: object, x_0: object) -> None:
            calls.append(step)
            if len(calls) == 3:
                entered.set()
                assert may_go_on.wait(patience(60))
            on_step(part, step, x_t, x_0)

        return make(requests, stop_at_the_third)  # type: ignore[arg-type]

    monkeypatch.setattr(bundle, "generate_together", slow)
    look_ahead(bundle, [at_s(now, 105), at_s(now, 95)])
    assert entered.wait(patience(60)) and cache.is_looking_ahead()
    monkeypatch.setattr(bundle, "generate_together", make)
    found: list[object] = []
    person = threading.Thread(target=lambda: found.extend(make_edits(bundle, now)))
    times = cache._ASKED.times
    person.start()
    wait_until(lambda: cache._ASKED.times > times)
    may_go_on.set()
    person.join(patience(60))
    assert len(found) == 3
    wait_until(lambda: not cache.is_looking_ahead())
    assert len(calls) == 3 and kept() == 3  # neither guess was ended, nor the second begun
