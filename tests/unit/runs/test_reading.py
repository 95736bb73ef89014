from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from sdviz import runs
from sdviz.config.reading import load_config
from sdviz.runs import Run
from sdviz.runs.reading import (
    curve,
    differing_settings,
    folder_bytes,
    latest,
    metrics,
    outlier_sample,
    stages,
    tail,
    trainings,
)


@pytest.fixture
def run(root: Path, config_path: Path) -> Run:
    return runs.create(load_config(config_path))


def test_stages_say_what_is_done_and_how_the_last_was_left(run: Run) -> None:
    (run.path / "pseudo_labels.done.json").write_text("{}")
    status = replace(
        run.status(), state="failed", stage="clusterer", share=0.5, stage_sec={"pseudo_labels": 3.0}
    )
    found = stages(run, run.config(), status)
    assert [(one.name, one.state, one.share, one.sec) for one in found] == [
        ("pseudo_labels", "done", 1.0, 3.0),
        ("clusterer", "failed", 0.5, None),
        ("diffusion", "waiting", 0.0, None),
        ("bundle", "waiting", 0.0, None),
    ]
    # in the queue nothing is at work, whatever was begun before
    assert stages(run, run.config(), replace(status, state="queued"))[1].state == "waiting"


def test_tail_is_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    assert tail(path) == ""
    path.write_bytes(b"\xff\n" + b"".join(b"line %d\n" % i for i in range(50_000)))
    assert tail(path, 2) == "line 49998\nline 49999"


def test_curves_are_thinned_and_keep_the_last_point() -> None:
    stats = [{"stage": "a", "step": n, "total": 999, "loss": n / 10} for n in range(1, 1000)]
    stats.append({"stage": "a", "step": 1, "total": 1, "cluster_accuracy": 0.5})
    steps, values = curve(stats, "a", "loss")
    assert len(steps) <= 400
    assert (steps[-1], values[-1]) == (999, 99.9)
    assert curve(stats, "b", "loss") == ([], [])
    # two trainings of one stage have a curve each
    stats += [
        {"stage": "b", "training": name, "step": n, "total": 2, "loss": n} for n, name in ((1, "x"), (2, "y"))
    ]
    assert trainings(stats) == [("a", ""), ("b", "x"), ("b", "y")]
    assert curve(stats, "b", "loss", "x") == ([1], [1.0]) and curve(stats, "b", "loss", "y") == ([2], [2.0])
    assert latest(stats, "cluster_accuracy") == 0.5
    assert latest(stats, "validation_auroc") is None


def test_the_newest_whole_shard_is_shown(run: Run) -> None:
    assert outlier_sample(run, 3) is None
    folder = run.path / "outliers" / "wrong"
    folder.mkdir(parents=True)
    for first, grey in ((0, 10), (4, 20), (8, 30)):
        images = np.full((4, 8, 8, 3), grey, np.uint8)
        path = folder / f"{first:07d}.safetensors"
        save_file({"images": images, "target_labels": np.array([2, 1, 0, 1])}, path)
        os.utime(path, (first + 1, first + 1))
    found = outlier_sample(run, 3)
    assert found is not None
    assert (found.images.shape, found.images[0, 0, 0, 0], found.shards) == ((3, 8, 8, 3), 30, 3)
    assert (found.labels, found.target_labels) == ([""] * 3, [""] * 3)
    # with their names, once there are labels: row 4 is an image's first outlier again, of 6 images
    table = pa.table({"label": np.array([0, 1, 2, 0, 1, 2])})
    table = table.replace_schema_metadata({"cluster_names": json.dumps(["blue", "green", "red"])})
    (run.path / "pseudo_labels").mkdir()
    pq.write_table(table, run.path / "pseudo_labels" / "pseudo_labels.parquet")
    found = outlier_sample(run, 3)
    assert found is not None
    assert (found.labels, found.target_labels) == (["red", "blue", "green"], ["red", "green", "blue"])
    # one that is cut is passed over
    (folder / "0000008.safetensors").write_bytes(b"cut")
    os.utime(folder / "0000008.safetensors", (99, 99))
    found = outlier_sample(run, 3)
    assert found is not None and found.images[0, 0, 0, 0] == 20


def test_metrics_are_numbers_of_complete_stages(run: Run) -> None:
    (run.path / "pseudo_labels.done.json").write_text('{"metrics": {"images": 24, "names": "a", "flag": true}}')
    (run.path / "clusterer.done.json").write_text('{"metrics": null}')
    (run.path / "diffusion.done.json").write_text("{")
    assert metrics(run, run.config()) == {"images": 24}


def test_differences_name_every_leaf(config_path: Path) -> None:
    a = load_config(config_path)
    b = load_config(config_path, ["diffusion.batch_size=9", "diffusion.unet.channels=[8]", "encoder={}"])
    left, right = a.model_dump(mode="json"), b.model_dump(mode="json")
    found = differing_settings([left, right])
    assert found["diffusion.batch_size"] == [4, 9]
    assert found["diffusion.unet.channels"] == [[8, 8], [8]]
    assert found["encoder.width"] == [None, 48]
    assert "diffusion.total_steps" not in found
    assert differing_settings([left, left]) == {}


def test_the_size_of_a_folder_does_not_count_what_links_point_to(run: Run, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(10**6))
    (run.path / "link").symlink_to(big)
    assert 0 < folder_bytes(run) < 10**5


def test_hostile_lines_and_numbers_are_passed_over(run: Run) -> None:
    good = {"stage": "a", "step": 1, "total": 3, "loss": 0.5}
    lines = [
        json.dumps(good),
        "[" * 50_000,
        json.dumps(good | {"stage": ["a"]}),
        json.dumps(good | {"total": {}}),
        '{"stage": "a", "step": ' + "9" * 400 + ', "total": 3}',
        json.dumps(good | {"step": 2, "loss": float("nan"), "validation_auroc": True}),
        json.dumps(good | {"step": 3, "loss": 0.25}),
    ]
    (run.path / "stats.jsonl").write_text("\n".join(lines))
    stats = run.stats()
    assert trainings(stats) == [("a", "")]
    assert curve(stats, "a", "loss") == ([1, 3], [0.5, 0.25])
    assert latest(stats, "validation_auroc") is None
    for text in ("[" * 50_000, "[]", '{"metrics": 3}', '{"metrics": {"a": ' + "9" * 400 + "}}"):
        (run.path / "diffusion.done.json").write_text(text)
        assert metrics(run, run.config()) == {}
    (run.path / "diffusion.done.json").write_text('{"metrics": {"a": 1e999, "b": 2}}')
    assert metrics(run, run.config()) == {"b": 2}


def test_a_sample_of_another_shape_is_passed_over(run: Run) -> None:
    folder = run.path / "outliers" / "wrong"
    folder.mkdir(parents=True)
    images = np.zeros((4, 8, 8, 3), np.uint8)
    for targets in (np.zeros(3, np.int64), np.zeros((4, 2), np.int64), np.full(4, np.nan)):
        save_file({"images": images, "target_labels": targets}, folder / "0000000.safetensors")
        assert outlier_sample(run, 4) is None
