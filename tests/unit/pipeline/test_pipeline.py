from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock
from PIL import Image

from sdviz import data
from sdviz.bundle import Bundle
from sdviz.config import load_config
from sdviz.data import DataError, ImageSet
from sdviz.diffusion.training import train_noise_predictor
from sdviz.files import leftovers
from sdviz.nn.phase_means import measure_phases
from sdviz.nn.unet import build_noise_predictor
from sdviz.pipeline import (
    PipelineError,
    Workspace,
    absolute_source,
    config_hash,
    file_names,
    generate_folder,
    pseudo_labels,
    read_labels,
    run_stages,
    source_labels,
)
from sdviz.pipeline.diffusion import load_noise_predictor
from tests.tiny_runs import write_pictures, write_tiny_config

CLASSES = ("disk", "ring", "square")


def image_set(images: np.ndarray, ids: list[str] | None = None, **fields: object) -> ImageSet:
    n = len(images)
    made = ImageSet(
        "shapes",
        "test",
        images,
        np.arange(n, dtype=np.int64) % 3,
        np.array(ids or [f"shapes/test/{i:05d}" for i in range(n)]),
        CLASSES,
    )
    return replace(made, **fields)


@pytest.fixture
def saved(tiny_bundle: Callable[..., Bundle], tmp_path: Path) -> Bundle:
    return tiny_bundle().save(tmp_path / "bundle")


def work_in(
    folder: Path, config_path: Path, *overrides: str, stop: Callable[[], bool] = lambda: False
) -> Workspace:
    folder.mkdir(exist_ok=True)
    return Workspace(folder, load_config(config_path, overrides), lambda progress: None, stop)


def pngs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


# --- stages ---------------------------------------------------------------------------------------


def test_all_stages_end_in_a_bundle_that_works(tmp_path: Path, one_thread: None) -> None:
    work = work_in(tmp_path / "run", write_tiny_config(tmp_path, clusterer_steps=60))
    begun: list[tuple[str, bool]] = []
    assert run_stages(work, lambda stage, complete: begun.append((stage, complete)))
    assert begun == [("pseudo_labels", False), ("clusterer", False), ("diffusion", False), ("bundle", False)]
    assert not (work.folder / "diffusion" / "state.pt").exists()

    bundle = Bundle.load(work.folder / "bundle", device="cpu")
    m = bundle.manifest
    assert m.class_names == ("blue", "green", "red")
    assert (m.dataset, m.labels_from, m.image_size) == (work.config.data.id, "ground truth", 8)
    assert (m.max_train_timestep, m.defaults.start_timestep, m.defaults.solver) == (400, 50, "ddim")
    assert m.config["diffusion"]["batch_size"] == 4
    assert m.metrics["images"] == 24
    assert (m.metrics["diffusion_steps"], m.metrics["diffusion_images_seen"]) == (40, 160)
    assert 0 < m.metrics["diffusion_loss"] < 1.1
    assert m.metrics["diffusion_training_sec"] > 0
    labels, _ = bundle.pseudo_label(work.images.images)
    assert (labels == work.images.labels).mean() == 1
    assert bundle.generate(work.images.images[:2], ids=work.images.ids[:2]).outliers.shape == (2, 8, 8, 3)

    # a second time everything is skipped, and a part made otherwise is refused
    begun.clear()
    assert run_stages(work, lambda stage, complete: begun.append((stage, complete)))
    assert begun == [(stage, True) for stage in ("pseudo_labels", "clusterer", "diffusion", "bundle")]
    other = work_in(work.folder, tmp_path / "tiny.yaml", "clusterer.width=5")
    with pytest.raises(PipelineError, match="stage clusterer was made with another configuration"):
        run_stages(other)


def test_the_labels_are_a_table_of_ids(tmp_path: Path) -> None:
    work = work_in(tmp_path / "run", write_tiny_config(tmp_path))
    pseudo_labels.make(work)
    table = pq.read_table(work.folder / "pseudo_labels" / "pseudo_labels.parquet")
    assert table.column_names == ["id", "label", "confidence"]
    assert table["id"].to_pylist() == work.images.ids.tolist()
    assert set(table["confidence"].to_pylist()) == {1.0}
    assert (read_labels(work) == work.images.labels).all()
    # the folder has another picture now
    (tmp_path / "pictures" / "red" / "0.png").unlink()
    with pytest.raises(PipelineError, match="has other images now"):
        read_labels(work_in(tmp_path / "run", tmp_path / "tiny.yaml"))


