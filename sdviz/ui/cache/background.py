"""Runs work in the background, in the lanes of `LANES`. Each lane does one task at a time.

At the end of the program each running task and each page that is being drawn is stopped at its next line of
Python and waited for: a thread that is killed in torch's C++ code crashes the process ("terminate called
without an active exception").
"""

from __future__ import annotations

import atexit
import ctypes
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from sdviz.ui.cache.kept import is_in_use

T = TypeVar("T")

# The device does one thing at a time
DEVICE_LOCK = threading.Lock()


def let_others_compute() -> None:
    """Lets waiting threads take `DEVICE_LOCK` between two parts of long work that holds it."""
    DEVICE_LOCK.release()
    time.sleep(0.002)
    DEVICE_LOCK.acquire()


# A page that waits for a task asks at least this often
_ASKS_EVERY_SEC = 10.0
_STOP_AGAIN_SEC = 2.0
# Streamlit's name of the threads in which pages run
_PAGE_THREAD = "ScriptRunner.scriptThread"
TRIM_EVERY_SEC = 5.0


# All lanes, with the time in seconds that the end of the program waits for each; None is for ever
LANES: dict[str, float | None] = {
    "start": None,  # loads all modules and the first bundle while the server starts
    "browser": 0.0,  # opens the browser when the server starts; a text browser runs until a person ends it
    "memory": None,  # returns freed memory to the system, every few seconds
    "next outliers": None,  # makes the pictures for the next step of a slider of the lab
    "search": None,  # finds the neighbours of all scored images
    "outliers of points": None,  # makes pictures of the hover card that no file keeps
    "layouts": None,  # computes t-SNE and UMAP
    "estimates": None,  # measures how long a new run will take
    "checks": None,  # looks for copies in the images of a new run
    "downloads": 5.0,  # downloads data sets; it may wait for a silent server, and runs no C++ code
}


class GivenUp(ValueError):
    """The result of a task is no longer wanted."""


class _Ending(SystemExit):
    """Raised in a task or a page when the program ends."""


class Task(Generic[T]):
    """A piece of work in a lane. The work is called with its task, and reports the share done, 0..1."""

    def __init__(self, work: Callable[[Task[T]], T], bundle_hash: str | None) -> None:
        self.share = 0.0
        self._work, self._bundle_hash = work, bundle_hash
        self._future: Future[T] = Future()
        self._started_at: float | None = None
        self._asked_at = time.monotonic()
        self._asked = threading.Event()
        self._is_cancelled = False

    # --- for pages --------------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Tells whether it has not begun."""
        return self._started_at is None

    @property
    def is_done(self) -> bool:
        """Tells whether it has ended, with a result or an error."""
        return self._future.done()

    @property
    def elapsed_sec(self) -> float:
        """The time since it began."""
        return 0.0 if self._started_at is None else time.monotonic() - self._started_at

    @property
    def error(self) -> BaseException | None:
        """The exception that ended it, None for none."""
        return self._future.exception() if self.is_done else None

    def wait(self, seconds: float) -> bool:
        """Waits at most that long, and notes that the result is wanted. Returns whether it is done."""
        self._asked_at = time.monotonic()
        self._asked.set()
        try:
            self._future.exception(seconds)
        except TimeoutError:
            return False
        return True

    def result(self) -> T:
        """Returns the result of a task that is done, or raises its exception."""
        return self._future.result(0)

    def cancel(self) -> None:
        """Makes it give up at its next report."""
        self._is_cancelled = True

    # --- for the work -----------------------------------------------------------------------------

    def report(self, share: float) -> None:
        """Notes the share done. Raises GivenUp: cancelled, or two other bundles were opened since."""
        self.share = share
        if self._is_cancelled:
            raise GivenUp("it was cancelled")
        if self._bundle_hash is not None and not is_in_use(self._bundle_hash):
            raise GivenUp("it was given up: two other bundles have been opened since")

    def pause(self, seconds: float) -> None:
        """Waits until somebody waits for the result, at most that long."""
        self._asked.wait(seconds)

    @property
    def is_wanted(self) -> bool:
        """Tells whether a page began it or waited for it in the last seconds."""
        return time.monotonic() - self._asked_at < _ASKS_EVERY_SEC

    def run(self) -> None:
        """Does the work, in the thread of the lane."""
        self._started_at = time.monotonic()
        try:
            result = self._work(self)
        except BaseException as error:  # noqa: BLE001 - for whoever asks for the result
            self._future.set_exception(error)
        else:
            self._future.set_result(result)


class _Thread:
    """The thread of a lane, started with its first task."""

    def __init__(self, name: str) -> None:
        self._end_sec = LANES[name]
        self._tasks: queue.SimpleQueue[Task[Any] | None] = queue.SimpleQueue()
        self._current: Task[Any] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, task: Task[Any]) -> None:
        self._tasks.put(task)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None and not _is_ending:
            self._current = task
            task.run()
            # else the memory of a finished task would stay in use
            self._current = task = None

    def end(self) -> None:
        """Stops the running task and waits for it."""
        self._tasks.put(None)
        started, seconds = time.monotonic(), self._end_sec
        while self._thread.is_alive() and (seconds is None or time.monotonic() - started < seconds):
            if self._current is not None:
                self._current._asked.set()
                _raise_in(self._thread)
            # a library may catch the exception: the loop raises it again
            self._thread.join(_STOP_AGAIN_SEC if seconds is None else min(_STOP_AGAIN_SEC, seconds))


def _raise_in(thread: threading.Thread) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Ending))


_threads: dict[str, _Thread] = {}
_threads_lock = threading.Lock()
_is_ending = False


@atexit.register
def _end() -> None:
    global _is_ending
    with _threads_lock:
        _is_ending = True
    for thread in _threads.values():
        thread.end()
    # Streamlit runs pages in daemon threads, also those of AppTest
    for page in [one for one in threading.enumerate() if one.name == _PAGE_THREAD]:
        while page.is_alive():
            _raise_in(page)
            page.join(_STOP_AGAIN_SEC)


def start(lane: str, work: Callable[[Task[T]], T], bundle_hash: str | None = None) -> Task[T]:
    """Puts work in a lane. With a bundle's hash it gives up when two other bundles have been opened.

    Once the program ends, nothing is begun: whoever asks is ended, too.
    """
    task = Task(work, bundle_hash)
    with _threads_lock:
        if _is_ending:
            raise _Ending
        if lane not in _threads:
            _threads[lane] = _Thread(lane)
        _threads[lane].add(task)
    return task


def trim_memory(task: Task[None]) -> None:
    """Returns freed memory to the system every few seconds, until the program ends.

    Each run of a page is a new thread with its own heap, where glibc keeps freed memory: 100 to 200 MiB after
    five bundles. Without glibc it ends at once.
    """
    while trim_once():
        task.pause(TRIM_EVERY_SEC)


def trim_once() -> bool:
    """Trims the heaps. Returns whether this machine's C library can."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return False
    return True
