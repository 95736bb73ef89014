from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sdviz.data import ImageSet
from sdviz.pipeline import Workspace
from sdviz.pipeline.features import _warn_of_other_compression
from sdviz.pipeline.shared.sets import NamedSet


def test_an_ood_set_that_is_compressed_otherwise_than_id_images(
    work_on: Callable[..., Workspace], caplog: pytest.LogCaptureFixture
) -> None:
    ours = work_on(".jpg")
    plain = np.zeros((2, 8, 8, 3), np.uint8)
    for share in (0.0, 1.0, None):
        labels, ids = np.full(2, -1), np.array(["a", "b"])
        other = ImageSet("svhn", "test", plain, labels, ids, (), share)
        _warn_of_other_compression(ours, NamedSet("svhn", "far", other))
    (record,) = [one for one in caplog.records if one.name.startswith("sdviz")]
    assert "svhn did not go through JPEG: what tells them apart may be compression" in record.getMessage()
