from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from sdviz.bundle import Bundle
from sdviz.config import JpegConfig, RunConfig, load_config
from sdviz.data import DataError
from sdviz.detection.training import train_detector
from sdviz.nn.batches import encode, predict
from sdviz.nn.classifier import ScanClassifier
from sdviz.nn.randomness import image_noise
from sdviz.outliers import draw_target_labels
from sdviz.pipeline import (
    PipelineError,
    Workspace,
    adopt_stages,
    config_hash,
    read_labels,
    run_stages,
    stage_names,
)
from sdviz.pipeline.clusters import evenness, load_clusterer, load_encoder, make_encoder, make_pseudo_labels
from sdviz.pipeline.generation import noised_images, outlier_ids, read_outliers, reencode
from sdviz.scan.metrics import agreement
from tests.tiny_runs import OTHER_COLOURS, write_pictures, write_tiny_config, write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")

STAGES = (
    "encoder",
    "pseudo_labels",
    "diffusion",
    "outliers",
    "detector",
    "features",
    "controls",
    "evaluation",
    "bundle",
)


def work_in(
    folder: Path, config_path: Path, *overrides: str, stop: Callable[[], bool] = lambda: False
) -> Workspace:
    folder.mkdir(exist_ok=True)
    return Workspace(folder, load_config(config_path, overrides), lambda progress: None, stop)


def begun(work: Workspace, until: str | None = None) -> list[tuple[str, bool]]:
    """Runs the stages: each with whether it was skipped."""
    told: list[tuple[str, bool]] = []
    run_stages(work, lambda stage, complete: told.append((stage, complete)), until)
    return told


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def copied(scored_run: Path, tmp_path: Path) -> Workspace:
    """A complete run of this test's own; its pictures are the other one's."""
    shutil.copytree(scored_run, tmp_path / "run")
    return work_in(tmp_path / "run", scored_run.parent / "tiny.yaml")


# --- all stages -------------------------------------------------------------------------------------


def test_a_run_ends_in_a_bundle_with_a_detector(scored_run: Path) -> None:
    work = work_in(scored_run, scored_run.parent / "tiny.yaml")
    assert stage_names(work.config) == STAGES
    bundle = Bundle.load(scored_run / "bundle", device="cpu")
    m = bundle.manifest
    assert (m.labels_from, m.n_clusters) == ("SCAN", 3)
    assert m.score is not None and m.score.k == 3
    assert m.metrics["detector_epochs"] == 3
    assert m.metrics["outliers"] == len(work.images)
    # clusters by which nothing was chosen, and how well they agree
    labels = read_labels(work)
    found = agreement(labels, work.images.labels, 3, 3)
    assert m.metrics["cluster_accuracy_train"] == found.accuracy > 1 / 3
    for name, of_classes in zip(m.class_names, found.confusion, strict=True):
        assert ("blue", "green", "red")[int(of_classes.argmax())] in name

    test = work.test
    assert test is not None
    assert not set(test.ids.tolist()) & set(work.images.ids.tolist())
    features = bundle.features(test.images)
    assert features.shape == (len(test), m.metrics["feature_dim"]) == (len(test), 16)
    kept = load_file(scored_run / "features" / "ood_features.safetensors")
    np.testing.assert_allclose(features, kept["test"], rtol=2e-2, atol=2e-2)  # float16 in the file
    scored = pq.read_table(scored_run / "evaluation" / "scores.parquet").to_pydict()
    assert np.isfinite(scored["total"]).all()
    assert len(scored["total"]) == len(test) + 2 * 8
    report = json.loads((scored_run / "evaluation" / "report.json").read_text())
    assert set(report["means"]) == {"near", "validation"}
    assert not list(scored_run.rglob("*state.pt")) and not list(scored_run.rglob("*.partial"))


def test_a_complete_run_is_left_as_it_is(copied: Workspace) -> None:
    before = everything_in(copied.folder)
    assert begun(copied) == [(stage, True) for stage in STAGES]
    assert everything_in(copied.folder) == before


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


