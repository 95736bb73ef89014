from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from sdviz.pipeline import (
    run_stages,
)
from tests.stages import work_in
from tests.tiny_runs import write_tiny_config


def test_the_clusterer_is_measured_on_the_test_split(tmp_path: Path, one_thread: None, data_root: Path) -> None:
    config = write_tiny_config(tmp_path)
    small = ["data.id=shapes", "data.limit=60", "data.size_px=32", "clusterer.total_steps=2"]
    work = work_in(tmp_path / "run", config, *small)
    assert not run_stages(replace(work, should_stop=lambda: (work.folder / "clusterer.done.json").exists()))
    metrics = json.loads((work.folder / "clusterer.done.json").read_text())["metrics"]
    assert metrics["clusterer_test_images"] == 4000
    assert 0 <= metrics["clusterer_accuracy"] <= 1
