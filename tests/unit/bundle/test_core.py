from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdviz import data
from sdviz.bundle import MANIFEST, Bundle, BundleError
from sdviz.config.nodes import UNetConfig
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.nn.classifier import SmallClassifier
from sdviz.nn.phase_means import measure_phases
from sdviz.nn.randomness import content_ids
from sdviz.nn.unet import NoisePredictor
from sdviz.outliers import OutlierBatch, draw_target_labels
from tests.bundle_folders import WEIGHTS, edit_json, edit_manifest, sign
from tests.full_disk import largest_file
from tests.grey_levels import grey_levels
from tests.stages import everything_in
from tests.tiny_bundle import save_tiny_bundle

MakeBundle = Callable[..., Bundle]
MakeImages = Callable[..., np.ndarray]


def exchange(bundle: Bundle, **networks: torch.nn.Module | None) -> None:
    """Puts other networks into a bundle in memory."""
    bundle._networks |= networks


def same_pictures(a: OutlierBatch, b: OutlierBatch) -> bool:
    return bool((a.outliers == b.outliers).all() and (a.noised == b.noised).all())


@pytest.mark.parametrize("pixel_unshuffle", [1, 2])
def test_what_is_loaded_does_what_was_saved(
    tiny_bundle: MakeBundle, tiny_images: MakeImages, tmp_path: Path, pixel_unshuffle: int
) -> None:
    made = tiny_bundle(pixel_unshuffle=pixel_unshuffle)
    saved = made.save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle", device="cpu")
    images = tiny_images(5)
    assert same_pictures(loaded.generate(images), saved.generate(images))
    assert (loaded.pseudo_label(images)[0] == made.pseudo_label(images)[0]).all()
    np.testing.assert_allclose(loaded.pseudo_label(images)[1], made.pseudo_label(images)[1], atol=1e-6)
    assert torch.equal(loaded.schedule.alphas_cumprod, made.schedule.alphas_cumprod)
    assert loaded.hash == saved.hash != ""
    assert loaded.path == saved.path == tmp_path / "bundle"
    assert (loaded.n_clusters, loaded.class_names) == (3, ("disk", "ring", "square"))
    # all but what saving adds
    before, after = made.manifest.model_dump(), loaded.manifest.model_dump()
    assert after | {"files": {}, "clusterer": None} == before | {"files": {}, "clusterer": None}


def test_channel_means_are_kept_and_used(
    tiny_bundle: MakeBundle, tiny_images: MakeImages, tmp_path: Path
) -> None:
    statistics = measure_phases(tiny_images(40), 2)
    plain = tiny_bundle(pixel_unshuffle=2).save(tmp_path / "plain")
    loaded = tiny_bundle(pixel_unshuffle=2, phases=statistics).save(tmp_path / "bundle")
    assert loaded.manifest.phases == Bundle.load(tmp_path / "bundle").manifest.phases == statistics
    assert loaded.noise_predictor.phases is not None
    assert plain.noise_predictor.phases is None
    given = tiny_images(4, seed=1)
    outliers = [one.generate(given).outliers.astype(float) for one in (plain, loaded)]
    # each phase of each picture moves as a whole, by what the noise had left in it
    moved = outliers[1] - outliers[0]
    assert np.abs(moved[:, ::2, ::2].mean((1, 2))).max() > 0.3


def test_float16_on_disk_changes_the_pictures_by_less_than_a_grey_level(
    tiny_bundle: MakeBundle, tiny_images: MakeImages, tmp_path: Path
) -> None:
    made = tiny_bundle()
    saved = made.save(tmp_path / "bundle")
    stored = load_file(tmp_path / "bundle" / WEIGHTS)
    assert {p.dtype for p in stored.values()} == {torch.float16}
    assert {p.dtype for p in saved.noise_predictor.parameters()} == {torch.float32}
    assert {p.dtype for p in made.noise_predictor.parameters()} == {torch.float32}
    for name, p in made.noise_predictor.unet.state_dict().items():
        assert torch.equal(saved.noise_predictor.unet.state_dict()[name], p.half().float())
    assert grey_levels(made.generate(tiny_images(5)).outliers, saved.generate(tiny_images(5)).outliers) < 1