def test_a_lost_shard_is_made_again_to_the_byte(copied: Workspace) -> None:
    folder = copied.folder / "outliers"
    before = everything_in(folder)
    whole = sorted((folder / "wrong").iterdir())
    untouched = whole[0].stat().st_mtime_ns
    whole[1].unlink()
    whole[2].write_bytes(whole[2].read_bytes()[:-9])
    with pytest.raises(
        PipelineError, match=f"{whole[1].name} is missing: remove .*outliers.done.json and resume"
    ):
        read_outliers(copied, "wrong")
    (copied.folder / "outliers.done.json").unlink()
    assert begun(copied)[3] == ("outliers", False)
    assert everything_in(folder) == before
    assert whole[0].stat().st_mtime_ns == untouched


def test_shards_do_not_depend_on_how_many_stops_there_were(copied: Workspace) -> None:
    before = everything_in(copied.folder / "outliers")
    shutil.rmtree(copied.folder / "outliers")
    (copied.folder / "outliers.done.json").unlink()
    for _ in range(3):
        asked = iter([False, False])  # before the stage and before its first shard
        stopping = replace(copied, should_stop=lambda asked=asked: next(asked, True))
        assert not run_stages(stopping)
    assert len(list((copied.folder / "outliers").rglob("*.safetensors"))) == 3
    run_stages(copied, until="outliers")
    assert everything_in(copied.folder / "outliers") == before


def test_several_outliers_of_each_image(copied: Workspace, scored_run: Path) -> None:
    first = read_outliers(copied, "wrong")
    for stage in ("outliers", "detector", "features", "controls", "evaluation", "bundle"):
        (copied.folder / f"{stage}.done.json").unlink()
        shutil.rmtree(copied.folder / stage)
    work = work_in(
        copied.folder, scored_run.parent / "tiny.yaml", "outliers.per_image=2", "outliers.shard_size=10"
    )
    assert [stage for stage, skipped in begun(work) if not skipped] == list(STAGES[3:])
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


def test_reencoding_is_one_round_of_pillows_jpeg(tiny_images: Callable[..., np.ndarray]) -> None:
    images = tiny_images(3, 16)
    images[0] = 90
    for quality, subsampling, code in ((60, "4:2:0", 2), (95, "4:4:4", 0)):
        made = reencode(images, JpegConfig(quality=quality, subsampling=subsampling))  # type: ignore[arg-type]
        assert (made.shape, made.dtype) == (images.shape, np.uint8)
        for i in range(3):
            stream = io.BytesIO()
            Image.fromarray(images[i]).save(stream, "JPEG", quality=quality, subsampling=code)
            assert (made[i] == np.asarray(Image.open(stream))).all()
        assert np.abs(made[0].astype(int) - 90).max() <= 1
        assert (made[1] != images[1]).any()


def test_noised_images_have_the_outliers_noise_and_no_denoising(scored_run: Path) -> None:
    work = work_in(scored_run, scored_run.parent / "tiny.yaml")
    noised = noised_images(work)
    noise = image_noise(work.images.ids.tolist(), (3, 8, 8), 0, "start")
    x_0 = torch.tensor(work.images.images).permute(0, 3, 1, 2) / 127.5 - 1
    x_t = work.schedule.add_noise(x_0, noise, 50).clamp(-1, 1).permute(0, 2, 3, 1)
    assert np.abs((x_t.numpy() + 1) * 127.5 - noised).max() <= 0.51


# --- encoder and labels -----------------------------------------------------------------------------


