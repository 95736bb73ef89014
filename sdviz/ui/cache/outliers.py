"""Makes outliers for pages, keeps them, and makes the likely next ones in advance."""

import threading
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress

from sdviz.bundle import Bundle
from sdviz.outliers import Outlier, OutlierRequest
from sdviz.ui.cache.background import DEVICE_LOCK, GivenUp, Task, start
from sdviz.ui.cache.kept import Store, store

# Half the rows that the network takes at once: guidance doubles them
IMAGES_AT_ONCE = 64
# A delay in which the browser draws the page, and in which a person may leave it again
NEXT_AFTER_SEC = 0.4

# How many pictures were made: "asked" by a page, or in advance for the "next" step
made_count: Counter[str] = Counter()
_next: Task[None] | None = None
_next_is_running = threading.Event()


def make_outliers(
    bundle: Bundle,
    requests: list[OutlierRequest],
    on_progress: Callable[[float], object] | None = None,
    trajectory: bool = False,
) -> list[Outlier]:
    """Makes the pictures that are not kept yet, also of several recipes at once, and returns all in order.

    Cancels what `make_next` does.

    Args:
        on_progress: Called with the share done, 0..1, after each network call.
        trajectory: Whether to keep the x_0 prediction of each step.
    """
    if _next is not None:
        _next.cancel()
    return _make(bundle, requests, on_progress or (lambda share: None), trajectory, "asked")


def make_next(bundle: Bundle, guesses: list[list[OutlierRequest]]) -> None:
    """Makes these guesses in the background, in this order, until a page asks for pictures."""
    global _next

    def work(task: Task[None]) -> None:
        task.pause(NEXT_AFTER_SEC)
        with suppress(GivenUp):
            for requests in guesses:
                task.report(0.0)
                _next_is_running.set()
                try:
                    _make(bundle, requests, task.report, False, "next")
                finally:
                    _next_is_running.clear()

    if _next is not None:
        _next.cancel()
    _next = start("next outliers", work)


def is_making_next() -> bool:
    """Tells whether the device makes pictures in advance, which it stops within one network call."""
    return _next_is_running.is_set()


def _make(
    bundle: Bundle,
    requests: list[OutlierRequest],
    on_progress: Callable[[float], object],
    trajectory: bool,
    why: str,
) -> list[Outlier]:
    kept: Store[Outlier] = store("outliers")
    keys: list[Hashable] = [
        (bundle.hash, one.id, one.image.tobytes(), one.target_label, one.recipe, trajectory) for one in requests
    ]
    found = {key: kept.get(key) for key in keys}
    missing = [(key, one) for key, one in dict(zip(keys, requests, strict=True)).items() if found[key] is None]
    for first in range(0, len(missing), IMAGES_AT_ONCE):
        part = missing[first : first + IMAGES_AT_ONCE]

        def on_step(share: float, before: int = first, n: int = len(part)) -> None:
            on_progress((before + share * n) / len(missing))

        with DEVICE_LOCK:
            made = bundle.generate_together([one for _, one in part], on_step, trajectory)
        made_count[why] += len(part)
        found |= {key: kept.put(key, one) for (key, _), one in zip(part, made, strict=True)}
    return [one for one in (found[key] for key in keys) if one is not None]
