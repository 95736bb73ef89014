from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from sdviz import runs
from sdviz.config.reading import load_config
from sdviz.runs import Run
from sdviz.runs.status import identity, write_status
from tests.tiny_runs import write_tiny_config


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    return write_tiny_config(tmp_path)


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    """A process that lives for the whole test, and is not this one."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


@pytest.fixture
def occupied(sleeper: psutil.Process) -> Callable[..., None]:
    """Makes a run look at work, by the sleeping process."""

    def occupy(run: Run, state: str = "running", device: str = "cpu", submitted: float = 1.0) -> None:
        fields = {"state": state, "devices": (device,), "submitted": submitted} | identity(sleeper)
        write_status(run.status_file, replace(run.status(), **fields))  # type: ignore[arg-type]

    return occupy


@pytest.fixture
def three(root: Path, config_path: Path) -> list[Run]:
    return [runs.create(load_config(config_path)) for _ in range(3)]