def test_labels_from_kmeans(tmp_path: Path, data_root: Path) -> None:
    config = write_tiny_detector_config(tmp_path, diffusion_steps=4, steps=20, epochs=1)
    work = work_in(tmp_path / "run", config, "labels.source=kmeans", "clusterer.total_steps=5")
    assert [stage for stage, _ in begun(work, "diffusion")] == [
        "encoder",
        "pseudo_labels",
        "clusterer",
        "diffusion",
    ]
    labels = read_labels(work)
    assert sorted(set(labels.tolist())) == [0, 1, 2]
    metrics = json.loads((work.folder / "pseudo_labels.done.json").read_text())["metrics"]
    assert metrics["cluster_accuracy_train"] == agreement(labels, work.images.labels, 3, 3).accuracy
    # clusters of the encoder's features: nearer to their own centre than to another one, mostly
    features = encode(load_encoder(work), work.images.images, "cpu")
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    centres = np.stack([unit[labels == c].mean(0) for c in range(3)])
    assert (((unit[:, None] - centres) ** 2).sum(-1).argmin(1) == labels).all()


def write_table(path: Path, ids: list[str], labels: list[object]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"other": [0] * len(ids), "label": labels, "id": ids}), path)
    else:
        lines = ["label,other,id", *(f"{label},,{one}" for one, label in zip(ids, labels, strict=True))]
        path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("zebra", "ant", "mole"), ("ant", "mole", "zebra")),
        ((10, 2, 7), ("cluster 2", "cluster 7", "cluster 10")),
    ],
)
def test_labels_from_a_file(
    tmp_path: Path, suffix: str, words: tuple[object, ...], names: tuple[str, ...]
) -> None:
    config, path = write_tiny_config(tmp_path), tmp_path / f"labels{suffix}"
    work = work_in(tmp_path / "run", config, "labels.source=file", f"labels.path={path}")
    given = [words[y] for y in work.images.labels]
    # in another order, and with ids that nobody asked for
    ids = [*work.images.ids.tolist()[::-1], "someone/else"]
    write_table(path, ids, [*given[::-1], words[0]])
    metrics = make_pseudo_labels(work)
    assert metrics is not None and (metrics["clusters"], metrics["cluster_accuracy_train"]) == (3, 1.0)
    table = pq.read_table(work.folder / "pseudo_labels" / "pseudo_labels.parquet")
    found = json.loads(table.schema.metadata[b"cluster_names"])
    assert tuple(found) == names
    by_name = [found[i].removeprefix("cluster ") for i in read_labels(work)]
    assert by_name == [str(word) for word in given]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_that_lacks_images_is_refused(tmp_path: Path, suffix: str) -> None:
    config, path = write_tiny_config(tmp_path), tmp_path / f"labels{suffix}"
    work = work_in(tmp_path / "run", config, "labels.source=file", f"labels.path={path}")
    ids = work.images.ids.tolist()
    write_table(path, ids[2:], work.images.labels[2:].tolist())
    with pytest.raises(DataError, match="no label for 2 of 24 images, as ") as error:
        make_pseudo_labels(work)
    assert str(error.value) == f"{path}: no label for 2 of 24 images, as {ids[0]}"
    write_table(path, ids, [1] * 24)
    with pytest.raises(DataError, match="at least 2 classes, there is 1"):
        make_pseudo_labels(work)
    for raw in (b"id;label\n\xff\xfe", b"label,id\n\x00" + b'"' * 200_000, None):
        path.unlink()
        if raw is not None:
            path.write_bytes(raw)
        with pytest.raises(DataError) as error:
            make_pseudo_labels(work)
        assert str(error.value) == f"{path}: not a table with columns id and label"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (["a", "b", ""], "empty"),
        (["a", "b", "  "], "empty"),
        ([0, 1, -1], "-1"),
        ([0.0, 1.0, 2.0], "0.0"),
        ([0.0, 1.0, float("nan")], "0.0"),
        (["0", "1", "nan"], "nan"),
        (["0", "1", "1e3"], "1e3"),
        (["0", "1", "+1"], "+1"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_their_line(
    tmp_path: Path, suffix: str, labels: list[object], shown: str
) -> None:
    config, path = write_tiny_config(tmp_path), tmp_path / f"labels{suffix}"
    work = work_in(tmp_path / "run", config, "labels.source=file", f"labels.path={path}")
    ids = work.images.ids.tolist()
    write_table(path, ["someone/else", *ids], [labels[2], *(labels[y] for y in work.images.labels)])
    row = 1 if shown == "0.0" else next(i for i, y in enumerate(work.images.labels, 1) if y == 2)
    where = f"line {row + 2}" if suffix == ".csv" else f"row {row + 1}"
    with pytest.raises(DataError) as error:
        make_pseudo_labels(work)
    assert str(error.value) == (
        f"{path}, {where}: the label of {ids[row - 1]} is {shown}, not a word or a whole number from 0"
    )


def test_a_parquet_table_may_lack_a_label_where_nobody_asks_for_it(tmp_path: Path) -> None:
    config, path = write_tiny_config(tmp_path), tmp_path / "labels.parquet"
    work = work_in(tmp_path / "run", config, "labels.source=file", f"labels.path={path}")
    ids, labels = (
        work.images.ids.tolist(),
        [f"0{y}" if i % 2 else str(y) for i, y in enumerate(work.images.labels)],
    )
    write_table(path, [*ids, "someone/else"], [*labels, None])
    make_pseudo_labels(work)
    assert (read_labels(work) == work.images.labels).all()  # 07 is 7
    write_table(path, ids, [None, *labels[1:]])
    with pytest.raises(DataError, match=f"row 1: the label of {ids[0]} is empty"):
        make_pseudo_labels(work)


def test_a_table_as_excel_saves_it(tmp_path: Path) -> None:
    config, path = write_tiny_config(tmp_path), tmp_path / "labels.csv"
    work = work_in(tmp_path / "run", config, "labels.source=file", f"labels.path={path}")
    lines = ["id,label", *(f"{i},{y}" for i, y in zip(work.images.ids, work.images.labels, strict=True))]
    path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig")
    make_pseudo_labels(work)
    assert (read_labels(work) == work.images.labels).all()


def test_an_empty_cluster_ends_with_what_helps(tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path, steps=1)
    many = ("labels.n_clusters=20", "labels.scan.head_steps=0", "labels.self_label=null", "labels.seed=4")
    work = work_in(tmp_path / "run", config, *many)
    with pytest.raises(DataError) as error:
        run_stages(work)
    assert str(error.value) == (
        f"{work.images.name}: a cluster of 20 is empty: start a new run with a lower labels.n_clusters,"
        " or another labels.seed (now 4)"
    )


def test_the_loss_of_scan_is_kept_when_a_run_is_resumed_behind_it(tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path, steps=20)
    whole = work_in(tmp_path / "run", config)
    run_stages(whole, until="encoder")
    shutil.copytree(tmp_path / "run", tmp_path / "part")
    expected = make_pseudo_labels(whole)
    scanned = tmp_path / "part" / "pseudo_labels" / "scan.safetensors"
    assert make_pseudo_labels(work_in(tmp_path / "part", config, stop=scanned.exists)) is None
    assert scanned.exists()
    assert make_pseudo_labels(work_in(tmp_path / "part", config)) == expected
    assert expected is not None and np.isfinite(expected["scan_loss"])


def test_pretraining_on_labels_of_another_set(tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path)
    other = write_pictures(tmp_path / "other", 8, {"a": (250, 250, 250), "b": (10, 10, 10)} | OTHER_COLOURS)
    settings = f"encoder.pretraining={{data: 'folder:{other}', labels: [1, 3], total_steps: 6, batch_size: 8}}"
    plain = work_in(tmp_path / "plain", config, settings, "encoder.simclr=null")
    metrics = make_encoder(plain)
    assert metrics is not None and metrics["encoder_images_seen"] == 48
    assert not (plain.folder / "encoder" / "projection.safetensors").exists()
    first = load_file(plain.folder / "encoder" / "encoder.safetensors")
    assert all(
        (first[k] == v).all() for k, v in load_file(plain.folder / "encoder" / "pretrained.safetensors").items()
    )
    # SimCLR goes on from there, stopped and resumed in either part
    whole = work_in(tmp_path / "whole", config, settings)
    assert make_encoder(whole) is not None
    expected = everything_in(whole.folder / "encoder")
    for after in (3, 4, 20):
        asked = iter([False] * after)
        part = work_in(tmp_path / "parts", config, settings, stop=lambda asked=asked: next(asked, True))
        assert make_encoder(part) is None
    assert make_encoder(work_in(tmp_path / "parts", config, settings)) is not None
    parts = everything_in(tmp_path / "parts" / "encoder")
    for name in ("pretrained.safetensors", "projection.safetensors", "encoder.safetensors"):
        assert parts[name] == expected[name], name
    nobody = settings.replace("[1, 3]", "[7, 9]")
    with pytest.raises(DataError, match=r"no image with a label in 7\.\.9 to pre-train on"):
        make_encoder(work_in(tmp_path / "nobody", config, nobody))


# --- sets -------------------------------------------------------------------------------------------


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


def test_too_few_pictures_to_hold_some_out(tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path, n_each=1)
    with pytest.raises(DataError, match=r"3 images are too few to hold out 1e-06 of them for testing"):
        _ = work_in(tmp_path / "run", config, "data.holdout=1e-6").test


def test_controls_change_one_thing_of_the_recipe(
    copied: Workspace, scored_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = "[right_label_as_id, lambda_zero]"
    work = work_in(copied.folder, scored_run.parent / "tiny.yaml", f"evaluation.controls={kinds}")
    seen = []

    def watched(*args: Any) -> list[np.ndarray] | None:  # noqa: ANN401
        seen.append(args)
        return train_detector(*args)

    monkeypatch.setattr("sdviz.pipeline.detecting.train_detector", watched)
    for stage in ("controls", "evaluation", "bundle"):
        (work.folder / f"{stage}.done.json").unlink()
    shutil.rmtree(work.folder / "controls")
    assert [stage for stage, skipped in begun(work) if not skipped] == ["controls", "evaluation", "bundle"]

    own = work.config.detector
    assert own is not None and own.reconstructed_id == 0.3 and own.outlier_weight > 0
    for args, changed in zip(seen, ({"reconstructed_id": 0.5}, {"outlier_weight": 0.0}), strict=True):
        _, images, _, outliers, _, config, rebuilt, *_ = args
        assert config == own.model_copy(update=changed)
        np.testing.assert_array_equal(images, work.sources.images)
        np.testing.assert_array_equal(outliers, read_outliers(work, "wrong"))
        np.testing.assert_array_equal(rebuilt, read_outliers(work, "right")[: len(images)])
    report = json.loads((work.folder / "evaluation" / "report.json").read_text())
    assert set(report["controls"]) == {"right_label_as_id", "lambda_zero"}
    banks = [
        load_file(work.folder / where / "features.safetensors")["id_features"]
        for where in ("features", "controls/right_label_as_id", "controls/lambda_zero")
    ]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert not np.array_equal(banks[i], banks[j])


# --- what a stage depends on ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("data.limit=30", "encoder"),
        ("views.noise=0.1", "encoder"),
        ("encoder.simclr.temperature=0.3", "encoder"),
        ("encoder.seed=1", "encoder"),
        ("labels.scan.heads=3", "pseudo_labels"),
        ("diffusion.learning_rate=2e-3", "diffusion"),
        ("defaults.guidance_scale=2", "outliers"),
        ("outliers.jpeg={}", "outliers"),
        ("outliers.seed=1", "outliers"),
        ("detector.outlier_weight=0.4", "detector"),
        ("evaluation.near=[]", "detector"),  # its snapshots show every set
        ("evaluation.limit=5", "detector"),
    ],
)
def test_a_change_reaches_every_stage_from_the_first_that_knows_of_it(
    scored_run: Path, override: str, first: str
) -> None:
    path = scored_run.parent / "tiny.yaml"
    before, after = load_config(path), load_config(path, [override])
    changed = [stage for stage in STAGES if config_hash(before, stage) != config_hash(after, stage)]
    assert changed == list(STAGES[STAGES.index(first) :])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("evaluation.score.k=5", {"evaluation", "bundle"}),
        ("evaluation.bootstrap=5", {"evaluation", "bundle"}),
        ("evaluation.inception_weights=here.pth", {"evaluation", "bundle"}),
        ("evaluation.controls=[noise]", {"outliers", "controls", "evaluation", "bundle"}),
        ("clusterer.width=5", {"bundle"}),
        ("bundle.outlier_pictures=0", {"bundle"}),
        ("profile=other", {"bundle"}),
        ("device=auto", set()),
    ],
)
def test_a_change_reaches_these_stages_only(scored_run: Path, override: str, expected: set[str]) -> None:
    path = scored_run.parent / "tiny.yaml"
    before, after = load_config(path), load_config(path, [override])
    assert {stage for stage in STAGES if config_hash(before, stage) != config_hash(after, stage)} == expected