def test_saved_again_it_is_the_same_bundle_wherever_it_lies(
    tiny_bundle: MakeBundle, folder: Path, tmp_path: Path
) -> None:
    again = Bundle.load(folder, "cpu").save(tmp_path / "elsewhere" / "copy")
    assert everything_in(folder) == everything_in(tmp_path / "elsewhere" / "copy")
    assert again.hash == Bundle.load(folder, "cpu").hash
    # no path of the machine that made it
    assert all(str(tmp_path).encode() not in raw for raw in everything_in(tmp_path / "elsewhere").values())


def test_loaded_networks_are_in_eval_mode_and_take_no_gradient(folder: Path) -> None:
    bundle = Bundle.load(folder, "cpu")
    assert bundle.clusterer is not None
    for network in (bundle.noise_predictor.unet, bundle.clusterer):
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())


def test_the_hash_changes_with_every_file(tiny_bundle: MakeBundle, tmp_path: Path) -> None:
    first = tiny_bundle()
    others = {
        "U-Net": tiny_bundle(seed=1),
        "configuration": tiny_bundle(config={"seed": 5}),
        "schedule": tiny_bundle(),
        "clusterer": tiny_bundle(),
        "no clusterer": tiny_bundle(clusterer=False),
    }
    exchange(others["U-Net"], clusterer=first.clusterer)
    others["schedule"].schedule = NoiseSchedule.linear(500)
    exchange(others["clusterer"], clusterer=tiny_bundle(seed=2).clusterer)
    hashes = {name: bundle.save(tmp_path / name).hash for name, bundle in others.items()}
    hashes["first"] = first.save(tmp_path / "first").hash
    assert len(set(hashes.values())) == len(hashes)
    for file in everything_in(tmp_path / "first"):
        shutil.copytree(tmp_path / "first", tmp_path / "copy")
        if file == MANIFEST:
            edit_manifest(tmp_path / "copy", dataset="digits")
        elif file.endswith(".json"):
            edit_json(tmp_path / "copy" / file, remark="new")
        else:
            tensors = load_file(tmp_path / "copy" / file)
            name = next(name for name, p in tensors.items() if p.is_floating_point())
            save_file(tensors | {name: tensors[name] + 1}, tmp_path / "copy" / file)
        sign(tmp_path / "copy")
        assert Bundle.load(tmp_path / "copy", "cpu").hash != hashes["first"], file
        shutil.rmtree(tmp_path / "copy")


def test_how_fast_it_was_made_is_not_in_the_hash(tiny_bundle: MakeBundle, tmp_path: Path) -> None:
    slow, fast = (tiny_bundle(metrics={"diffusion_training_sec": sec}) for sec in (900.5, 80.25))
    assert slow.save(tmp_path / "slow").hash == fast.save(tmp_path / "fast").hash


def test_saving_over_a_bundle_replaces_it_whole(
    tiny_bundle: MakeBundle, folder: Path, tiny_images: MakeImages
) -> None:
    opened = Bundle.load(folder, "cpu")
    before = opened.generate(tiny_images(2))
    saved = tiny_bundle(clusterer=False, seed=1).save(folder)
    assert "clusterer.safetensors" not in everything_in(folder)
    assert Bundle.load(folder, "cpu").hash == saved.hash != opened.hash
    # who had it open keeps the old one
    assert same_pictures(opened.generate(tiny_images(2)), before)
    assert [p.name for p in folder.parent.iterdir()] == ["bundle"]


def test_saving_into_an_empty_folder_or_a_new_one(tiny_bundle: MakeBundle, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "new" / "deep", str(tmp_path / "text")):
        assert tiny_bundle().save(path).hash == Bundle.load(path, "cpu").hash


