"""Work behind a page, one task at a time, that a program does not wait for when it ends."""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# The program ends: work made of parts begins no other one
ENDING = threading.Event()
# so long an end waits for a part; a thread that is stopped within torch's C++ takes the whole process down
_PART_SEC = 10.0
_idle: list[threading.Event] = []


@atexit.register
def _end() -> None:
    ENDING.set()
    until = time.monotonic() + _PART_SEC
    for one in _idle:
        one.wait(max(0.0, until - time.monotonic()))


class Worker:
    """Runs tasks in the order they came in one thread, begun with the first.

    `concurrent.futures` waits for its threads when the program ends: minutes, for a t-SNE that nobody wants any
    more. This one's thread is a daemon.
    """

    def __init__(self, name: str, in_parts: bool = True) -> None:
        """Starts nothing yet.

        Args:
            name: Of the thread.
            in_parts: Whether tasks look at `ENDING` between parts of at most seconds, or take no longer. The
                program's end waits for such a part, and not for a task that takes minutes.
        """
        self._name = name
        self._is_idle = threading.Event()
        self._is_idle.set()
        if in_parts:
            _idle.append(self._is_idle)
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, task: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Puts a task in the queue; the future gives its result or what it raised."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = task(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for the result
                future.set_exception(error)
            else:
                future.set_result(result)

        self._tasks.put(run)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
        return future

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            self._is_idle.clear()  # before it looks: the program's end sets `ENDING`, and then waits for this
            try:
                if ENDING.is_set():
                    return
                task()
            finally:
                self._is_idle.set()
            del task
