from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from sdviz.bundle import Bundle
from sdviz.config.tree import JpegConfig
from sdviz.outliers import draw_target_labels
from sdviz.pipeline import (
    Workspace,
    read_labels,
    run_stages,
    stage_names,
)
from sdviz.pipeline.outliers import outlier_ids, read_outliers
from sdviz.pipeline.shared.shards import reencode
from tests.stages import begun, work_in

pytestmark = pytest.mark.usefixtures("one_thread")


def test_outliers_are_what_their_table_says(scored_run: Path) -> None:
    work = work_in(scored_run, scored_run.parent / "tiny.yaml")
    table = pq.read_table(scored_run / "outliers" / "outliers.parquet").to_pydict()
    n, labels = len(work.images), read_labels(work)
    assert table["id"] == [f"{one}~0" for one in work.images.ids] == outlier_ids(work).tolist()
    assert table["source_id"] == work.images.ids.tolist()
    assert table["label"] == labels.tolist()
    assert not any(y == t for y, t in zip(table["label"], table["target_label"], strict=True))
    assert set(table["start_timestep"]) == {50}
    for kind in ("wrong", "right"):
        shards = [load_file(p) for p in sorted((scored_run / "outliers" / kind).iterdir())]
        assert [len(s["images"]) for s in shards[:-1]] == [8] * (len(shards) - 1)
        targets = np.concatenate([s["target_labels"] for s in shards])
        assert (targets == (labels if kind == "right" else table["target_label"])).all()
        assert read_outliers(work, kind).shape == (n, 8, 8, 3)
    # as the bundle itself makes them
    bundle = Bundle.load(scored_run / "bundle", device="cpu")
    made = bundle.generate(work.images.images[:5], labels[:5], ids=work.images.ids[:5])
    assert np.abs(made.outliers.astype(int) - read_outliers(work, "wrong")[:5]).max() <= 1


def test_several_outliers_of_each_image(copied: Workspace, scored_run: Path) -> None:
    first = read_outliers(copied, "wrong")
    for stage in ("outliers", "detector", "features", "controls", "evaluation", "bundle"):
        (copied.folder / f"{stage}.done.json").unlink()
        shutil.rmtree(copied.folder / stage)
    work = work_in(
        copied.folder, scored_run.parent / "tiny.yaml", "outliers.per_image=2", "outliers.shard_size=10"
    )
    assert [stage for stage, skipped in begun(work) if not skipped] == list(stage_names(work.config)[3:])
    n, labels = len(work.images), read_labels(work)
    both = read_outliers(work, "wrong")
    assert both.shape == (2 * n, 8, 8, 3)
    # the first of each as before, whatever the shards; the second by the next seed
    assert (both[:n] == first).all()
    assert not (both[n:] == first).all(axis=(1, 2, 3)).any()
    table = pq.read_table(work.folder / "outliers" / "outliers.parquet").to_pydict()
    assert table["id"] == [f"{i}~0" for i in work.images.ids] + [f"{i}~1" for i in work.images.ids]
    assert table["seed"] == [0] * n + [1] * n
    for turn in (0, 1):
        expected = draw_target_labels(labels, work.images.ids, 3, turn)
        assert table["target_label"][turn * n : (turn + 1) * n] == expected.tolist()
    features = load_file(work.folder / "features" / "features.safetensors")
    assert (len(features["id_features"]), len(features["outlier_features"])) == (n, 2 * n)
    assert (features["outlier_labels"] == np.tile(labels, 2)).all()
    assert np.isfinite(Bundle.load(work.folder / "bundle", "cpu").features(work.images.images[:2])).all()


def test_outliers_through_jpeg(copied: Workspace, scored_run: Path) -> None:
    plain = read_outliers(copied, "wrong")
    shutil.rmtree(copied.folder / "outliers")
    (copied.folder / "outliers.done.json").unlink()
    work = work_in(
        copied.folder, scored_run.parent / "tiny.yaml", "outliers.jpeg={quality: 60, subsampling: '4:2:0'}"
    )
    run_stages(work, until="outliers")
    assert (read_outliers(work, "wrong") == reencode(plain, JpegConfig(quality=60))).all()