@pytest.mark.parametrize("size", [100, 10_000])
def test_a_full_disk_leaves_the_old_bundle_whole(tiny_bundle: MakeBundle, folder: Path, size: int) -> None:
    before = everything_in(folder)
    with largest_file(size), pytest.raises(Exception, match="(?i)file too large|os error 27"):
        tiny_bundle(seed=1).save(folder)
    assert everything_in(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == ["bundle"]


def test_parts_that_do_not_fit_leave_the_old_bundle_whole(tiny_bundle: MakeBundle, folder: Path) -> None:
    before = everything_in(folder)
    odd = tiny_bundle(n_clusters=2, class_names=("disk", "ring"))
    with pytest.raises(BundleError, match="num_class_embeds is 4"):
        odd.save(folder)
    assert everything_in(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_not_overwritten(tiny_bundle: MakeBundle, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.png").write_bytes(b"cat")
    (tmp_path / "file").write_text("text")
    for path in (photos, tmp_path / "file"):
        with pytest.raises(BundleError, match="is there and is not a bundle: not overwritten"):
            tiny_bundle().save(path)
    (photos / MANIFEST).write_text("{}")
    with pytest.raises(BundleError, match="is there and is not a bundle: not overwritten"):
        tiny_bundle().save(photos)
    assert (photos / "cat.png").read_bytes() == b"cat"
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.parametrize("name", ["notes.txt", ".git", "unet/more.json"])
def test_a_bundle_with_someone_elses_file_in_it_is_not_overwritten(
    tiny_bundle: MakeBundle, folder: Path, name: str
) -> None:
    (folder / name).write_text("mine")
    with pytest.raises(BundleError, match="does not belong to the bundle there: not overwritten") as refused:
        tiny_bundle().save(folder)
    assert str(folder / name) in str(refused.value)
    assert (folder / name).read_text() == "mine"


def test_what_an_earlier_crash_left_stands_in_nobodys_way(tiny_bundle: MakeBundle, folder: Path) -> None:
    for left in ("bundle.partial", "bundle.old"):
        shutil.copytree(folder, folder.parent / left)
    saved = tiny_bundle(seed=1).save(folder)
    assert Bundle.load(folder, "cpu").hash == saved.hash
    assert [p.name for p in folder.parent.iterdir()] == ["bundle"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_where_there_is_none(folder: Path) -> None:
    with pytest.raises(ValueError, match="device 'cuda': this machine has 0 CUDA devices") as refused:
        Bundle.load(folder, device="cuda")
    assert not isinstance(refused.value, BundleError)


def test_device_auto_takes_what_there_is(folder: Path) -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert Bundle.load(folder).device.type == expected


def test_pseudo_labels_are_the_clusterers(tiny_bundle: MakeBundle, tiny_images: MakeImages) -> None:
    bundle, images = tiny_bundle(), tiny_images(7)
    labels, confidence = bundle.pseudo_label(images)
    assert (labels.shape, labels.dtype) == ((7,), np.int64)
    assert (confidence.shape, confidence.dtype) == ((7,), np.float32)
    assert bundle.clusterer is not None
    x = torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    probabilities = bundle.clusterer(x).softmax(1).detach().numpy()
    assert (labels == probabilities.argmax(1)).all()
    np.testing.assert_allclose(confidence, probabilities.max(1), atol=1e-6)
    again = [bundle.pseudo_label(images[i : i + 2])[0] for i in range(0, 7, 2)]
    assert (np.concatenate(again) == labels).all()


def test_a_clusterer_still_in_training_mode_labels_each_image_by_itself(
    tiny_bundle: MakeBundle, tiny_images: MakeImages
) -> None:
    bundle = tiny_bundle()
    assert bundle.clusterer is not None
    _, expected = bundle.pseudo_label(tiny_images(4))
    before = {name: p.clone() for name, p in bundle.clusterer.state_dict().items()}
    bundle.clusterer.train()
    _, confidence = bundle.pseudo_label(tiny_images(4))
    np.testing.assert_allclose(confidence, expected, atol=1e-6)
    assert all(torch.equal(p, before[name]) for name, p in bundle.clusterer.state_dict().items())


def test_without_labels_the_clusterer_gives_them(tiny_bundle: MakeBundle, tiny_images: MakeImages) -> None:
    bundle, images = tiny_bundle(), tiny_images(7)
    expected, _ = bundle.pseudo_label(images)
    assert (bundle.generate(images).labels == expected).all()
    given = (expected + 1) % 3
    mixed = np.where(np.arange(7) % 2, given, -1)
    assert (bundle.generate(images, labels=mixed).labels == np.where(mixed == -1, expected, given)).all()
    assert (mixed == np.where(np.arange(7) % 2, given, -1)).all()


def test_without_a_clusterer_labels_are_needed(
    tiny_bundle: MakeBundle, tiny_images: MakeImages, tmp_path: Path
) -> None:
    bundle = tiny_bundle(clusterer=False).save(tmp_path / "bundle")
    images = tiny_images(2)
    assert bundle.generate(images, labels=[0, 2]).labels.tolist() == [0, 2]
    for use in (
        lambda: bundle.generate(images),
        lambda: bundle.generate(images, labels=[0, -1]),
        lambda: bundle.pseudo_label(images),
    ):
        with pytest.raises(ValueError, match="this bundle has no clusterer: give the labels"):
            use()


def test_features_say_what_is_missing(tiny_bundle: MakeBundle, tiny_images: MakeImages) -> None:
    with pytest.raises(ValueError, match="neither a detector nor an encoder"):
        tiny_bundle().features(tiny_images(1))


def test_none_takes_the_bundles_defaults(tiny_bundle: MakeBundle, tiny_images: MakeImages) -> None:
    bundle, images = tiny_bundle(), tiny_images(3)
    batch = bundle.generate(images)
    assert batch.recipe == bundle.recipe(200, 2.0, 4, "ddim", 0.0, None, 0)
    explicit = bundle.generate(
        images, start_timestep=200, guidance_scale=2.0, num_inference_steps=4, solver="ddim"
    )
    assert same_pictures(batch, explicit)
    for change in (
        {"start_timestep": 100},
        {"guidance_scale": 0.0},
        {"num_inference_steps": 2},
        {"solver": "ddpm"},
        {"eta": 1.0},
        {"guidance_interval": (0.0, 0.1)},
        {"seed": 1},
    ):
        assert grey_levels(bundle.generate(images, **change).outliers, batch.outliers) > 0.2, change


def test_zeros_are_not_taken_for_none(tiny_bundle: MakeBundle, tiny_images: MakeImages) -> None:
    bundle, images = tiny_bundle(), tiny_images(3)
    assert bundle.generate(images, guidance_scale=0).recipe.guidance_scale == 0
    for steps in (1, 4, 1000):
        batch = bundle.generate(images, start_timestep=0, num_inference_steps=steps)
        assert (batch.outliers == images).all()
        assert (batch.noised == images).all()


def test_the_right_label_is_the_control_and_used_as_it_is(
    tiny_bundle: MakeBundle, tiny_images: MakeImages
) -> None:
    bundle, images, labels = tiny_bundle(), tiny_images(3), np.array([2, 0, 1])
    control = bundle.generate(images, labels, target_labels=labels)
    outlier = bundle.generate(images, labels)
    assert (control.target_labels == labels).all()
    assert (outlier.target_labels != labels).all()
    assert (control.labels == outlier.labels).all()
    assert grey_levels(control.outliers, outlier.outliers) > 0.5
    assert (control.noised == outlier.noised).all()


def test_wrong_labels_are_drawn_by_eq_2(tiny_bundle: MakeBundle, tiny_images: MakeImages) -> None:
    bundle, images, labels = tiny_bundle(), tiny_images(6), np.array([0, 1, 2, 0, 1, 2])
    ids = np.array([f"id {i}" for i in range(6)])
    for seed in (0, 3):
        batch = bundle.generate(images, labels, ids=ids, seed=seed, start_timestep=1)
        assert (batch.target_labels == draw_target_labels(labels, ids, 3, seed)).all()


def test_without_ids_an_image_is_known_by_its_bytes(tiny_bundle: MakeBundle, tiny_images: MakeImages) -> None:
    bundle, images = tiny_bundle(), tiny_images(5)
    batch = bundle.generate(images)
    assert (batch.ids == content_ids(images)).all()
    assert same_pictures(batch, bundle.generate(images, ids=content_ids(images)))
    assert not same_pictures(batch, bundle.generate(images, ids=list("abcde")))
    shuffled = bundle.generate(images[[3, 1]])
    assert grey_levels(shuffled.outliers, batch.outliers[[3, 1]]) < 1
    assert (shuffled.target_labels == batch.target_labels[[3, 1]]).all()


@pytest.mark.parametrize("solver", ["ddim", "ddpm", "dpmpp_2m"])
def test_an_image_gets_the_same_outlier_alone_and_in_any_batch(
    tiny_bundle: MakeBundle, tiny_images: MakeImages, solver: str
) -> None:
    bundle, images = tiny_bundle(), tiny_images(7)
    ids = [f"id {i}" for i in range(7)]
    whole = bundle.generate(images, solver=solver, eta=0.5, ids=ids)
    assert grey_levels(whole.outliers, whole.noised) > 3
    for batch_size in (1, 3):
        part = bundle.generate(images, solver=solver, eta=0.5, ids=ids, batch_size=batch_size)
        assert grey_levels(part.outliers, whole.outliers) < 1
    alone = bundle.generate(images[5:6], solver=solver, eta=0.5, ids=ids[5:6])
    assert grey_levels(alone.outliers, whole.outliers[5:6]) < 1
    # and all of them differ
    assert grey_levels(whole.outliers[:-1], whole.outliers[1:]) > 10


def test_generating_changes_nothing_in_what_it_was_given(
    tiny_bundle: MakeBundle, tiny_images: MakeImages
) -> None:
    bundle, images, labels = tiny_bundle(), tiny_images(3), np.array([-1, 0, 1])
    images.setflags(write=False)
    labels.setflags(write=False)
    weights = {name: p.clone() for name, p in bundle.noise_predictor.state_dict().items()}
    bundle.generate(images, labels, target_labels=labels.clip(0))
    assert all(torch.equal(p, weights[name]) for name, p in bundle.noise_predictor.state_dict().items())


def test_the_callback_sees_progress_and_predictions(tiny_bundle: MakeBundle, tiny_images: MakeImages) -> None:
    steps: list[int] = []

    def callback(step: int, x: torch.Tensor, x_0: torch.Tensor) -> None:
        assert x.shape == x_0.shape == (3, 3, 8, 8)
        assert x_0.min() >= -1
        assert x_0.max() <= 1
        steps.append(step)

    tiny_bundle().generate(tiny_images(3), callback=callback)
    assert steps == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_timestep": -1}, r"start_timestep S = -1 is outside 0\.\.400"),
        ({"start_timestep": 401}, r"start_timestep S = 401 is outside 0\.\.400"),
        ({"start_timestep": 2.5}, r"start_timestep S = 2\.5 is not a whole number in 0\.\.400"),
        ({"guidance_scale": float("nan")}, r"guidance_scale w = nan is not a number in -1\.\.20"),
        ({"guidance_scale": 21}, r"guidance_scale w = 21 is outside -1\.\.20"),
        ({"num_inference_steps": 0}, r"num_inference_steps = 0 is outside 1\.\.1000"),
        ({"eta": 2}, r"eta = 2 is outside 0\.\.1"),
        ({"solver": "euler"}, "solver 'euler' is not one of ddim, ddpm, dpmpp_2m"),
        ({"guidance_interval": (1, 0)}, r"guidance_interval \(1, 0\) is not \(sigma_lo, sigma_hi\)"),
        ({"seed": -1}, r"seed = -1 is outside 0\.\."),
        ({"labels": [0, 10]}, r"labels: 10 is outside 0\.\.2"),
        ({"labels": [0, -2]}, r"labels: -2 is outside 0\.\.2"),
        ({"labels": [0]}, r"labels: shape \(1,\), but there are 2 images"),
        ({"labels": [0.0, 1.0]}, "labels must be whole numbers, not float64"),
        ({"labels": [True, False]}, "labels must be whole numbers, not bool"),
        ({"target_labels": [0, -1]}, r"target_labels: -1 is outside 0\.\.2"),
        ({"target_labels": [0, 3]}, r"target_labels: 3 is outside 0\.\.2"),
        ({"target_labels": 1}, r"target_labels: shape \(\), but there are 2 images"),
        ({"ids": ["a"]}, r"ids: shape \(1,\), but there are 2 images"),
        ({"batch_size": 0}, "batch_size 0 is not at least 1"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "no images were given"),
        ({"images": np.zeros((2, 8, 8, 3))}, r"images must be uint8 \(N,8,8,3\), not float64"),
        ({"images": np.zeros((2, 9, 9, 3), np.uint8)}, r"must be uint8 \(N,8,8,3\), not uint8 \(2, 9, 9, 3\)"),
        ({"images": np.zeros((8, 8, 3), np.uint8)}, r"must be uint8 \(N,8,8,3\), not uint8 \(8, 8, 3\)"),
    ],
)
def test_refuses_what_is_out_of_range_with_its_name_value_and_range(
    tiny_bundle: MakeBundle, tiny_images: MakeImages, change: dict[str, Any], message: str
) -> None:
    arguments = {"images": tiny_images(2)} | change
    with pytest.raises(ValueError, match=message):
        tiny_bundle().generate(**arguments)


def test_one_cluster_has_no_wrong_label(
    tiny_network: Callable[..., NoisePredictor], tiny_bundle: MakeBundle
) -> None:
    made = tiny_bundle(clusterer=False, n_clusters=1, class_names=("disk",))
    config = UNetConfig(channels=(8, 8), layers_per_block=1, pixel_unshuffle=1)
    exchange(made, noise_predictor=tiny_network(config, n_classes=1))
    images = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="at least 2 clusters, there is 1"):
        made.generate(images, labels=[0])
    assert made.generate(images, labels=[0], target_labels=[0]).target_labels.tolist() == [0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("solver", ["ddim", "ddpm", "dpmpp_2m"])
def test_cpu_and_gpu_agree_within_a_grey_level(folder: Path, tiny_images: MakeImages, solver: str) -> None:
    images = tiny_images(7)
    cpu, gpu = (
        Bundle.load(folder, device).generate(images, solver=solver, eta=0.5) for device in ("cpu", "cuda")
    )
    assert (cpu.labels == gpu.labels).all()
    assert (cpu.target_labels == gpu.target_labels).all()
    assert grey_levels(cpu.outliers, gpu.outliers) < 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_bundle_on_the_gpu_saves_and_loads(folder: Path, tiny_images: MakeImages, tmp_path: Path) -> None:
    bundle = Bundle.load(folder, "cuda")
    before = bundle.generate(tiny_images(3))
    again = bundle.save(tmp_path / "again")
    assert again.device.type == "cuda"
    assert again.hash == bundle.hash
    assert grey_levels(again.generate(tiny_images(3)).outliers, before.outliers) < 1


def test_a_lazy_bundle_loads_networks_when_they_are_wanted(tmp_path: Path) -> None:
    path = save_tiny_bundle(tmp_path / "b")
    whole, lazy = Bundle.load(path, "cpu"), Bundle.load(path, "cpu", lazy=True)
    assert lazy.has_clusterer and not lazy.has_detector and lazy.encoder is None
    images = data.load("shapes", "test", limit=2)
    expected = whole.generate(images.images, ids=images.ids).outliers
    assert np.array_equal(lazy.generate(images.images, ids=images.ids).outliers, expected)


def test_opening_a_lazy_bundle_imports_no_diffusers(tmp_path: Path) -> None:
    path = save_tiny_bundle(tmp_path / "b")
    code = (
        "import sys; from sdviz.bundle import Bundle\n"
        f"Bundle.load({str(path)!r}, 'cpu', lazy=True)\n"
        "print([m for m in ('diffusers', 'timm', 'torchvision') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_lazy_bundle_refuses_a_foreign_network_when_it_is_wanted(tmp_path: Path) -> None:
    path = save_tiny_bundle(tmp_path / "b")
    save_file({"a": torch.zeros(1)}, path / "clusterer.safetensors")
    manifest = json.loads((path / "bundle.json").read_text())
    manifest["files"]["clusterer.safetensors"] = hashlib.sha256(
        (path / "clusterer.safetensors").read_bytes()
    ).hexdigest()
    (path / "bundle.json").write_text(json.dumps(manifest))
    lazy = Bundle.load(path, "cpu", lazy=True)
    with pytest.raises(BundleError, match="not this bundle's clusterer"):
        lazy.load_networks()
    with pytest.raises(BundleError, match="not this bundle's clusterer"):
        Bundle.load(path, "cpu")


def test_networks_load_in_several_threads_at_once(tmp_path: Path) -> None:
    folder = save_tiny_bundle(tmp_path / "bundle")
    want = Bundle.load(folder, "cpu").noise_predictor.state_dict()
    done = threading.Event()
    foreign: list[str] = []

    def make_others() -> None:
        while not done.is_set():
            foreign.extend(p.device.type for p in SmallClassifier(3).parameters() if p.device.type != "cpu")

    other = threading.Thread(target=make_others)
    other.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            for loaded in pool.map(lambda _: Bundle.load(folder, "cpu"), range(24)):
                found = loaded.noise_predictor.state_dict()
                assert all(torch.equal(found[name], value) for name, value in want.items())
    finally:
        done.set()
        other.join()
    assert foreign == []
