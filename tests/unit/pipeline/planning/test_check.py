from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sdviz.config.reading import load_config
from sdviz.data import DataError
from sdviz.evaluation import read_report
from sdviz.pipeline import Workspace, run_stages
from sdviz.pipeline.planning.check import check_config, read_check, write_check
from tests.stages import work_in
from tests.tiny_runs import write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    """A tiny run with a picture three times in its folder and twice in its OOD set."""
    path = write_tiny_detector_config(tmp_path)
    one = tmp_path / "pictures" / "red" / "0.png"
    for copy in ("pictures/red/a.png", "pictures/red/b.png", "near/pink/a.png", "near/pink/b.png"):
        (tmp_path / copy).write_bytes(one.read_bytes())
    return path


def test_the_check_stands_in_the_folder_before_anything_is_trained(tmp_path: Path, config_path: Path) -> None:
    work = work_in(tmp_path / "run", config_path, "data.on_overlap=refuse")
    with pytest.raises(DataError, match="on_overlap=refuse"):
        run_stages(work)
    tree = read_check(work.folder)
    assert tree is not None and tree == check_config(work.config).as_json()
    near, validation = (f"folder:{tmp_path}/{one}" for one in ("near", "validation"))
    assert (tree["pictures"], tree["exact_copies"]) == (38, 2)
    assert tree["overlap"] == {near: 2, validation: 0}
    rows = pq.read_table(work.folder / "copies.parquet").to_pylist()
    files = [(one["set"], *(one[key].partition("@")[0] for key in ("id", "of")), one["kind"]) for one in rows]
    first = "folder/pictures/red/0.png"
    assert files == [
        *(("", f"folder/pictures/red/{one}.png", first, "exact") for one in "ab"),
        *((near, f"folder/near/pink/{one}.png", first, "exact") for one in "ab"),
    ]


def test_a_run_is_checked_once(tmp_path: Path, config_path: Path) -> None:
    work = work_in(tmp_path / "run", config_path)
    assert read_check(work.folder) is None
    (work.folder / "check.json").write_text(json.dumps({"pictures": 1}))
    assert write_check(work, True) == []
    assert read_check(work.folder) == {"pictures": 1} and not (work.folder / "copies.parquet").exists()


def test_what_was_passed_over_is_told(tmp_path: Path, config_path: Path) -> None:
    (tmp_path / "pictures" / "red" / "a.heic").write_bytes(b"x")
    lines = write_check(work_in(tmp_path / "run", config_path), True)
    assert f"folder:{tmp_path}/pictures: 1 .heic: no decoder; pip install pillow-heif" in lines


def test_only_what_a_run_reads_is_checked(tmp_path: Path, config_path: Path) -> None:
    def found(*overrides: str, with_ood: bool = True) -> tuple[int, dict[str, int]]:
        check = check_config(load_config(config_path, overrides), with_ood)
        return check.pictures, {name: one.pictures for name, one in check.others.items()}

    near, validation = (f"folder:{tmp_path}/{one}" for one in ("near", "validation"))
    assert found() == (38, {near: 10, validation: 8})
    assert found("data.limit=7", "evaluation.limit=5") == (7, {near: 5, validation: 5})
    assert found(f"evaluation.classes={{'{near}': [yellow]}}") == (38, {near: 4, validation: 8})
    assert found("detector=null") == found(with_ood=False) == (38, {})


def test_the_report_has_what_was_found(scored_run: Path) -> None:
    tree = read_check(scored_run)
    images = read_report(scored_run / "bundle" / "report.json").images
    assert images is not None and tree is not None and images.model_dump(mode="json") == tree
    config = load_config(scored_run.parent / "tiny.yaml")
    assert images.pictures == len(
        Workspace(scored_run, config, lambda progress: None, lambda: False).images
    ) + len(pq.read_table(scored_run / "bundle" / "scores.parquet", filters=[("set", "=", "test")]))
