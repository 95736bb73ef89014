from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from sdviz import data
from sdviz.bundle import Bundle
from sdviz.outliers import Recipe
from sdviz.pipeline import PipelineError, generate_folder, pack_folder, source_labels
from tests.tiny_bundle import save_tiny_bundle


@pytest.fixture
def made(tmp_path: Path) -> tuple[Bundle, Path]:
    bundle = Bundle.load(save_tiny_bundle(tmp_path / "bundle"), "cpu")
    out = tmp_path / "out"
    recipe = Recipe(60, 1.0, 3, "dpmpp_2m", 0.0, None, 0)
    generate_folder(bundle, data.load("shapes", "test", limit=6), out, recipe)
    return bundle, out


def check(out: Path) -> set[str]:
    """As `sha256sum -c` does; the names that were checked."""
    names = set()
    for line in (out / "SHA256SUMS").read_text().splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
        names.add(name)
    return names


def test_each_format_holds_the_same_outliers(made: tuple[Bundle, Path]) -> None:
    bundle, out = made
    pngs = {path.name for path in out.glob("*.png")}
    assert pack_folder(out, "folder", bundle.class_names) == (out / "SHA256SUMS",)
    assert check(out) == {*pngs, "manifest.csv"}
    npz, _ = pack_folder(out, "npz", bundle.class_names)
    parquet, _ = pack_folder(out, "parquet", bundle.class_names)
    assert check(out) == {*pngs, "manifest.csv", "outliers.npz", "outliers.parquet"}

    want = bundle.generate(
        (images := data.load("shapes", "test", limit=6)).images,
        ids=images.ids, start_timestep=60, guidance_scale=1.0, num_inference_steps=3, solver="dpmpp_2m",
        labels=source_labels(bundle, images),
    )  # fmt: skip
    as_npz, as_parquet = data.load(f"npz:{npz}"), data.load(f"parquet:{parquet}")
    for found in (as_npz, as_parquet):
        assert found.class_names == bundle.class_names
        assert np.array_equal(found.images, want.outliers) and np.array_equal(found.labels, want.labels)
    with np.load(npz) as arrays:
        assert np.array_equal(arrays["target_labels"], want.target_labels)
        assert arrays["source_ids"].tolist() == images.ids.tolist()


def test_a_missing_picture_is_named(made: tuple[Bundle, Path]) -> None:
    bundle, out = made
    lost = next(out.glob("*.png"))
    lost.unlink()
    with pytest.raises(PipelineError, match=f"cannot be packed.*{lost.name}"):
        pack_folder(out, "npz", bundle.class_names)
    assert not (out / "outliers.npz").exists()
