"""Work behind a page, one task at a time, that a program does not wait for when it ends."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """Runs tasks in the order they came in one thread, begun with the first.

    `concurrent.futures` waits for its threads when the program ends: minutes, for a t-SNE that nobody wants any
    more. This one's thread is a daemon.
    """

    def __init__(self, name: str) -> None:
        """Starts nothing yet.

        Args:
            name: Of the thread.
        """
        self._name = name
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
            self._tasks.get()()
