from __future__ import annotations

from pathlib import Path

import pytest

from sdviz.data import DataError
from sdviz.evaluation import read_report
from sdviz.pipeline import (
    Workspace,
    run_stages,
)
from sdviz.pipeline.sets import evaluation_sets
from tests.stages import work_in
from tests.tiny_runs import write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_set_may_be_cut_to_some_of_its_classes(compared: Workspace) -> None:
    near = next(one for one in evaluation_sets(compared) if one.role == "near")
    assert {near.images.label_name(row) for row in range(len(near.images))} == {"pink"}
    assert read_report(compared.folder / "bundle" / "report.json").results[near.key].n == len(near.images)


def test_a_class_that_a_set_has_not_is_found_first(compared: Workspace, tmp_path: Path) -> None:
    name = compared.config.evaluation.near[0]
    evaluation = compared.config.evaluation.model_copy(update={"classes": {name: ("violet",)}})
    config = compared.config.model_copy(update={"evaluation": evaluation})
    work = Workspace(tmp_path, config, lambda progress: None, lambda: False)
    with pytest.raises(DataError, match="has no class violet"):
        run_stages(work)
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("evaluation.near=['folder:{0}/nowhere']", "no such folder"),
        ("evaluation.validation=[no-such-set]", "no data set 'no-such-set'"),
        ("evaluation.far=[digits]", "digits has images of 32 px and no other size, not 8"),
        ("data.test_split=val", "val"),
    ],
)
@pytest.mark.parametrize("source", ["scan", "ground_truth"])
def test_a_missing_set_is_found_in_the_first_stage(
    tmp_path: Path, data_root: Path, override: str, expected: str, source: str
) -> None:
    config = write_tiny_detector_config(tmp_path)
    work = work_in(tmp_path / "run", config, override.format(tmp_path), f"labels.source={source}")
    told: list[str] = []
    with pytest.raises(DataError, match=expected):
        run_stages(work, lambda stage, complete: told.append(stage))
    assert told == ["encoder"]
    assert not list(work.folder.rglob("*.safetensors")) and not list(work.folder.glob("*.done.json"))
