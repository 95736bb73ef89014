"""Whole runs on pictures larger than 32 px, from a folder to the pages."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from sdviz import data
from sdviz.bundle import Bundle
from sdviz.cli import app
from sdviz.evaluation import read_report
from sdviz.ui.cache.kept import clear
from tests.patience import patience

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CONFIG = """
profile: sizes
data: {{id: "folder:{folder}/pictures", size_px: {size_px}, holdout: 0.3}}
encoder:
  width: 8
  simclr: {{total_steps: 20, batch_size: 16, projection_hidden: 16, projection_dim: 8}}
labels: {{source: {source}, n_clusters: 3, turtle: {{total_steps: 30}}}}
diffusion:
  unet: {{channels: [8, 16, 16]}}
  max_train_timestep: 400
  batch_size: 4
  total_steps: 20
  warmup_steps: 2
defaults: {{start_timestep: 100, guidance_scale: 2, num_inference_steps: 2, solver: ddim}}
outliers: {{shard_size: 16, batch_size: 8}}
detector: {{epochs: 1, batch_size: 8, snapshot_ids: 10}}
evaluation:
  near: ["folder:{folder}/near"]
  far: [digits]
  controls: [no_training]
  score: {{k: 3}}
  sd_test: {{start_timestep: 100}}
  baselines: [{{method: dn2, k: 1}}, {{method: mscl, epochs: 1, k: 1}}, {{method: rot, epochs: 1}}, msp,
    {{method: fake_it, epochs: 1, k: 1, generator_steps: 1}}, png_size, input_complexity]
  limit: 20
  bootstrap: 20
bundle: {{outlier_pictures: 5}}
device: cpu
"""


def write_drawings(folder: Path, kinds: Sequence[str], n_each: int, size_px: int) -> None:
    """PNGs of objects in colours and sizes of their own, from `size_px` to 1.4 times as wide and high."""
    rng = np.random.default_rng(len(kinds))
    folder.mkdir()
    for kind in kinds:
        for i in range(n_each):
            wide, high = (int(n) for n in rng.integers(size_px, round(1.4 * size_px) + 1, 2))
            image = Image.new("RGB", (wide, high), tuple(rng.integers(0, 120, 3).tolist()))
            draw, r = ImageDraw.Draw(image), size_px * rng.uniform(0.2, 0.35)
            x, y, colour = wide / 2, high / 2, tuple(rng.integers(130, 256, 3).tolist())
            if kind == "disk":
                draw.ellipse((x - r, y - r, x + r, y + r), colour)
            elif kind == "bars":
                for at in np.linspace(-r, r, 5):
                    draw.line((x + at, y - r, x + at, y + r), colour, size_px // 16)
            elif kind == "square":
                draw.rectangle((x - r, y - r, x + r, y + r), colour)
            else:
                draw.line((x - r, y - r, x + r, y + r), colour, size_px // 8)
                draw.line((x - r, y + r, x + r, y - r), colour, size_px // 8)
            image.save(folder / f"{kind}{i}.png")


@pytest.mark.parametrize(("size_px", "source"), [(64, "turtle"), (128, "kmeans")])
def test_a_folder_of_larger_pictures_goes_through_all_stages_and_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_px: int, source: str
) -> None:
    clear()
    for name in ("SDVIZ_RUNS", "SDVIZ_CHECKPOINTS", "SDVIZ_DATA"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    write_drawings(tmp_path / "pictures", ("disk", "bars", "square"), 20, size_px)
    write_drawings(tmp_path / "near", ("cross",), 8, size_px)
    config = tmp_path / "sizes.yaml"
    config.write_text(CONFIG.format(folder=tmp_path, size_px=size_px, source=source))
    # 1. the run
    result = CliRunner().invoke(app, ["run", str(config)])
    assert result.exit_code == 0, result.output
    path = Path(result.stdout.strip().splitlines()[-1])
    report = read_report(path.parent / "evaluation" / "report.json")
    assert [one.role for one in report.results.values()] == ["near", "far", "sd"]
    assert len(report.baselines) == 7

    # 2. the bundle makes and scores pictures of that size
    bundle = Bundle.load(path, device="cpu")
    assert bundle.manifest.image_size == size_px
    images = data.load(f"folder:{tmp_path / 'near'}", size_px=size_px)
    batch = bundle.generate(images.images, ids=images.ids)
    assert batch.outliers.shape == (8, size_px, size_px, 3)
    features = bundle.features(batch.outliers)
    assert features.shape == (8, 32) and np.isfinite(features).all()
    assert np.isfinite(bundle.banks().id_features).all()
    out = tmp_path / "scores.csv"
    result = CliRunner().invoke(
        app, ["score", "--bundle", str(path), "--images", f"folder:{tmp_path / 'near'}", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    with out.open(encoding="utf-8-sig", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 8

    # 3. the pages show them at a multiple of their size, and of 128 px or more
    shown = {page: grid_sizes(page) for page in ("", "1_Outlier_lab", "4_Sample_votes", "5_Failures")}
    assert all(shown.values()), shown
    for side, on_screen in sum(shown.values(), []):
        assert side == size_px and on_screen % side == 0
        assert on_screen >= 128 or on_screen == 64  # a strip to choose from
    assert {name for name, sizes in shown.items() if max(px for _, px in sizes) >= 128} == set(shown)


def grid_sizes(page: str) -> list[tuple[int, int]]:
    """Of each grid of pictures on a page, "" for Home: the pictures' own side and their size on the screen."""
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=patience(300))
    if page:
        at.switch_page(f"pages/{page}.py")
    at.run()
    assert not at.exception, at.exception
    sent = [json.loads(element.proto.json) for element in at.get("bidi_component")]
    return [(one["side"], one["size_px"]) for one in sent if "cells" in one]