def test_the_clusterer_is_measured_on_the_test_split(tmp_path: Path, one_thread: None, data_root: Path) -> None:
    config = write_tiny_config(tmp_path)
    small = ["data.id=shapes", "data.limit=60", "data.size_px=32", "clusterer.total_steps=2"]
    work = work_in(tmp_path / "run", config, *small)
    assert not run_stages(replace(work, should_stop=lambda: (work.folder / "clusterer.done.json").exists()))
    metrics = json.loads((work.folder / "clusterer.done.json").read_text())["metrics"]
    assert metrics["clusterer_test_images"] == 4000
    assert 0 <= metrics["clusterer_accuracy"] <= 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.id=shapes-empty", "data.size_px=32"], "2000 of 2000 images have no label"),
        (
            ["data.id=shapes", "data.size_px=32", "data.limit=5"],
            "no image of class '.*' among the 5 to train on",
        ),
        (["data.id=nothing"], "no data set 'nothing'"),
        (["data.id=shapes", "data.size_px=32", "data.limit=200", "data.test_split=val"], "not 'val'"),
        (["diffusion.unet.channels=[8, 8, 8, 8, 8]"], "image size 8 px is not a multiple of 16"),
    ],
)
def test_what_cannot_be_trained_is_found_first(
    tmp_path: Path, data_root: Path, overrides: list[str], expected: str
) -> None:
    work = work_in(tmp_path / "run", write_tiny_config(tmp_path), *overrides)
    with pytest.raises(ValueError, match=expected):
        pseudo_labels.make(work)


def test_one_class_is_refused(tmp_path: Path) -> None:
    config = write_tiny_config(tmp_path)
    for name in ("red", "green"):
        for path in (tmp_path / "pictures" / name).iterdir():
            path.unlink()
        (tmp_path / "pictures" / name).rmdir()
    with pytest.raises(DataError, match="at least 2 classes, there is 1"):
        pseudo_labels.make(work_in(tmp_path / "run", config))


def test_a_stop_before_a_stage_or_inside_one_leaves_it_undone(tmp_path: Path, one_thread: None) -> None:
    config = write_tiny_config(tmp_path)
    folder = tmp_path / "run"
    assert not run_stages(work_in(folder, config, stop=lambda: True))
    assert not (folder / "labels.done.json").exists()
    # stopped in the 6th step of diffusion: resumed from there
    asked = iter([False] * 8)
    inside = work_in(
        folder, config, stop=lambda: (folder / "clusterer.done.json").exists() and not next(asked, None)
    )
    asked = iter([True] * 6)
    assert not run_stages(inside)
    assert (folder / "clusterer.done.json").exists()
    assert not (folder / "diffusion.done.json").exists()
    assert torch.load(folder / "diffusion" / "state.pt", weights_only=True)["step"] == 5
    assert run_stages(work_in(folder, config))


def test_a_finished_training_state_put_in_the_folder_is_taken(tmp_path: Path, one_thread: None) -> None:
    work = work_in(tmp_path / "run", write_tiny_config(tmp_path, clusterer_steps=2))
    config, state = work.config.diffusion, tmp_path / "elsewhere" / "state.pt"
    network = build_noise_predictor(config.unet, 3, 8)
    averaged, complete = train_noise_predictor(
        network, work.images.images, work.images.labels, work.schedule, config, state, "cpu"
    )
    assert complete
    (work.folder / "diffusion").mkdir()
    shutil.copy(state, work.folder / "diffusion" / "state.pt")
    told: list[str] = []
    assert run_stages(replace(work, on_progress=lambda p: told.append(p.stage)))
    assert set(told) == {"clusterer"}
    bundle = Bundle.load(work.folder / "bundle", device="cpu")
    assert bundle.manifest.metrics["diffusion_steps"] == 40
    for name, value in averaged.unet.state_dict().items():
        assert torch.equal(bundle.noise_predictor.unet.state_dict()[name], value.half().float())


