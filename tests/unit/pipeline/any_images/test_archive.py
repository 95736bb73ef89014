from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sdviz import data
from sdviz.bundle import Bundle
from sdviz.bundle.labels import source_labels
from sdviz.outliers import Recipe
from sdviz.pipeline import PipelineError, generate_folder, pack_folder
from sdviz.pipeline.any_images.archive import Format
from sdviz.table_files import read_csv
from tests.tiny_bundle import save_tiny_bundle

RECIPE = Recipe(60, 1.0, 3, "dpmpp_2m", 0.0, None, 0)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Bundle, Path]:
    bundle = Bundle.load(save_tiny_bundle(tmp_path / "bundle"), "cpu")
    out = tmp_path / "out"
    generate_folder(bundle, data.load("shapes", "test", limit=6), out, RECIPE)
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
    assert check(out) == {*pngs, "manifest.csv", "recipe.json"}
    npz, _ = pack_folder(out, "npz", bundle.class_names)
    _, parquet, _ = pack_folder(out, "parquet", bundle.class_names)
    assert check(out) == {*pngs, "manifest.csv", "recipe.json", "outliers.npz", "outliers.parquet"}

    want = bundle.generate(
        (images := data.load("shapes", "test", limit=6)).images,
        ids=images.ids, start_timestep=60, guidance_scale=1.0, num_inference_steps=3, solver="dpmpp_2m",
        labels=source_labels(bundle, images)[0],
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


@pytest.mark.parametrize("later", ["folder", "npz", "parquet"])
@pytest.mark.parametrize("first", ["npz", "parquet"])
def test_what_was_packed_before_holds_what_the_manifest_lists(
    made: tuple[Bundle, Path], first: Format, later: Format
) -> None:
    bundle, out = made
    pack_folder(out, first, bundle.class_names)
    more = data.load("shapes", "test", limit=9)
    generate_folder(bundle, more, out, RECIPE)
    # nobody takes the archive of six for one of nine meanwhile
    with pytest.raises(AssertionError):
        check(out)
    packed = pack_folder(out, later, bundle.class_names)[:-1]
    archives = {path.name for path in out.glob("outliers.*")}
    assert archives == {path.name for path in packed} and f"outliers.{first}" in archives
    assert check(out) == {*(path.name for path in out.iterdir() if path.name[0] != ".")} - {"SHA256SUMS"}
    listed = read_csv(out / "manifest.csv").column("source_id")
    assert sorted(listed) == sorted(more.ids.tolist())
    for path in packed:
        kind = path.suffix[1:]
        assert len(data.load(f"{kind}:{path}")) == 9
        if kind == "npz":
            with np.load(path) as arrays:
                held = arrays["source_ids"].tolist()
        else:
            held = pq.read_table(path)["source_id"].to_pylist()
        assert held == listed
