from __future__ import annotations

import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdviz.ui.cache import background
from sdviz.ui.cache.background import LANES, GivenUp, Task, start, trim_memory, trim_once
from sdviz.ui.cache.kept import clear, note_use
from tests.patience import patience


@pytest.fixture(autouse=True)
def lane(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(LANES, "test", None)
    clear()
    yield
    clear()


def test_tasks_of_a_lane_run_one_at_a_time_in_their_order() -> None:
    seen, busy = [], threading.Lock()

    def work(i: int) -> int:
        assert busy.acquire(blocking=False)
        time.sleep(0.005)
        seen.append((i, threading.current_thread().name))
        busy.release()
        return i * i

    tasks = [start("test", lambda task, i=i: work(i)) for i in range(8)]  # type: ignore[misc]
    assert all(one.wait(patience(10)) for one in tasks)
    assert [one.result() for one in tasks] == [i * i for i in range(8)]
    assert seen == [(i, "test") for i in range(8)]


def test_what_a_task_raises_is_raised_where_its_result_is_asked_for() -> None:
    failed, after = start("test", lambda task: int("x")), start("test", lambda task: int("7"))
    assert after.wait(patience(10)) and failed.is_done
    assert isinstance(failed.error, ValueError) and after.error is None
    with pytest.raises(ValueError, match="invalid literal"):
        failed.result()
    assert after.result() == 7


def test_a_task_gives_up_when_it_is_cancelled_or_its_bundle_has_gone() -> None:
    def work(task: Task[None]) -> None:
        while True:
            task.report(0.5)
            time.sleep(0.001)

    cancelled = start("test", work)
    assert not cancelled.wait(0.05) and cancelled.share == 0.5
    cancelled.cancel()
    assert cancelled.wait(patience(10)) and isinstance(cancelled.error, GivenUp)
    note_use("a")
    of_a = start("test", work, "a")
    note_use("b")
    assert not of_a.wait(0.05)
    note_use("c")
    assert of_a.wait(patience(10))
    with pytest.raises(GivenUp, match="two other bundles have been opened since"):
        of_a.result()


def test_a_pause_ends_when_somebody_waits_for_the_result() -> None:
    task = start("test", lambda task: task.pause(60))
    time.sleep(0.05)
    assert not task.is_done and not task.is_waiting
    assert task.wait(patience(10)) and task.elapsed_sec < 20


def run(code: str) -> subprocess.CompletedProcess[str]:
    head = "import time\nfrom sdviz.ui.cache.background import LANES, start\n"
    return subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, timeout=patience(60)
    )


def test_the_end_waits_for_the_line_in_hand_however_slow_and_begins_no_other() -> None:
    # a clock that runs a thousand times too fast: whoever waits for a fixed time only has waited long enough
    done = run("""
clock = time.monotonic
time.monotonic = lambda: 1000 * clock()

def slow(task):
    try:
        time.sleep(1.5)
        print("never reached", flush=True)
    finally:
        print("part ended", flush=True)

LANES["test"] = None
start("test", slow)
start("test", lambda task: print("another task", flush=True))
time.sleep(0.2)
""")
    assert done.stdout == "part ended\n" and done.returncode == 0, done.stderr


def test_the_end_stops_work_that_would_take_minutes() -> None:
    # torch and scikit-learn under way in two lanes: a thread that is killed there aborts the process
    done = run("""
import numpy as np, torch
from sdviz.projection import LayoutSettings, compute_layouts

def in_torch(task):
    x = torch.randn(400, 400)
    while True:
        x = torch.nn.functional.softmax(x @ x, 1)

points = np.random.default_rng(0).normal(size=(1, 3000, 8)).astype(np.float32)
LANES["test"] = None
start("test", in_torch)
start("layouts", lambda task: compute_layouts(points, LayoutSettings("tsne")))
start("test", lambda task: print("another task", flush=True))
time.sleep(2)
print("ended", flush=True)
""")
    assert done.stdout == "ended\n" and done.returncode == 0, done.stderr


def test_the_end_waits_for_a_lane_that_opens_another() -> None:
    # the first lane's task is slow in one line of torch, and then asks for a lane that does not exist yet
    done = run("""
import torch

def slow(task):
    try:
        x = torch.randn(3000, 3000)
        for _ in range(3):
            x = x @ x
    finally:
        start("layouts", lambda task: print("never begun", flush=True))

LANES["test"] = LANES["other"] = None
start("test", slow)
start("other", lambda task: time.sleep(1.5))
time.sleep(0.3)
print("ended", flush=True)
""")
    assert done.stdout == "ended\n" and done.returncode == 0 and "changed size" not in done.stderr, done.stderr


def test_the_end_waits_for_a_page_that_is_slow_in_torch(tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text(
        "import torch\n"
        "x = torch.randn(400, 400)\n"
        "print('begun', flush=True)\n"
        "while True:\n"
        "    x = torch.nn.functional.softmax(x @ x, 1)\n"
    )
    done = run(f"""
import threading, torch
from streamlit.testing.v1 import AppTest

test = AppTest.from_file({str(page)!r}, default_timeout=600)
threading.Thread(target=test.run, daemon=True).start()
time.sleep(3)
print("ended", flush=True)
""")
    assert done.stdout == "begun\nended\n" and done.returncode == 0, done.stderr


def test_the_end_waits_five_seconds_at_most_for_a_server_that_is_silent() -> None:
    started = time.monotonic()
    done = run('start("downloads", lambda task: time.sleep(300)); time.sleep(0.1); print("ended", flush=True)')
    assert done.stdout == "ended\n" and done.returncode == 0, done.stderr
    assert time.monotonic() - started < patience(50)
    assert [name for name, end_sec in LANES.items() if end_sec is not None] == ["browser", "downloads"]


def test_trimming_goes_on_where_the_c_library_can_and_ends_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trim_once() is (platform.libc_ver()[0] == "glibc")
    left = [True, True, False]
    pauses: list[float] = []
    monkeypatch.setattr(background, "trim_once", lambda: left.pop(0))
    monkeypatch.setattr(Task, "pause", lambda task, seconds: pauses.append(seconds))
    trim_memory(Task(trim_memory, None))
    assert pauses == [background.TRIM_EVERY_SEC] * 2