def test_the_hash_covers_what_a_stage_depends_on(tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path)
    before = load_config(path)
    wider = load_config(path, ["clusterer.width=5"])
    assert config_hash(before, "clusterer") != config_hash(wider, "clusterer")
    assert config_hash(before, "diffusion") == config_hash(wider, "diffusion")
    assert config_hash(before) != config_hash(wider)
    assert config_hash(before) == config_hash(load_config(path, ["device=auto"]))
    for key in ("seed=1", "data.limit=20"):
        assert config_hash(before, "pseudo_labels") != config_hash(load_config(path, [key]), "pseudo_labels")


def test_channel_means_belong_to_the_outliers_and_not_to_the_training(tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path)
    unshuffled = ["diffusion.unet.pixel_unshuffle=2"]
    known, left = (load_config(path, [*unshuffled, f"diffusion.phase_means={x}"]) for x in ("true", "false"))
    assert config_hash(known, "diffusion") == config_hash(left, "diffusion")
    for stage in ("outliers", "sd_test", "bundle"):
        assert config_hash(known, stage) != config_hash(left, stage)


@pytest.mark.parametrize("known", [True, False])
def test_a_run_knows_the_channel_means_of_its_images(tmp_path: Path, one_thread: None, known: bool) -> None:
    path = write_tiny_config(tmp_path, clusterer_steps=2, diffusion_steps=2)
    overrides = ("diffusion.unet.pixel_unshuffle=2", f"diffusion.phase_means={str(known).lower()}")
    work = work_in(tmp_path / "run", path, *overrides)
    assert run_stages(work)
    bundle = Bundle.load(work.folder / "bundle", device="cpu")
    expected = measure_phases(work.images.images, 2) if known else None
    assert bundle.manifest.phases == expected
    mine, kept = load_noise_predictor(work).phases, bundle.noise_predictor.phases
    assert (mine is not None) == (kept is not None) == known
    if mine is not None and kept is not None:
        assert torch.equal(mine.gain, kept.gain)


def test_absolute_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_source("shapes") == "shapes"
    assert absolute_source("folder:pets") == f"folder:{tmp_path}/pets"
    assert absolute_source("parquet:/a/b.parquet") == "parquet:/a/b.parquet"
    assert absolute_source("folder:") == "folder:"


# --- outliers as a folder -------------------------------------------------------------------------


