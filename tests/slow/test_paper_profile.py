"""The paper's experiment at toy size: the true networks, few images, one step or epoch of each training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from sdviz.bundle import Bundle
from sdviz.cli import app
from sdviz.config.reading import load_config
from sdviz.evaluation import read_report
from tests.tiny_runs import OTHER_COLOURS, write_pictures

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_papers_profile_runs_from_a_local_weights_file_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    weights = tmp_path / "vit_base_patch16_224.safetensors"
    # as timm publishes it: with its head for 1,000 classes
    save_file(timm.create_model("vit_base_patch16_224", pretrained=False).state_dict(), weights)
    images = write_pictures(tmp_path / "images", 10, size_px=32)
    near = write_pictures(tmp_path / "near", 2, OTHER_COLOURS, size_px=32)
    changes = [
        f"data.id=folder:{images}",
        "data.size_px=32",
        "data.holdout=0.3",
        "encoder.width=4",
        # enough: SCAN finds two clusters only where the features differ
        "encoder.simclr.total_steps=100",
        "encoder.simclr.batch_size=16",
        f"detector.backbone.weights={weights}",
        "labels.n_clusters=2",
        "labels.scan.total_steps=40",
        "labels.scan.batch_size=8",
        "labels.scan.neighbours=2",
        "labels.self_label.total_steps=1",
        "labels.self_label.batch_size=8",
        "diffusion.total_steps=1",
        "diffusion.batch_size=2",
        "diffusion.warmup_steps=0",
        "defaults.num_inference_steps=1",
        "detector.epochs=1",
        "detector.batch_size=4",
        f"evaluation.near=[folder:{near}]",
        "evaluation.far=[]",
        "evaluation.score.k=2",
        "evaluation.bootstrap=20",
        "evaluation.sd_test.limit=2",
        # the profile's list with one epoch, and no more neighbours than there are images
        "evaluation.baselines=[{method: dn2, k: 1}, {method: knn, k: 1}, {method: ssd, network: encoder},"
        " {method: multiclass_ad, epochs: 1, k: 1}, {method: mscl, epochs: 1, k: 1},"
        " {method: fake_it, epochs: 1, k: 1, generator_steps: 1}, {method: rot, network: encoder, epochs: 1},"
        " msp, energy, entropy, png_size, input_complexity]",
        "device=cpu",
    ]
    texts = [word for one in changes for word in ("--set", one)]
    result = CliRunner().invoke(app, ["run", str(ROOT / "configs" / "cifar10-paper.yaml"), *texts])
    assert result.exit_code == 0, result.output
    path = Path(result.stdout.strip().splitlines()[-1])
    bundle = Bundle.load(path, device="cpu")
    parameters = sum(p.numel() for p in bundle.noise_predictor.parameters())
    assert 35e6 < parameters < 36.5e6
    assert bundle.features(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 768)

    # the file's own weights went in, and the frozen blocks are still theirs after the detector's training
    given, trained = load_file(weights), load_file(path / "detector.safetensors")
    name = "blocks.0.attn.qkv.weight"
    (key,) = [one for one in trained if one.endswith(name)]
    assert np.array_equal(trained[key].float().numpy(), given[name].numpy())
    last = "blocks.11.attn.qkv.weight"
    (key,) = [one for one in trained if one.endswith(last)]
    assert not np.array_equal(trained[key].float().numpy(), given[last].numpy())

    report = read_report(path.parent / "evaluation" / "report.json")
    assert [(one.role, one.n) for one in report.results.values()] == [("near", 4), ("sd", 2)]
    profile = load_config(ROOT / "configs" / "cifar10-paper.yaml")
    assert list(report.baselines) == [one.key for one in profile.evaluation.baselines]
    assert report.clusters is not None
    assert set(report.controls) == {"no_training", "right_label", "noise"}
