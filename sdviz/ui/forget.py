"""Memory: what pages keep of a bundle goes when two others have been opened since."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

MOST_BUNDLES = 2
# by then the page that asked for another bundle has let go of the one before
_TIDY_AFTER_SEC = 2.0

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
    if old:
        later = threading.Timer(_TIDY_AFTER_SEC, _tidy)
        later.daemon = True
        later.start()


def is_in_use(bundle_hash: str) -> bool:
    """Whether it is one of the last two: work behind a page asks, and gives up."""
    with _lock:
        return bundle_hash in _recent


def _tidy() -> None:
    """Gives back to the system what was let go: the C library keeps it in each thread's own heap otherwise."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc has no such function
            ctypes.CDLL("libc.so.6").malloc_trim(0)
