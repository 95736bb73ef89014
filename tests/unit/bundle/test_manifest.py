"""What is read before any network: bundle.json and the list of files."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sdviz.bundle import MANIFEST, Bundle, read_manifest
from tests.bundle_folders import WEIGHTS, edit_manifest, hash_of, refusal, sign


def test_the_manifest_is_read_without_the_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    manifest, digest = read_manifest(folder)
    assert manifest.class_names == ("disk", "ring", "square")
    assert manifest.defaults.solver == "ddim"
    assert digest == hash_of(folder)
    assert set(manifest.versions) == {"torch", "diffusers", "numpy", "sdviz", "python"}


def test_no_bundle_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        assert refusal(path) == f"{path} is not a bundle: it has no bundle.json"


@pytest.mark.parametrize(
    "name", ["clusterer.safetensors", "scheduler/scheduler_config.json", "unet/config.json", WEIGHTS]
)
class TestEachFile:
    def test_missing(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        assert refusal(folder) == f"{folder / name} is missing"

    def test_missing_from_the_list_too(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        sign(folder)
        assert refusal(folder) == f"{folder / name} is missing"

    def test_one_byte_altered(self, folder: Path, name: str) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[len(raw) // 2] ^= 1
        (folder / name).write_bytes(raw)
        assert refusal(folder).startswith(f"{folder / name} was changed or cut")

    def test_cut(self, folder: Path, name: str) -> None:
        raw = (folder / name).read_bytes()
        for keep in (0, len(raw) // 2, len(raw) - 1):
            (folder / name).write_bytes(raw[:keep])
            assert refusal(folder).startswith(f"{folder / name} was changed or cut")

    def test_cut_and_signed(self, folder: Path, name: str) -> None:
        raw = (folder / name).read_bytes()
        for keep in (0, 5, len(raw) // 2, len(raw) - 2):
            (folder / name).write_bytes(raw[:keep])
            sign(folder)
            message = refusal(folder)
            assert str(folder / name) in message
            assert "was changed" not in message

    def test_a_link_to_the_same_bytes(self, folder: Path, name: str) -> None:
        moved = folder.parent / "moved"
        (folder / name).rename(moved)
        (folder / name).symlink_to(moved)
        assert refusal(folder) == f"{folder / name}: leads out of the bundle"

    def test_someone_elses(self, folder: Path, name: str) -> None:
        if name.endswith(".json"):
            (folder / name).write_text('{"_class_name": "Other"}')
        else:
            save_file({"weight": torch.zeros(3)}, folder / name)
        sign(folder)
        message = refusal(folder)
        assert message.startswith(f"{folder / name}: ")


def test_a_linked_folder_or_manifest_leads_out(folder: Path) -> None:
    shutil.move(folder / "unet", folder.parent / "moved")
    (folder / "unet").symlink_to(folder.parent / "moved")
    # found before anything under it is opened
    assert "leads out of the bundle" in refusal(folder)
    (folder / "unet").unlink()
    shutil.move(folder.parent / "moved", folder / "unet")
    Bundle.load(folder, "cpu")
    (folder / MANIFEST).rename(folder.parent / "moved.json")
    (folder / MANIFEST).symlink_to(folder.parent / "moved.json")
    assert refusal(folder) == f"{folder / MANIFEST}: leads out of the bundle"


@pytest.mark.parametrize("name", ["../secret.json", "unet/../../secret.json", "/etc/hostname"])
def test_a_path_that_leads_out_is_never_opened(folder: Path, name: str) -> None:
    (folder.parent / "secret.json").write_text("{}")
    files = json.loads((folder / MANIFEST).read_text())["files"]
    digest = hashlib.sha256(b"{}").hexdigest()
    edit_manifest(folder, files=files | {name: digest})
    assert refusal(folder) == f"{folder / name}: leads out of the bundle"


@pytest.mark.parametrize("name", ["notes.txt", "unet/config.old.json", "more.safetensors", "link"])
def test_a_file_that_is_not_listed_is_foreign(folder: Path, name: str) -> None:
    if name == "link":
        (folder / name).symlink_to(folder.parent)
    else:
        (folder / name).write_text("{}")
    assert refusal(folder) == f"{folder / name} does not belong to the bundle: {MANIFEST} does not list it"


def test_hidden_files_of_the_file_system_are_left_alone(folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "unet" / ".cache").mkdir()
    (folder / "unet" / ".cache" / "x").write_bytes(b"\0")
    Bundle.load(folder, "cpu")


class Evil:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize(
    "name",
    [
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.BIN",
        "clusterer.pt",
        "detector.pth",
        "features.npy",
        "x.pkl",
    ],
)
@pytest.mark.parametrize("signed", [True, False])
def test_a_pickle_is_refused_and_never_loaded(folder: Path, name: str, signed: bool) -> None:
    trace = folder.parent / "was run"
    torch.save({"weight": Evil(trace)}, folder / name)
    if signed:
        sign(folder)
    assert refusal(folder) == f"{folder / name}: may hold a pickle, which is never loaded; use safetensors"
    assert not trace.exists()
    # the trap is a real one
    with (folder / "x").open("wb") as file:
        pickle.dump(Evil(trace), file)
    pickle.loads((folder / "x").read_bytes())
    assert trace.exists()


def test_a_pickle_in_place_of_the_weights_is_never_loaded(folder: Path) -> None:
    trace = folder.parent / "was run"
    torch.save({"weight": Evil(trace)}, folder / WEIGHTS)
    sign(folder)
    assert refusal(folder).startswith(f"{folder / WEIGHTS}: not this bundle's U-Net")
    assert not trace.exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"bundle"', "not json", "[" * 100_000, "\ud800".encode("utf-16", "surrogatepass")],
)
def test_a_manifest_that_is_no_json_object(folder: Path, text: str | bytes) -> None:
    (folder / MANIFEST).write_bytes(text if isinstance(text, bytes) else text.encode())
    message = refusal(folder)
    assert message.startswith(f"{folder / MANIFEST}: not ")
    assert "JSON" in message


@pytest.mark.parametrize(
    ("version", "age"), [(0, "an older"), (1, "an older"), (3, "another"), ("1", "another")]
)
def test_another_format_version(folder: Path, version: object, age: str) -> None:
    edit_manifest(folder, format_version=version)
    assert refusal(folder) == (
        f"{folder / MANIFEST}: made by {age} sdviz (format {version}, this one reads format 2); make it again"
        " with: python -m sdviz run CONFIG"
    )


@pytest.mark.parametrize(("version", "told"), [(None, "no format version"), ("x", "format x")])
def test_a_format_version_that_is_no_number(folder: Path, version: object, told: str) -> None:
    edit_manifest(folder, format_version=version)
    assert f"made by another sdviz ({told}, this one" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"defaults": {"solver": "ddim"}}, "defaults.start_timestep: Field required"),
        ({"image_size": "big"}, "image_size: Input should be a valid integer"),
        ({"n_clusters": 0}, "n_clusters: Input should be greater than or equal to 1"),
        ({"pixel_unshuffle": 0}, "pixel_unshuffle: "),
        ({"max_train_timestep": 0}, "max_train_timestep: "),
        ({"dataset": None}, "dataset: Field required"),
        ({"class_names": ["disk", "ring"]}, "3 clusters, 2 names"),
        ({"files": ["a"]}, "files: Input should be a valid dictionary"),
        ({"clusterer": 3}, "clusterer: Input should be a valid dictionary"),
        ({"score": {"k": 0, "alpha": 0.3, "normalize": True}}, "score.k: "),
        ({"phases": {"mean": [0.0]}}, "phases.covariance: Field required"),
        ({"phases": {"mean": [float("nan")], "covariance": [[1.0]]}}, "phases.mean.0: "),
        ({"phases": {"mean": [0.0], "covariance": [[1.0]]}}, "phase statistics are not of 3 channels"),
    ],
)
def test_a_manifest_with_a_wrong_key_is_refused_with_its_path(
    folder: Path, change: dict[str, Any], where: str
) -> None:
    edit_manifest(folder, **change)
    assert refusal(folder).startswith(f"{folder / MANIFEST}: {where}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_timestep": 401}, r"start_timestep S = 401 is outside 0..400"),
        ({"guidance_scale": 99}, r"guidance_scale w = 99.0 is outside -1..20"),
        ({"num_inference_steps": 0}, r"num_inference_steps = 0 is outside 1..1000"),
        ({"solver": "euler"}, "solver 'euler' is not one of ddim, ddpm, dpmpp_2m"),
    ],
)
def test_defaults_that_nobody_could_use(folder: Path, change: dict[str, Any], message: str) -> None:
    defaults = json.loads((folder / MANIFEST).read_text())["defaults"]
    edit_manifest(folder, defaults=defaults | change)
    assert refusal(folder).startswith(f"{folder / MANIFEST}: defaults: {message}")


def test_pictures_are_read_as_the_run_read_them(folder: Path) -> None:
    manifest, _ = read_manifest(folder)
    plain = {"size_px": manifest.image_size, "value_range": "auto", "fit": "crop"}
    assert manifest.reading == plain
    told = manifest.model_copy(update={"config": {"data": {"range": "0..4095", "fit": "pad"}}})
    assert told.reading == plain | {"value_range": "0..4095", "fit": "pad"}
