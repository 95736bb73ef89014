from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from sdviz.bundle import Bundle
from sdviz.evaluation import read_report
from sdviz.nn.batches import encode
from sdviz.pipeline import Workspace
from sdviz.pipeline.backbone import load_backbone
from sdviz.pipeline.encoder import load_encoder

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_detector_starts_from_the_backbone(compared: Workspace) -> None:
    backbone, encoder = load_backbone(compared), load_encoder(compared)
    images = compared.sources.images
    kept = load_file(compared.folder / "features" / "no_training" / "features.safetensors")["id_features"]
    np.testing.assert_array_equal(kept, encode(backbone, images, "cpu").astype(np.float16))
    assert np.abs(encode(encoder, images, "cpu") - kept).max() > 1e-3
    shipped = Bundle.load(compared.folder / "bundle", "cpu").encoder
    assert shipped is not None
    np.testing.assert_allclose(encode(shipped, images, "cpu"), kept, atol=0.02)
    assert any(
        "folder" in name and "small" in name
        for name in read_report(compared.folder / "bundle" / "report.json").frechet
    )
