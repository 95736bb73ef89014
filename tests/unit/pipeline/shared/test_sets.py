from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdviz.config.reading import load_config
from sdviz.data import DataError, ImageSet
from sdviz.evaluation import read_report
from sdviz.pipeline import Workspace, run_stages
from sdviz.pipeline.shared import sets
from sdviz.pipeline.shared.labels import labelled_test
from sdviz.pipeline.shared.sets import (
    class_rows,
    evaluation_sets,
    of_classes,
    without_absent_sets,
)
from tests.stages import work_in
from tests.tiny_runs import write_splits, write_tiny_detector_config

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


def test_classes_are_named_whole_or_by_their_first_word() -> None:
    images = ImageSet(
        "pets",
        "test",
        np.zeros((4, 8, 8, 3), np.uint8),
        np.array([2, 0, 1, 2]),
        np.array(["a", "b", "c", "d"]),
        ("n01 cat", "dog", "n02 cat"),
    )
    assert class_rows(images, ["n02", "dog"]) == [2, 1]
    assert of_classes(images, ["n02", "n01 cat"]).ids.tolist() == ["a", "b", "d"]
    for unknown in ("cat", "n0", ""):
        told = f"evaluation.classes: pets has no class {unknown}".strip()  # as every message of data
        with pytest.raises(DataError, match=f"^{told}$"):
            class_rows(images, ["dog", unknown])


def with_copies(tmp_path: Path) -> Path:
    """The tiny configuration; near has copies of 2 training pictures, 1 held-out and 3 of validation."""
    path = write_tiny_detector_config(tmp_path)
    work = work_in(tmp_path / "run", path, "data.holdout=0.3")
    assert work.test is not None
    twins = [*work.images.images[:2], *work.test.images[:1]]
    other = [np.asarray(Image.open(png)) for png in sorted((tmp_path / "validation").rglob("*.png"))[:3]]
    for i, picture in enumerate([*twins, *other]):
        Image.fromarray(picture).save(tmp_path / "near" / "pink" / f"copy{i}.png")
    # one training picture in validation, under two names
    for i in range(2):
        Image.fromarray(work.images.images[4]).save(tmp_path / "validation" / "pink" / f"copy{i}.png")
    return path


def test_pictures_of_other_sets_are_left_out_and_counted(tmp_path: Path) -> None:
    path = with_copies(tmp_path)

    def found(*overrides: str) -> dict[str, tuple[int, dict[str, int]]]:
        work = work_in(tmp_path / "run", path, "data.holdout=0.3", *overrides)
        return {one.role: (len(one.images), dict(one.overlap)) for one in evaluation_sets(work)}

    validation = f"folder:{tmp_path}/validation"
    counts = {"train": 2, "test": 1, validation: 3}
    dropped, kept = found(), found("data.on_overlap=keep")
    assert dropped["near"] == (8, counts) and kept["near"] == (14, counts)
    assert dropped["validation"] == (8, {"train": 2}) and kept["validation"] == (10, {"train": 2})
    assert dropped["id"] == kept["id"] and dropped["id"][1] == {}
    # without a validation set there is nothing to choose on
    assert found("evaluation.validation=[]")["near"] == (11, {"train": 2, "test": 1})
    # only the images that are taken count
    n, few = found("evaluation.limit=3")["near"]
    assert n + sum(few.values()) == 3


def test_a_set_that_is_nothing_but_copies_is_refused(tmp_path: Path, data_root: Path) -> None:
    path = write_tiny_detector_config(tmp_path)
    shutil.copytree(tmp_path / "validation", tmp_path / "again")
    work = work_in(tmp_path / "run", path, f"evaluation.near=['folder:{tmp_path}/again']")
    expected = f"evaluation: every image of folder:{tmp_path}/again is in folder:{tmp_path}/validation, too"
    with pytest.raises(DataError) as error:
        list(evaluation_sets(work))
    assert str(error.value) == expected
    pictures = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    write_splits(data_root, "pets", {"train": pictures, "test": pictures[2:4]})
    with pytest.raises(DataError, match="^pets: every image of split test is in train, too$"):
        list(evaluation_sets(work_in(tmp_path / "run", path, "data.id=pets")))
    # nothing is measured without a detector
    without = work_in(tmp_path / "run", path, "data.id=pets", "detector=null")
    assert without.test is not None and len(without.test) == 0 and labelled_test(without) is None


def test_a_limit_takes_the_same_images_and_the_roles_come_in_order(scored_run: Path) -> None:
    path = scored_run.parent / "tiny.yaml"
    everything = {one.key: one for one in evaluation_sets(work_in(scored_run, path))}
    assert [one.role for one in everything.values()] == ["id", "near", "validation"]
    some = {one.key: one for one in evaluation_sets(work_in(scored_run, path, "evaluation.limit=2"))}
    assert list(some) == list(everything)
    for key, one in some.items():
        assert len(one.images) == 2
        assert set(one.images.ids.tolist()) < set(everything[key].images.ids.tolist())
    fewer = {one.key: one for one in evaluation_sets(work_in(scored_run, path, "evaluation.limit=1"))}
    assert all(one.images.ids.tolist() == some[key].images.ids[:1].tolist() for key, one in fewer.items())


@pytest.mark.usefixtures("data_root")
def test_absent_sets_are_left_out_with_the_way_to_get_them(scored_run: Path) -> None:
    path = scored_run.parent / "tiny.yaml"
    plain = load_config(path)
    assert without_absent_sets(plain) == (plain, {})
    config = load_config(path, ["evaluation.far=[svhn]", "data.size_px=32", "evaluation.validation=[digits]"])
    left, absent = without_absent_sets(config)
    assert list(absent) == ["svhn"] and "python -m sdviz download svhn" in absent["svhn"]
    assert left.evaluation.far == () and left.evaluation.near == config.evaluation.near
    assert left.evaluation.validation == ("digits",)


def test_the_settings_of_sets_are_those_that_choose_images(scored_run: Path) -> None:
    path = scored_run.parent / "tiny.yaml"

    def settings(*overrides: str) -> object:
        return sets.depends_on(load_config(path, overrides))

    for one in ("evaluation.limit=3", "evaluation.seed=1", "evaluation.near=[]", "data.on_overlap=keep"):
        assert settings(one) != settings()
    for one in ("evaluation.bootstrap=9", "evaluation.score.k=5", "seed=1"):
        assert settings(one) == settings()
