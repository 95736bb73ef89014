import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from sdviz.nn import feature_cache
from sdviz.nn.batches import encode, predict
from sdviz.nn.classifier import Projection, ScanClassifier, SmallClassifier
from sdviz.nn.encoder import Encoder
from sdviz.nn.feature_cache import (
    fresh_features,
    has_small_activations,
    kept_activations,
    kept_features,
    kept_predictions,
    network_hash,
)

pytestmark = pytest.mark.usefixtures("one_thread")


class Counting(Encoder):
    """Counts the images that go through it."""

    seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return super().forward(x)


def make_encoder(seed: int = 0, input_px: int | None = None) -> Counting:
    torch.manual_seed(seed)
    return Counting("small", 4, input_px).eval()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDVIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(feature_cache, "SHARD", 10)
    return tmp_path / "cache" / "features"


def test_features_are_computed_once(tiny_images: Callable[..., np.ndarray]) -> None:
    images = tiny_images(25)
    first = kept_features(make_encoder(), images, "cpu")
    again = make_encoder()
    second = kept_features(again, images, "cpu")
    assert again.seen == 0
    assert first.dtype == np.float32 and np.array_equal(first, second)
    np.testing.assert_allclose(first, encode(make_encoder(), images, "cpu"), rtol=1e-5, atol=1e-6)


