"""Real CIFAR-10 images through the whole command line: train for seconds, then edit 64 test images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from sdviz.bundle import Bundle
from sdviz.cli import app

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cifar10_end_to_end(sdviz_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (sdviz_data / "cifar10_train.parquet").is_file():
        pytest.skip(f"no cifar10_train.parquet in {sdviz_data}")
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    config = ROOT / "configs" / "cifar10-smoke.yaml"
    shortened = ["diffusion.time_limit_sec=20", "clusterer.total_steps=200"]
    arguments = [word for one in shortened for word in ("--set", one)]
    result = CliRunner().invoke(app, ["run", str(config), *arguments])
    assert result.exit_code == 0, result.output
    path = Path(result.stdout.strip())
    assert path == tmp_path / "runs" / "00001-cifar10-smoke" / "bundle"

    bundle = Bundle.load(path)
    metrics = bundle.manifest.metrics
    assert bundle.manifest.dataset == "cifar10"
    assert bundle.class_names[:3] == ("airplane", "automobile", "bird")
    assert (metrics["images"], metrics["clusterer_test_images"]) == (50_000, 10_000)
    assert metrics["clusterer_accuracy"] > 0.25  # a tenth by chance
    assert metrics["diffusion_steps"] > 0  # how many depends on the machine's load
    assert metrics["diffusion_loss"] < 1.2
    assert 15 < metrics["diffusion_training_sec"] < 60

    out = tmp_path / "out"
    generate = [
        "generate",
        "--bundle",
        str(path),
        "--images",
        "cifar10:test",
        "--limit",
        "64",
        "--out",
        str(out),
    ]
    result = CliRunner().invoke(app, [*generate, "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["there"], answer["made"]) == (0, 64)
    with (out / "manifest.csv").open(encoding="utf-8-sig", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == len({line["file"] for line in lines}) == len(list(out.glob("*.png"))) == 64
    for line in lines:
        assert line["source_id"].startswith("cifar10/test/")
        assert line["label_name"] in bundle.class_names
        assert line["label"] != line["target_label"]
        with Image.open(out / line["file"]) as png:
            png.load()
            assert (png.format, png.size, png.mode) == ("PNG", (32, 32), "RGB")

    result = CliRunner().invoke(app, generate)
    assert result.stdout.startswith("64 there, 0 made: ")
