"""The question at toy size: every control, trial and method of the configuration, on a few drawn pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdviz.cli import app
from sdviz.config.reading import load_config
from sdviz.evaluation import read_report
from tests.tiny_runs import OTHER_COLOURS, write_pictures

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_question_is_asked_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SDVIZ_CACHE", str(tmp_path / "cache"))
    # six kinds: two clusters are left out at a time, and more are left
    kinds = {f"kind {i}": tuple(40 + 200 * (i >> shift & 1) for shift in range(3)) for i in range(1, 7)}
    images = write_pictures(tmp_path / "images", 12, kinds, size_px=32)
    near = write_pictures(tmp_path / "near", 4, OTHER_COLOURS, size_px=32)
    changes = [
        f"data.id=folder:{images}",
        "data.holdout=0.3",
        "encoder.input_px=32",
        "labels.n_clusters=6",
        "labels.turtle.total_steps=60",
        "diffusion.unet={arch: small, channels: [8, 8], layers_per_block: 1}",
        "diffusion.total_steps=2",
        "diffusion.batch_size=4",
        "diffusion.warmup_steps=0",
        "defaults.num_inference_steps=2",
        "outliers.per_image=1",
        "detector.epochs=1",
        "detector.head_epochs=1",
        "detector.batch_size=16",
        f"evaluation.near=[folder:{near}]",
        "evaluation.far=[]",
        "evaluation.score.k=2",
        "evaluation.bootstrap=20",
        "evaluation.tuning.trials=2",
        "evaluation.tuning.left_out_pairs=1",
        "evaluation.tuning.holdout=0.5",
        "evaluation.tuning.frozen_blocks=[-1]",
        "evaluation.baselines=[{method: dn2, k: 1}, {method: multiclass_ad, epochs: 1, k: 1}, msp]",
        "device=cpu",
    ]
    texts = [word for one in changes for word in ("--set", one)]
    result = CliRunner().invoke(app, ["run", str(ROOT / "configs" / "cifar10-question.yaml"), *texts])
    assert result.exit_code == 0, result.output
    path = Path(result.stdout.strip().splitlines()[-1])
    report = read_report(path.parent / "evaluation" / "report.json")
    profile = load_config(ROOT / "configs" / "cifar10-question.yaml")
    assert list(report.controls) == list(profile.evaluation.controls)
    (name,) = report.results
    for one in report.controls.values():
        difference = one.differences[name]["both"]
        assert difference.interval is not None and difference.interval[0] <= difference.interval[1]
    assert {"ours+tuned", "dn2+tuned", "multiclass_ad+tuned"} < set(report.baselines)
    assert list(report.interpolation) == ["0", "0.25", "0.5", "0.75", "1"]
