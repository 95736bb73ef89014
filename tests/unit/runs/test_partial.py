from __future__ import annotations

from pathlib import Path

import pytest

from sdviz import runs
from sdviz.config.reading import load_config
from sdviz.files import leftovers
from tests.tiny_runs import write_tiny_config


def test_what_a_killed_process_left_half_written_does_not_stop_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    run = runs.create(load_config(write_tiny_config(tmp_path, clusterer_steps=2, diffusion_steps=2)))
    (run.path / "bundle.partial" / "unet").mkdir(parents=True)
    (run.path / "bundle.partial" / "unet" / "config.json").write_text("{")
    (run.path / f".labels.{'0' * 32}.partial.parquet").write_bytes(b"PAR1")
    assert runs.execute(run).state == "done"
    assert not leftovers(run.path) and not (run.path / "bundle.partial").exists()