def test_every_image_gets_a_png_and_a_line(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images, out = image_set(tiny_images(7)), tmp_path / "out"
    recipe = saved.recipe(guidance_interval=(0.1, 1.5), seed=3)
    told: list[tuple[float, int]] = []
    result = generate_folder(saved, images, out, recipe, batch_size=3, on_progress=lambda *p: told.append(p))
    assert (result.there, result.made, result.manifest) == (0, 7, out / "manifest.csv")
    assert [p[0] for p in told] == sorted(p[0] for p in told)
    assert told[-1] == (7, 7)

    lines = manifest(out)
    assert [line["file"] for line in lines] == [f"shapes-test-{i:05d}.png" for i in range(7)]
    assert set(pngs(out)) == {line["file"] for line in lines}
    expected = saved.generate(
        images.images, images.labels, guidance_interval=(0.1, 1.5), seed=3, ids=images.ids
    )
    for i, line in enumerate(lines):
        with Image.open(out / line["file"]) as png:
            assert np.abs(np.asarray(png).astype(int) - expected.outliers[i]).max() <= 1
        assert line["source_id"] == images.ids[i]
        assert line["label_name"] == CLASSES[i % 3]
        assert int(line["target_label"]) == expected.target_labels[i] != i % 3
        assert line["target_name"] == CLASSES[expected.target_labels[i]]
    assert (lines[0]["S"], lines[0]["w"], lines[0]["solver"], lines[0]["seed"]) == ("200", "2.0", "ddim", "3")
    assert (lines[0]["guidance_sigma_lo"], lines[0]["guidance_sigma_hi"]) == ("0.1", "1.5")
    assert float(lines[0]["sigma"]) == pytest.approx(0.719, abs=1e-3)
    assert {line["bundle_sha256"] for line in lines} == {saved.hash}


def test_a_second_call_makes_only_what_is_missing_and_the_same(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images, out = image_set(tiny_images(7)), tmp_path / "out"
    generate_folder(saved, images, out, saved.recipe(), batch_size=3)
    whole, table = pngs(out), (out / "manifest.csv").read_bytes()
    stamps = {name: (out / name).stat().st_mtime_ns for name in whole}

    result = generate_folder(saved, images, out, saved.recipe(), batch_size=3)
    assert (result.there, result.made) == (7, 0)
    assert {name: (out / name).stat().st_mtime_ns for name in whole} == stamps

    # gone, cut off, empty, and the leftover of a killed process
    names = sorted(whole)
    (out / names[1]).unlink()
    (out / names[2]).write_bytes(whole[names[2]][:-20])
    (out / names[6]).write_bytes(b"")
    (out / f".{names[1].removesuffix('.png')}.{'0' * 32}.partial.png").write_bytes(b"half")
    (out / "manifest.csv").unlink()
    result = generate_folder(saved, images, out, saved.recipe(), batch_size=3)
    assert (result.there, result.made) == (4, 3)
    assert pngs(out) == whole
    assert (out / "manifest.csv").read_bytes() == table
    assert not leftovers(out)
    untouched = [name for name in names if name not in (names[1], names[2], names[6])]
    assert all((out / name).stat().st_mtime_ns == stamps[name] for name in untouched)


def test_an_interrupted_call_lists_what_is_there_and_the_next_one_completes_it(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images = image_set(tiny_images(7))
    generate_folder(saved, images, tmp_path / "whole", saved.recipe(), batch_size=2)

    def interrupt(done: float, to_do: int) -> None:
        if done > 4.5:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        generate_folder(saved, images, out, saved.recipe(), batch_size=2, on_progress=interrupt)
    assert len(pngs(out)) == len(manifest(out)) == 4
    result = generate_folder(saved, images, out, saved.recipe(), batch_size=2)
    assert (result.there, result.made) == (4, 3)
    assert pngs(out) == pngs(tmp_path / "whole")
    assert manifest(out) == manifest(tmp_path / "whole")


def test_more_images_extend_a_folder_and_fewer_drop_no_line(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images, out = image_set(tiny_images(6)), tmp_path / "out"
    first = images.take(np.arange(4))
    generate_folder(saved, first, out, saved.recipe())
    result = generate_folder(saved, images, out, saved.recipe())
    assert (result.there, result.made) == (4, 2)
    assert len(manifest(out)) == 6
    result = generate_folder(saved, first, out, saved.recipe())
    assert (result.there, result.made) == (4, 0)
    assert sorted(line["file"] for line in manifest(out)) == sorted(pngs(out))
    assert len(manifest(out)) == 6


def test_another_recipe_bundle_or_source_is_refused(
    saved: Bundle, tiny_bundle: Callable[..., Bundle], tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images, out = image_set(tiny_images(2)), tmp_path / "out"
    generate_folder(saved, images, out, saved.recipe())
    before = pngs(out)
    other = tiny_bundle(seed=1).save(tmp_path / "other")
    for bundle, sources, recipe, target, key in (
        (saved, images, saved.recipe(guidance_scale=3.0), "random", "guidance_scale 2.0, now 3.0"),
        (saved, images, saved.recipe(seed=1), "random", "seed 0, now 1"),
        (saved, images, saved.recipe(), "right", "target random, now right"),
        (saved, images, saved.recipe(), 1, "target random, now 1"),
        (saved, replace(images, split="train"), saved.recipe(), "random", "split test, now train"),
        (saved, replace(images, name="digits"), saved.recipe(), "random", "source shapes, now digits"),
        (other, images, other.recipe(), "random", "bundle_sha256"),
    ):
        with pytest.raises(PipelineError, match=key):
            generate_folder(bundle, sources, out, recipe, target)
    assert pngs(out) == before


def test_a_folder_of_something_else_is_left_alone(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images = image_set(tiny_images(2))
    taken = write_pictures(tmp_path / "pictures", 1)
    with pytest.raises(PipelineError, match="is not empty and not a folder of outliers"):
        generate_folder(saved, images, taken, saved.recipe())
    assert sorted(p.name for p in taken.iterdir()) == ["blue", "green", "red"]
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(PipelineError, match="is a file"):
        generate_folder(saved, images, file, saved.recipe())
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "recipe.json").write_text("{")
    with pytest.raises(PipelineError, match="recipe.json is damaged"):
        generate_folder(saved, images, damaged, saved.recipe())


def test_two_processes_do_not_work_in_one_folder(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    images, out = image_set(tiny_images(2)), tmp_path / "out"
    generate_folder(saved, images, out, saved.recipe())
    with FileLock(out / ".lock"), pytest.raises(PipelineError, match="another process"):
        generate_folder(saved, images, out, saved.recipe())


def test_targets(saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path) -> None:
    images = image_set(tiny_images(5))
    for target, expected in (("right", images.labels.tolist()), (2, [2] * 5)):
        out = tmp_path / f"out-{target}"
        generate_folder(saved, images, out, saved.recipe(), target)
        assert [int(line["target_label"]) for line in manifest(out)] == expected
    with pytest.raises(PipelineError, match="target: 3 is outside 0..2"):
        generate_folder(saved, images, tmp_path / "none", saved.recipe(), 3)
    assert not (tmp_path / "none").exists()


def test_labels_are_the_sets_own_only_where_the_bundle_learned_them(
    tiny_bundle: Callable[..., Bundle], tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    bundle, images = tiny_bundle(), image_set(tiny_images(40))
    guessed = bundle.pseudo_label(images.images)[0]
    assert (guessed != images.labels).any()
    assert (source_labels(bundle, images) == images.labels).all()
    # unlabelled ones among them are guessed
    some = np.where(np.arange(40) < 20, images.labels, -1)
    mixed = source_labels(bundle, replace(images, labels=some))
    assert (mixed[:20] == images.labels[:20]).all() and (mixed[20:] == guessed[20:]).all()
    # another set's labels, other names, another source of labels: all guessed
    assert (source_labels(bundle, replace(images, name="digits")) == guessed).all()
    assert (source_labels(bundle, replace(images, class_names=("a", "b", "c"))) == guessed).all()
    assert (source_labels(tiny_bundle(labels_from="SCAN"), images) == guessed).all()
    blind = tiny_bundle(clusterer=False)
    with pytest.raises(PipelineError, match="no clusterer"):
        generate_folder(blind, replace(images, name="digits"), tmp_path / "out", blind.recipe())


# --- file names -----------------------------------------------------------------------------------

HOSTILE = [
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a-b",
    "a_b",
    "A/B",
    "..",
    ".",
    "",
    "con",
    "x" * 500,
    "x" * 501,
    "Ümläut/鳥/1",
    "Ümläut/鳥/2",
    "鳥",
    "new\nline",
    "quo\"te,comma;='",
    "back\\slash",
    "shapes/test/../00001",
    "shapes/test/00001.png",
    "shapes/Test/00001",
    "n/s/tv-1",
    "n-s/tv/1",
    "n-s-tv-1",
    "shapes-test-00001",
    "shapes/test-00001",
    "-rf",
    "~",
    "%2e%2e%2f",
]


def test_hostile_ids_get_plain_names_that_differ(tiny_images: Callable[..., np.ndarray]) -> None:
    ids = [*HOSTILE, "shapes/test/00001", "shapes-novel/test/00001", "cifar10/test/tv-00001"]
    names = file_names(image_set(tiny_images(len(ids)), ids))
    assert len({name.casefold() for name in names}) == len(ids)
    assert names[-3:] == ["shapes-test-00001.png", "shapes-novel-test-00001.png", "cifar10-test-tv-00001.png"]
    for name in names:
        assert name.isascii() and name.endswith(".png") and len(name) < 120
        assert Path(name).name == name and not name.startswith((".", "-"))
    # a name depends on its own id alone
    assert file_names(image_set(tiny_images(len(ids)), ids[::-1])) == names[::-1]


def test_hostile_ids_stay_in_the_folder_and_in_the_manifest(
    saved: Bundle, tiny_images: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "out"
    images = image_set(tiny_images(len(HOSTILE)), HOSTILE)
    generate_folder(saved, images, out, saved.recipe())
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]
    assert [line["source_id"] for line in manifest(out)] == HOSTILE
    assert {line["file"] for line in manifest(out)} == set(pngs(out))


def test_ids_that_are_not_unique_or_not_text_are_refused(tiny_images: Callable[..., np.ndarray]) -> None:
    with pytest.raises(DataError, match="1 images have the id of another one"):
        file_names(image_set(tiny_images(3), ["a", "b", "a"]))
    with pytest.raises(DataError, match="is not text"):
        file_names(image_set(tiny_images(1), ["\udcff"]))


def test_drawn_ids_are_plain() -> None:
    for name in ("shapes", "shapes-novel", "shapes-empty", "digits"):
        images = data.load(name, data.splits(name)[-1], limit=2)
        assert all("_" not in one for one in file_names(images))