def test_activations_of_frozen_blocks_are_computed_once(tiny_images: Callable[..., np.ndarray]) -> None:
    images = tiny_images(25)
    encoder = make_encoder()
    assert not has_small_activations(encoder, images)
    encoder.freeze(2)
    assert has_small_activations(encoder, images)
    encoder.seen = 0
    kept = kept_activations(encoder, images, "cpu")
    assert encoder.seen == 25 and len(kept) == 25
    # computed or read, the layout in memory is one, because convolutions round by it
    assert kept.flags.c_contiguous and kept_activations(encoder, images, "cpu").strides == kept.strides
    assert np.array_equal(kept_activations(encoder, images[:20], "cpu"), kept[:20]) and encoder.seen == 25
    # other weights after the frozen blocks: other features, from the same activations
    expected = encode(make_encoder(), images, "cpu")
    np.testing.assert_allclose(fresh_features(encoder, images, "cpu"), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        next(encoder.blocks[-1].parameters()).mul_(2)
    before = encoder.seen
    other = fresh_features(encoder, images, "cpu")
    assert encoder.seen == before + 1  # the one image that tells how large activations are
    assert not np.allclose(other, expected, atol=1e-3)
    np.testing.assert_allclose(other, encode(encoder, images, "cpu"), rtol=1e-4, atol=1e-5)
    # of another block, and of all
    encoder.freeze(3)
    assert kept_activations(encoder, images, "cpu").shape != kept.shape
    encoder.freeze(4)
    assert np.array_equal(kept_activations(encoder, images, "cpu"), kept_features(encoder, images, "cpu"))


def test_large_activations_are_not_kept(
    tiny_images: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(feature_cache, "MAX_ACTIVATION", 3)
    encoder = make_encoder()
    encoder.freeze(2)
    found = fresh_features(encoder, tiny_images(5), "cpu")
    assert np.array_equal(found, encode(encoder, tiny_images(5), "cpu")) and not folder.exists()


def test_predictions_from_kept_features(tiny_images: Callable[..., np.ndarray]) -> None:
    images = tiny_images(25)
    torch.manual_seed(1)
    for projection in (None, Projection(16, 8, 6)):
        classifier = ScanClassifier(make_encoder(), 3, projection).eval()
        expected = predict(classifier, images, "cpu")
        kept_predictions(classifier, images, "cpu")
        seen = classifier.encoder.seen
        labels, confidence = kept_predictions(classifier, images, "cpu")
        assert classifier.encoder.seen == seen
        assert (labels == expected[0]).all()
        np.testing.assert_allclose(confidence, expected[1], rtol=1e-5)
    # a classifier without an encoder looks at the images
    plain = SmallClassifier(3, 4).eval()
    assert (kept_predictions(plain, images, "cpu")[1] == predict(plain, images, "cpu")[1]).all()


def test_an_image_is_known_in_any_set(tiny_images: Callable[..., np.ndarray]) -> None:
    images = tiny_images(40)
    first = kept_features(make_encoder(), images[:20], "cpu")
    encoder = make_encoder()
    some = images[[25, 3, 17, 30, 3, 25, 0]]
    found = kept_features(encoder, some, "cpu")
    assert encoder.seen == 2  # an image that stands twice is computed once
    assert np.array_equal(found[[1, 2, 4, 6]], first[[3, 17, 3, 0]]) and np.array_equal(found[0], found[5])
    assert len(kept_features(encoder, images, "cpu")) == 40 and encoder.seen == 20
    # the same bytes in another shape are another image
    kept_features(encoder, images.reshape(40, 16, -1, 3), "cpu")
    assert encoder.seen == 60


@pytest.mark.parametrize("other", [{"seed": 1}, {"input_px": 16}], ids=["weights", "input size"])
def test_another_network_has_features_of_its_own(
    other: dict[str, int], tiny_images: Callable[..., np.ndarray]
) -> None:
    images = tiny_images(5)
    first = kept_features(make_encoder(), images, "cpu")
    encoder = make_encoder(**other)
    assert not np.allclose(kept_features(encoder, images, "cpu"), first, atol=1e-3)
    assert encoder.seen == 5
    assert network_hash(encoder) != network_hash(make_encoder())


def test_one_changed_pixel_is_another_image(tiny_images: Callable[..., np.ndarray]) -> None:
    images = tiny_images(5)
    kept_features(make_encoder(), images, "cpu")
    images[3, 0, 0, 0] ^= 1
    encoder = make_encoder()
    kept_features(encoder, images, "cpu")
    assert encoder.seen == 1


@pytest.mark.parametrize(
    "content", [b"", b"\x93\0\0\0\0\0\0\0{", None, "few"], ids=["empty", "cut", "no ids", "too few rows"]
)
def test_a_damaged_file_is_made_again(
    content: bytes | str | None, folder: Path, tiny_images: Callable[..., np.ndarray]
) -> None:
    images = tiny_images(5)
    first = kept_features(make_encoder(), images, "cpu")
    (file,) = folder.rglob("*.safetensors")
    if content is None:
        save_file({"rows": first}, file)
    elif isinstance(content, str):
        with safe_open(file, "numpy") as kept:
            ids = kept.metadata()
        save_file({"rows": first[1:]}, file, ids)
    else:
        file.write_bytes(content)
    encoder = make_encoder()
    assert np.array_equal(kept_features(encoder, images, "cpu"), first)
    assert encoder.seen == 5


def test_without_a_folder_it_only_takes_longer(folder: Path, tiny_images: Callable[..., np.ndarray]) -> None:
    folder.parent.mkdir()
    folder.touch()  # a file where the folder would be
    encoder = make_encoder()
    assert kept_features(encoder, tiny_images(5), "cpu").shape == (5, 16)


def test_what_was_not_read_for_the_longest_time_goes_first(
    folder: Path, tiny_images: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [tiny_images(10, seed=seed) for seed in range(3)]
    for age, images in zip((300, 200), sets, strict=False):
        before = set(folder.rglob("*.safetensors"))
        kept_features(make_encoder(), images, "cpu")
        (new,) = set(folder.rglob("*.safetensors")) - before
        stamp = new.stat().st_mtime - age
        os.utime(new, (stamp, stamp))
    kept_features(make_encoder(), sets[0], "cpu")  # read again, so now the second is the oldest
    size = next(folder.rglob("*.safetensors")).stat().st_size
    monkeypatch.setattr(feature_cache, "MAX_BYTES", 2 * size)
    kept_features(make_encoder(), sets[2], "cpu")
    encoder = make_encoder()
    kept_features(encoder, sets[0], "cpu")
    assert encoder.seen == 0 and len(list(folder.rglob("*.safetensors"))) == 2


def test_features_that_are_no_numbers_are_not_kept(
    folder: Path, tiny_images: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, encoder = tiny_images(5), make_encoder()
    with monkeypatch.context() as patch:
        patch.setattr(Counting, "forward", lambda self, x: torch.full((len(x), 16), float("nan")))
        assert np.isnan(kept_features(encoder, images, "cpu")).all()
    assert not list(folder.rglob("*.safetensors"))
    assert np.isfinite(kept_features(encoder, images, "cpu")).all()


def test_no_images(tiny_images: Callable[..., np.ndarray]) -> None:
    assert kept_features(make_encoder(), tiny_images(1)[:0], "cpu").shape == (0, 16)
