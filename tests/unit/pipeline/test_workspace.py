from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdviz.config.reading import load_config
from sdviz.data import DataError
from sdviz.nn.randomness import content_ids
from sdviz.pipeline import Workspace, config_hash, stage_names
from sdviz.pipeline.shared.sets import check_sets, load_ood_set
from sdviz.pipeline.workspace import held_out
from tests.stages import work_in
from tests.tiny_runs import write_pictures, write_splits, write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_held_out_pictures_stay_held_out_when_one_is_added(tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path)

    def parts() -> tuple[set[str], set[str]]:
        work = work_in(tmp_path / "run", config, "data.holdout=0.3")
        assert work.test is not None
        return set(work.images.ids.tolist()), set(work.test.ids.tolist())

    train, test = parts()
    assert len(train) + len(test) == 36 and not train & test
    assert 3 <= len(test) <= 18
    for i in range(3):
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(tmp_path / "pictures" / "red" / f"a{i}.png")
    train_now, test_now = parts()
    assert train < train_now or test < test_now
    assert train <= train_now and test <= test_now
    assert len(train_now | test_now) == 39
    # without a detector all are trained on
    assert len(work_in(tmp_path / "run", config, "detector=null").images) == 39


def test_of_two_pictures_one_is_held_out_and_equal_ones_cannot_be(tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path)
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, grey in enumerate((9, 9, 200)):
        Image.new("RGB", (8, 8), (grey, 0, 0)).save(flat / f"{i}.png")
    for share in ("1e-6", "0.999999"):
        work = work_in(tmp_path / "run", config, f"data.id=folder:{flat}", f"data.holdout={share}")
        assert work.test is not None
        assert {len(np.unique(one.images)) for one in (work.test, work.images)} == {2}
    (flat / "2.png").unlink()
    with pytest.raises(DataError, match=r"flat: all 2 images are equal: none can be held out for testing$"):
        _ = work_in(tmp_path / "run", config, f"data.id=folder:{flat}").test


def test_copies_under_other_names_fall_on_one_side(tmp_path: Path) -> None:
    config, pictures = write_tiny_detector_config(tmp_path), tmp_path / "sixty"
    write_pictures(pictures, 20)

    def sides() -> tuple[set[str], set[str]]:
        work = work_in(tmp_path / "run", config, f"data.id=folder:{pictures}", "data.holdout=0.3")
        assert work.test is not None
        n = len(work.images) + len(work.test)
        assert (n, work.copies) == (len([*pictures.rglob("*.png")]), n - 60)
        return set(content_ids(work.images.images)), set(content_ids(work.test.images))

    train, test = sides()
    assert len(train) + len(test) == 60 and 8 <= len(test) <= 28
    # each picture as five files; a lossless copy of another type is one, too
    for png in [*pictures.rglob("*.png")]:
        for folder in ("a", "b", "c"):
            (png.parent / folder).mkdir(exist_ok=True)
            (png.parent / folder / png.name).write_bytes(png.read_bytes())
        Image.open(png).save(png.with_name(f"copy of {png.stem}.png"), compress_level=1)
    assert len([*pictures.rglob("*.png")]) == 300
    assert sides() == (train, test)
    # nor do names and order matter
    for i, png in enumerate(sorted(pictures.rglob("*.png"))):
        png.rename(png.with_name(f"{997 * i % 300:03d}.png"))
    assert sides() == (train, test)


def test_held_out_draws_about_the_wished_share() -> None:
    contents = content_ids(np.random.default_rng(0).integers(0, 256, (4000, 2, 2, 3), np.uint8))
    drawn = {share: held_out(contents, share) for share in (0.02, 0.1, 0.5, 0.9)}
    for share, rows in drawn.items():
        assert abs(rows.mean() - share) < 4 * np.sqrt(share * (1 - share) / 4000)
    # a larger share holds a smaller one, and others do not move a picture
    assert (drawn[0.1] <= drawn[0.5]).all()
    assert (held_out(contents[::-7], 0.1) == drawn[0.1][::-7]).all()
    for n in (2, 3):
        assert all(0 < held_out(contents[:n], share).sum() < n for share in (1e-9, 0.5, 1 - 1e-9))
    assert held_out(contents[:1], 0.5).tolist() == [False]


