from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from sdviz.ui.cache.worker import Worker
from tests.patience import patience


def test_tasks_run_one_at_a_time_in_their_order() -> None:
    worker, seen, busy = Worker("test"), [], threading.Lock()

    def task(i: int) -> int:
        assert busy.acquire(blocking=False)
        time.sleep(0.005)
        seen.append((i, threading.current_thread().name))
        busy.release()
        return i * i

    futures = [worker.submit(task, i) for i in range(8)]
    assert [one.result(10) for one in futures] == [i * i for i in range(8)]
    assert seen == [(i, "test") for i in range(8)]


def test_what_a_task_raises_is_raised_where_its_result_is_asked_for() -> None:
    worker = Worker("test")
    failed, after = worker.submit(int, "x"), worker.submit(int, "7")
    with pytest.raises(ValueError, match="invalid literal"):
        failed.result(10)
    assert after.result(10) == 7


def test_a_cancelled_task_is_left_out() -> None:
    worker, gate, ran = Worker("test"), threading.Event(), []
    first, second = worker.submit(gate.wait, 10), worker.submit(ran.append, 1)
    assert second.cancel()
    gate.set()
    assert first.result(10) and worker.submit(len, ran).result(10) == 0


def test_the_program_does_not_wait_for_a_task_when_it_ends() -> None:
    code = (
        "import time; from sdviz.ui.cache.worker import Worker; w = Worker('slow', in_parts=False); "
        "w.submit(time.sleep, 60); time.sleep(0.1); print('ended', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=patience(30))
    assert done.stdout == "ended\n" and done.returncode == 0


def test_the_end_waits_for_the_part_in_hand_and_begins_no_other() -> None:
    code = """
import time
from sdviz.ui.cache.worker import ENDING, Worker

def in_parts():
    while not ENDING.is_set():
        time.sleep(0.2)
    print("part ended", flush=True)

worker = Worker("parts")
worker.submit(in_parts)
worker.submit(print, "another task", flush=True)
time.sleep(0.1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=patience(30))
    assert done.stdout == "part ended\n" and done.returncode == 0
