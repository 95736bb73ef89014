from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from sdviz.nn.batches import encode, in_batches, predict, slices
from sdviz.nn.classifier import SmallClassifier
from sdviz.nn.encoder import Encoder


def test_encode_takes_grey_levels_in_batches() -> None:
    encoder = Encoder("small", 4)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    features = encode(encoder, images, "cpu", batch_size=2)
    assert (features.shape, features.dtype) == ((5, 16), np.float32)
    assert not encoder.training
    x = torch.tensor(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        np.testing.assert_allclose(features, encoder(x).numpy(), rtol=0, atol=1e-5)


def test_predict_gives_the_label_and_how_sure(tiny_images: Callable[..., np.ndarray]) -> None:
    images = tiny_images(7)
    torch.manual_seed(0)
    model = SmallClassifier(3, 4)
    labels, confidence = predict(model, images, "cpu")
    assert (labels.dtype, confidence.dtype) == (np.int64, np.float32)
    x = torch.tensor(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        p = model.eval()(x).softmax(1)
    assert (labels == p.argmax(1).numpy()).all()
    np.testing.assert_allclose(confidence, p.max(1).values.numpy(), atol=1e-5)
    assert all(1 / 3 <= c <= 1 for c in confidence)


def test_columns_stay_in_order(tiny_images: Callable[..., np.ndarray]) -> None:
    images = tiny_images(5)
    sums, rows = in_batches(lambda x: (x.double().sum((1, 2, 3)), x[:, 0, 0, 0]), images, "cpu", 2)
    assert (sums == images.sum((1, 2, 3))).all() and sums.dtype == np.float32
    assert (rows == images[:, 0, 0, 0]).all() and rows.dtype == np.uint8


def test_a_batch_of_large_images_has_as_many_pixels() -> None:
    for size_px, expected in ((16, [8, 3]), (32, [8, 3]), (64, [2, 2, 2, 2, 2, 1]), (128, [1] * 11)):
        seen: list[int] = []

        def note(x: torch.Tensor, seen: list[int] = seen) -> list[torch.Tensor]:
            seen.append(len(x))
            return [x[:, 0, 0, 0]]

        images = np.zeros((11, size_px, size_px, 3), np.uint8)
        assert len(in_batches(note, images, "cpu", 8)[0]) == 11
        assert seen == expected


def test_slices_cover_all_rows_and_report_after_each() -> None:
    seen: list[float] = []
    found = []
    for rows in slices(5, 2, seen.append):
        assert len(seen) == len(found), "reported when the work on a slice is done"
        found.append(rows)
    assert found == [slice(0, 2), slice(2, 4), slice(4, 5)] and seen == [0.4, 0.8, 1.0]
    assert list(slices(0, 2, seen.append)) == [] and len(seen) == 3