def test_test_images_that_are_trained_on_are_left_out(tmp_path: Path, data_root: Path) -> None:
    config = write_tiny_detector_config(tmp_path)
    x = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    write_splits(data_root, "pets", {"train": x[[0, 1, 2, 3, 4, 5, 5]], "test": x[[10, 3, 11, 5, 12, 12, 12]]})

    def split(*overrides: str) -> Workspace:
        return work_in(tmp_path / "run", config, "data.id=pets", *overrides)

    for policy in ("drop", "refuse"):  # it is refused before anything is trained
        work = split(f"data.on_overlap={policy}")
        assert work.test is not None
        assert work.test.ids.tolist() == [f"pets/test/0000{i}" for i in (0, 2, 4, 5, 6)]
        assert work.seen_test_rows.sum() == 2 and len(work.images) == 7
        assert work.copies == 1 + 2
    kept = split("data.on_overlap=keep")
    assert kept.test is not None and kept.unseen_test is not None
    assert (len(kept.test), len(kept.unseen_test), kept.seen_test_rows.sum()) == (7, 5, 2)
    # a limit trains on fewer, so that more may be tested
    assert split("data.limit=1").seen_test_rows.sum() <= 1


def test_what_becomes_of_equal_pictures_changes_no_training(tmp_path: Path) -> None:
    path = write_tiny_detector_config(tmp_path)
    backbone = f"detector.backbone={{width: 4, simclr: null, pretraining: {{data: 'folder:{tmp_path}/near'}}}}"
    more = [backbone, "evaluation.sd_test={}", "evaluation.baselines=[dn2, rot]"]

    def changed(*overrides: str) -> list[str]:
        before, after = load_config(path, more), load_config(path, [*more, *overrides])
        return [s for s in stage_names(before) if config_hash(before, s) != config_hash(after, s)]

    scored = ["features", "baseline_scores", "evaluation", "bundle"]
    assert changed("data.on_overlap=keep") == ["sd_test", *scored]
    for one in ("evaluation.far=[svhn]", "evaluation.limit=5", "evaluation.classes={}", "evaluation.near=[]"):
        assert changed(one) in ([], scored)
    assert changed("evaluation.far=[svhn]") == changed("evaluation.limit=5") == scored


def test_good_pictures_are_tested_on_and_defects_are_another_set(tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path)
    x = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    places = ["train/good"] * 4 + ["test/good"] * 2 + ["test/crack"] * 2 + ["ground_truth/crack"]
    for i, place in enumerate(places):
        (tmp_path / "bottle" / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[i]).save(tmp_path / "bottle" / place / f"{i}.png")
    name = f"folder:{tmp_path}/bottle"
    near = f"evaluation.near=['{name}:defects']"
    work = work_in(tmp_path / "run", config, f"data.id={name}", near, "data.range=0..255", "data.size_px=8")
    assert work.test is not None
    assert np.array_equal(work.images.images, x[:4]) and np.array_equal(work.test.images, x[4:6])
    check_sets(work.config)  # the defects are no part of what is trained on
    assert np.array_equal(load_ood_set(work.config, f"{name}:defects", None).images, x[6:8])


def test_pictures_are_fitted_as_the_configuration_says(tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path)
    (tmp_path / "wide").mkdir()
    for i in range(4):
        Image.new("RGB", (16, 8), (200, 10 * i, 0)).save(tmp_path / "wide" / f"{i}.png")
    work = work_in(
        tmp_path / "run", config, f"data.id=folder:{tmp_path}/wide", "data.fit=pad", "data.size_px=8"
    )
    assert not work.images.images[:, :2].any() and (work.images.images[:, 2:6, :, 0] == 200).all()
    near = load_ood_set(work.config, f"folder:{tmp_path}/wide", None)
    assert not near.images[:, :2].any()
