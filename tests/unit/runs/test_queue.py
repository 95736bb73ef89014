from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from sdviz.runs import Run
from sdviz.runs.queue import devices_of, runs_before
from sdviz.runs.status import write_status


def test_which_runs_come_first(three: list[Run], occupied: Callable[..., None]) -> None:
    first, second, run = three
    mine = replace(run.status(), devices=("cpu",), submitted=100.0)
    assert runs_before(run, mine) == []
    # at work on the device: ahead, whenever it was asked for
    occupied(second, "running", submitted=200.0)
    assert runs_before(run, mine) == [second]
    # in the queue: ahead where it was there before
    occupied(first, "queued", submitted=50.0)
    assert runs_before(run, mine) == [second, first]
    occupied(first, "queued", submitted=150.0)
    assert runs_before(run, mine) == [second]
    # of two at the same moment one goes first
    occupied(first, "queued", submitted=100.0)
    assert runs_before(run, mine) == [second, first]
    assert runs_before(first, first.status()) == [second]
    # another device, another machine, a dead process and a damaged folder stand in nobody's way
    occupied(second, "running", "cuda:0")
    write_status(first.status_file, replace(first.status(), state="running", host="gpu-box"))
    assert runs_before(run, mine) == []
    write_status(first.status_file, replace(first.status(), state="running", pid=2**22 + 1))
    second.status_file.write_text("{")
    assert runs_before(run, mine) == []


def test_devices_are_named_by_their_place_in_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices_of("cpu") == ("cpu",)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert devices_of("cuda") == ("cuda:0",)
    assert devices_of("auto") == ("cuda:0",)
    assert devices_of("cuda:2") == ("cuda:2",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1")
    assert devices_of("cuda:1") == ("cuda:1",)
    assert devices_of("cuda") == ("cuda:3",)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert devices_of("cuda") == ("cuda:3", "cuda:1")
