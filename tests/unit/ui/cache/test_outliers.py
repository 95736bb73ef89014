from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from sdviz.bundle import Bundle
from sdviz.outliers import OutlierRequest
from sdviz.ui.cache import outliers
from sdviz.ui.cache.kept import clear, store
from sdviz.ui.cache.outliers import make_next, make_outliers
from tests.patience import patience


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(outliers, "NEXT_AFTER_SEC", 0.0)
    monkeypatch.setattr(outliers, "made_count", type(outliers.made_count)())
    clear()
    yield
    clear()


@pytest.fixture
def requests(
    tiny_bundle: Callable[..., Bundle], tiny_images: Callable[..., np.ndarray]
) -> tuple[Bundle, list[OutlierRequest]]:
    bundle = tiny_bundle()
    recipe = bundle.recipe(100, 2.0, 10)
    return bundle, [OutlierRequest(f"{i}", one, 0, 1, recipe) for i, one in enumerate(tiny_images(3))]


def at_s(requests: list[OutlierRequest], s: int) -> list[OutlierRequest]:
    return [replace(one, recipe=replace(one.recipe, start_timestep=s)) for one in requests]


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + patience(60)
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def kept() -> int:
    return len(store("outliers"))


def test_pictures_of_several_recipes_come_in_the_order_asked_and_as_the_bundle_makes_them(
    requests: tuple[Bundle, list[OutlierRequest]],
) -> None:
    bundle, now = requests
    mixed = [at_s(now, 50)[0], now[1], at_s(now, 50)[2], now[0], now[1]]
    shares: list[float] = []
    made = make_outliers(bundle, mixed, shares.append, trajectory=True)
    assert outliers.made_count["asked"] == 4, "the same picture is made once"
    assert made[1] is made[4]
    assert shares == sorted(shares) and len(shares) == 10 and shares[-1] == pytest.approx(1)
    for one, request in zip(made, mixed, strict=True):
        r = request.recipe
        alone = bundle.generate(
            request.image[None], [0], r.start_timestep, 2.0, [1], 10, r.solver, ids=[request.id]
        )
        assert np.abs(one.image.astype(int) - alone.outliers[0]).mean() < 1
        assert np.array_equal(one.noised, alone.noised[0])
        assert one.trajectory is not None and len(one.trajectory) == one.network_calls == 10
        assert np.abs(one.trajectory[-1].astype(int) - one.image).mean() < 0.01
        assert one.evaluations == alone.evaluations and one.elapsed_sec > 0
    make_outliers(bundle, mixed, trajectory=True)
    assert outliers.made_count["asked"] == 4
    assert make_outliers(bundle, mixed[:1])[0].trajectory is None


def test_what_was_made_in_advance_is_what_would_be_made(requests: tuple[Bundle, list[OutlierRequest]]) -> None:
    bundle, now = requests
    make_next(bundle, [at_s(now, 105), at_s(now, 95)])
    wait_until(lambda: kept() == 6 and not outliers.is_making_next())
    assert outliers.made_count == {"next": 6}
    in_advance = make_outliers(bundle, at_s(now, 105))
    assert outliers.made_count == {"next": 6}
    clear()
    asked = make_outliers(bundle, at_s(now, 105))
    assert outliers.made_count == {"next": 6, "asked": 3}
    for one, other in zip(in_advance, asked, strict=True):
        assert np.array_equal(one.image, other.image)


def test_it_gives_way_to_who_asks(
    requests: tuple[Bundle, list[OutlierRequest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, now = requests
    entered, may_go_on = threading.Event(), threading.Event()
    make = bundle.generate_together
    calls: list[float] = []

    def slow(requests: list[OutlierRequest], on_progress: Callable[[float], None], trajectory: bool) -> object:
        def stop_at_the_third(share: float) -> None:
            calls.append(share)
            if len(calls) == 3:
                entered.set()
                assert may_go_on.wait(patience(60))
            on_progress(share)

        return make(requests, stop_at_the_third, trajectory)

    monkeypatch.setattr(bundle, "generate_together", slow)
    make_next(bundle, [at_s(now, 105), at_s(now, 95)])
    assert entered.wait(patience(60)) and outliers.is_making_next()
    monkeypatch.setattr(bundle, "generate_together", make)
    found: list[object] = []
    person = threading.Thread(target=lambda: found.extend(make_outliers(bundle, now)))
    in_advance = outliers._next
    assert in_advance is not None
    person.start()
    wait_until(lambda: in_advance._is_cancelled)
    may_go_on.set()
    person.join(patience(60))
    assert len(found) == 3
    wait_until(lambda: not outliers.is_making_next())
    assert len(calls) == 3 and kept() == 3  # neither guess was ended, nor the second begun
