from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sdviz.nn.fastest import cache_folder, fastest, processor


def work(n: int, calls: list[int]) -> Callable[[], Callable[[], object]]:
    """A way that takes time in proportion to n."""

    def make() -> Callable[[], object]:
        def call() -> None:
            calls.append(n)
            sum(range(n * 100_000))

        return call

    return make


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDVIZ_CACHE", str(tmp_path / "cache"))


def test_the_fastest_is_measured_once() -> None:
    calls: list[int] = []
    ways = {"slow": work(8, calls), "fast": work(1, calls), "middling": work(4, calls)}
    assert fastest("sums", ways) == "fast"
    kept = json.loads((cache_folder() / "fastest.json").read_text())
    ((key, found),) = kept.items()
    assert processor() in key and torch.__version__ in key and "sums" in key
    assert found["milliseconds"]["fast"] < found["milliseconds"]["middling"] < found["milliseconds"]["slow"]
    # what is far behind is not tried again
    assert calls.count(8) < calls.count(1)
    measured = len(calls)
    assert fastest("sums", ways) == "fast" and len(calls) == measured
    fastest("other sums", ways)
    assert len(calls) > measured and len(json.loads((cache_folder() / "fastest.json").read_text())) == 2


@pytest.mark.parametrize(("first_sec", "taken"), [(1.0, "first"), (1.05, "first"), (1.2, "second")])
def test_of_about_equally_fast_ways_the_first_is_taken(
    first_sec: float, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdviz.nn.fastest._seconds", lambda call: call())
    assert fastest("equal", {"first": lambda: lambda: first_sec, "second": lambda: lambda: 1.0}) == taken


def test_a_name_that_there_is_no_longer_is_measured_again() -> None:
    assert fastest("sums", {"old": work(1, [])}) == "old"
    assert fastest("sums", {"new": work(1, [])}) == "new"


def test_the_number_of_threads_is_what_it_was() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    seen: list[int] = []
    fastest("threads", {"one": lambda: lambda: seen.append(torch.get_num_threads())})
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert set(seen) == {1} and after == 3


def test_where_nothing_can_be_kept_the_first_way_is_taken_unmeasured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SDVIZ_CACHE", str(tmp_path / "file" / "cache"))
    calls: list[int] = []
    assert fastest("sums", {"slow": work(8, calls), "fast": work(1, calls)}) == "slow" and not calls


def test_processes_that_ask_together_get_one_answer() -> None:
    code = """
from sdviz.nn.fastest import fastest
print(fastest("race", {name: lambda: (lambda: sum(range(10_000))) for name in ("a", "b", "c")}))
"""
    asked = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    answers = {process.communicate()[0] for process in asked}
    assert all(process.returncode == 0 for process in asked) and len(answers) == 1
    assert len(json.loads((cache_folder() / "fastest.json").read_text())) == 1
