"""Memory: what pages keep of a bundle goes when two others have been opened since."""

from __future__ import annotations

import ctypes
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_BUNDLES = 2

_forgetters: list[Callable[[str], None]] = []
_recent: OrderedDict[str, None] = OrderedDict()
_lock = threading.Lock()


def forgets(forgetter: Callable[[str], None]) -> Callable[[str], None]:
    """For a function that lets go of what is kept of the bundle with that hash; several threads may call it."""
    _forgetters.append(forgetter)
    return forgetter


def in_use(bundle_hash: str) -> None:
    """A page shows this bundle: what was kept of any but the last two is let go."""
    with _lock:
        _recent[bundle_hash] = None
        _recent.move_to_end(bundle_hash)
        old = [_recent.popitem(last=False)[0] for _ in range(len(_recent) - MOST_BUNDLES)]
    for one in old:
        for forget in _forgetters:
            forget(one)


def is_in_use(bundle_hash: str) -> bool:
    """Whether it is one of the last two: work behind a page asks, and gives up."""
    with _lock:
        return bundle_hash in _recent


def begin_tidying(every_sec: float = 5.0) -> None:
    """Gives back to the system what was let go, now and then, from a thread of its own.

    Each run of a page is a new thread with its own heap, where glibc keeps what is freed: over five bundles
    that came to 100 to 200 MiB that nobody held. Another C library is left alone.
    """
    threading.Thread(target=_tidy_for_ever, args=(every_sec,), name="tidying", daemon=True).start()


def _tidy_for_ever(every_sec: float) -> None:
    while tidy():
        time.sleep(every_sec)


def tidy() -> bool:
    """Once; whether this machine's C library can."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return False
    return True