def test_labels_that_are_given_know_no_encoder(scored_run: Path) -> None:
    path = scored_run.parent / "tiny.yaml"
    given = ["labels.source=ground_truth", "labels.n_clusters=null"]
    before, after = load_config(path, given), load_config(path, [*given, "encoder.seed=1", "views.noise=0.1"])
    stages = stage_names(before)
    same = [stage for stage in stages if config_hash(before, stage) == config_hash(after, stage)]
    assert same == ["pseudo_labels", "clusterer", "diffusion"]


@pytest.mark.parametrize("source", ["scan", "ground_truth"])
def test_stages_on_all_images_are_not_taken_by_a_run_that_holds_some_out(tmp_path: Path, source: str) -> None:
    path = write_tiny_detector_config(tmp_path, diffusion_steps=2, steps=2)
    settings = [] if source == "scan" else ["labels={source: ground_truth}"]
    plain = work_in(tmp_path / "plain", path, *settings, "detector=null")
    stages = stage_names(plain.config)
    for stage in stages:
        (plain.folder / f"{stage}.done.json").write_text(
            json.dumps({"config_sha256": config_hash(plain.config, stage), "metrics": {}})
        )
    for overrides, taken in (
        (["detector=null", "data.holdout=0.5"], stages[:-1]),  # nothing is held out in either
        ([], ()),
        (["detector=null"], stages),
    ):
        new = work_in(tmp_path / f"new{len(taken)}", path, *settings, *overrides)
        assert adopt_stages(new.folder, plain.folder, new.config) == list(taken)


