from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from sdviz.pipeline import Workspace, detector
from sdviz.pipeline.detector import load_detector
from tests.stages import everything_in, work_in

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def work(scored_run: Path) -> Workspace:
    return work_in(scored_run, scored_run.parent / "tiny.yaml")


def test_the_loaded_detector_answers_as_the_run_did(work: Workspace) -> None:
    found = load_detector(work)
    assert not found.training and work.test is not None
    kept = load_file(work.folder / "features" / "ood_features.safetensors")
    x = torch.tensor(work.test.images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        features = found.encoder(x)
        g_in = found.g_in(features).numpy()
    np.testing.assert_allclose(features.numpy(), kept["test"], rtol=2e-2, atol=2e-2)  # float16 in the file
    np.testing.assert_allclose(g_in, kept["test.g_in"], rtol=2e-2, atol=2e-2)


def test_a_stopped_training_goes_on_to_the_same_weights(copied: Workspace) -> None:
    expected = everything_in(copied.folder / "detector")
    shutil.rmtree(copied.folder / "detector")
    asked = iter([False] * 5)
    assert detector.make(replace(copied, should_stop=lambda: next(asked, True))) is None
    assert (copied.folder / "detector" / "state.pt").exists()
    assert not (copied.folder / "detector" / "detector.safetensors").exists()
    made = detector.make(copied)
    assert made == {"detector_epochs": 3, "outliers": len(copied.images)}
    again = everything_in(copied.folder / "detector")
    assert {name: again[name] for name in expected} == expected