def test_stages_of_a_set_with_a_test_split_are_taken_by_a_run_with_a_detector() -> None:
    config = RunConfig.model_validate({"data": {"id": "shapes"}, "encoder": {}, "detector": {}})
    without = config.model_copy(update={"detector": None})
    early = ("encoder", "pseudo_labels", "clusterer", "diffusion")
    assert [config_hash(config, s) for s in early] == [config_hash(without, s) for s in early]
    # trained on the test split, it has none
    config, without = (
        one.model_copy(update={"data": one.data.model_copy(update={"split": "test"})})
        for one in (config, without)
    )
    assert not any(config_hash(config, s) == config_hash(without, s) for s in early)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # the reconstructions are there for the control already
        ("[right_label]", "[right_label]", {"detector", "features", "controls", "evaluation", "bundle"}),
        ("[noise]", "[noise]", {"outliers", "detector", "features", "controls", "evaluation", "bundle"}),
    ],
)
def test_outliers_know_whether_the_detector_wants_reconstructions(
    scored_run: Path, before: str, after: str, expected: set[str]
) -> None:
    path = scored_run.parent / "tiny.yaml"
    first = load_config(path, [f"evaluation.controls={before}", "detector.reconstructed_id=0"])
    second = load_config(path, [f"evaluation.controls={after}", "detector.reconstructed_id=0.3"])
    assert {s for s in STAGES if config_hash(first, s) != config_hash(second, s)} == expected
    # how much of them is the detector's own affair
    third = load_config(path, [f"evaluation.controls={after}", "detector.reconstructed_id=0.4"])
    assert config_hash(second, "outliers") == config_hash(third, "outliers")


def test_outliers_know_of_controls_only_whether_they_want_reconstructions(scored_run: Path) -> None:
    path = scored_run.parent / "tiny.yaml"

    def sha(controls: str) -> str:
        return config_hash(load_config(path, [f"evaluation.controls={controls}"]), "outliers")

    # the second is what configurations have that say nothing
    wanting = ("[right_label]", "[no_training, right_label, noise]", "[right_label_as_id, lambda_zero]")
    assert len({sha(one) for one in wanting}) == 1
    assert len({sha(one) for one in ("[]", "[noise]", "[lambda_zero, no_training]")}) == 1
    assert sha("[]") != sha("[right_label]")


def test_features_know_whether_there_are_reconstructions(scored_run: Path) -> None:
    path, plain = scored_run.parent / "tiny.yaml", "detector.reconstructed_id=0"
    first = load_config(path, [plain, "evaluation.controls=[noise]"])
    second = load_config(path, [plain, "evaluation.controls=[noise, right_label]"])
    changed = {s for s in STAGES if config_hash(first, s) != config_hash(second, s)}
    assert changed == {"outliers", "features", "controls", "evaluation", "bundle"}


def test_another_k_makes_the_evaluation_and_the_bundle_again(copied: Workspace, scored_run: Path) -> None:
    work = work_in(copied.folder, scored_run.parent / "tiny.yaml", "evaluation.score.k=5")
    with pytest.raises(PipelineError, match="stage evaluation was made with another configuration"):
        run_stages(work)
    for stage in ("evaluation", "bundle"):
        (work.folder / f"{stage}.done.json").unlink()
    assert [stage for stage, skipped in begun(work) if not skipped] == ["evaluation", "bundle"]
    m = Bundle.load(work.folder / "bundle", "cpu").manifest
    assert m.score is not None and m.score.k == 5
    assert json.loads((work.folder / "evaluation" / "report.json").read_text()) != json.loads(
        (scored_run / "evaluation" / "report.json").read_text()
    )


def test_self_labels_that_collapse_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def collapse(model: ScanClassifier, *rest: object) -> bool:
        with torch.no_grad():
            model.head.weight.zero_()
            model.head.bias.copy_(torch.arange(len(model.head.bias)))
        return True

    monkeypatch.setattr("sdviz.pipeline.clusters.train_self_labels", collapse)
    path = write_tiny_detector_config(tmp_path)
    work = work_in(tmp_path / "run", path)
    begun(work, "pseudo_labels")
    metrics = json.loads((work.folder / "pseudo_labels.done.json").read_text())["metrics"]
    assert metrics["self_label_collapsed"] is True
    assert len(set(read_labels(work).tolist())) == 3
    # the network that names clusters is SCAN's, and says the same
    labels, _ = predict(load_clusterer(work), work.images.images, "cpu")
    np.testing.assert_array_equal(labels, read_labels(work))
    scan = load_file(work.folder / "pseudo_labels" / "scan.safetensors")
    kept = load_file(work.folder / "pseudo_labels" / "clusterer.safetensors")
    assert all(np.array_equal(scan[key], kept[key]) for key in scan)


def test_evenness() -> None:
    assert evenness(np.array([0, 1, 2, 0, 1, 2]), 3) == pytest.approx(1)
    assert evenness(np.zeros(5, np.int64), 3) == 0
    assert evenness(np.array([0, 0, 1, 1]), 4) == pytest.approx(0.5)
