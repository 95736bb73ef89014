from __future__ import annotations

import hashlib

import numpy as np
import pytest

from sdviz import data
from sdviz.data import ImageSet
from sdviz.data.source import row_ids
from sdviz.data.sources import shapes
from sdviz.data.stack import Reading

# of the images, then the labels as little-endian int64: what is drawn must never change
HASHES = {
    ("shapes", "train"): "1c6b78e080ecd6b10934222277ae6bfeffd518aa5c2c022ce7aece5aca4e69f3",
    ("shapes", "test"): "742ef29b2c9c5b24ddd807f611c09eb2b24ab95a15818a3e6fada94d290a9f58",
    ("shapes-novel", "test"): "2b9f307bba30b423b3812176881c7c1f8ae4ae1817d6909edb9da86610d47bd8",
    ("shapes-novel-val", "val"): "3beda47fdfb24461cf7007aef0dd897671c048e104c1f069bc673771745c99e5",
    ("shapes-empty", "test"): "8505afdb84ad39194e88efbf1ad7e6a48c6eae3276fb9c4e8f6b04ad7439f9c6",
}
MASKS_HASH = "09fe80d5da8e68680d638bd9a33dc4810e2c9204f126907b86c53c3e629e998a"
SIZES = {
    ("shapes", "train"): 20_000,
    ("shapes", "test"): 4_000,
    ("shapes-novel", "test"): 2_000,
    ("shapes-novel-val", "val"): 2_000,
    ("shapes-empty", "test"): 2_000,
}
N_CLASSES = {"shapes": 10, "shapes-novel": 6, "shapes-novel-val": 4, "shapes-empty": 0}


def draw(name: str, split: str, rows: np.ndarray) -> ImageSet:
    """Some images of a set."""
    return shapes.SOURCE.load(name, split, lambda n: rows, Reading(shapes.SIZE_PX, "raise", True, None, "crop"))


@pytest.mark.parametrize(("name", "split"), HASHES)
def test_every_pixel_and_label_is_pinned(name: str, split: str) -> None:
    whole = data.load(name, split)
    digest = hashlib.sha256(whole.images.tobytes() + whole.labels.astype("<i8").tobytes()).hexdigest()
    assert digest == HASHES[name, split]
    assert len(whole) == SIZES[name, split] and whole.images.shape[1:] == (32, 32, 3)
    assert whole.ids[0] == f"{name}/{split}/00000" and whole.ids[-1] == f"{name}/{split}/{len(whole) - 1:05d}"
    assert len(whole.class_names) == N_CLASSES[name]


def test_masks_are_pinned() -> None:
    ids = np.concatenate([row_ids(f"{name}/{split}/", np.arange(50)) for name, split in HASHES])
    assert hashlib.sha256(np.packbits(data.masks(ids)).tobytes()).hexdigest() == MASKS_HASH


def test_another_machines_sine_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(400)
    before = draw("shapes", "train", rows)
    cos, sin = np.cos, np.sin
    monkeypatch.setattr(np, "cos", lambda a: np.nextafter(cos(a), np.inf))
    monkeypatch.setattr(np, "sin", lambda a: np.nextafter(sin(a), -np.inf))
    after = draw("shapes", "train", rows)
    assert np.array_equal(before.images, after.images)


@pytest.mark.parametrize(("name", "split"), HASHES)
def test_an_image_depends_on_its_id_alone(name: str, split: str) -> None:
    whole = data.load(name, split)
    rows = np.array([1999, 3, 250, 249])
    some = draw(name, split, rows)
    assert np.array_equal(some.images, whole.images[rows])
    assert np.array_equal(some.labels, whole.labels[rows])
    assert some.ids.tolist() == whole.ids[rows].tolist()


def test_limit_draws_only_what_it_needs() -> None:
    shapes._draw_all.cache_clear()
    some = data.load("shapes", "train", limit=9, seed=5)
    assert shapes._draw_all.cache_info().currsize == 0
    assert some.ids.tolist() == [f"shapes/train/{i:05d}" for i in data.permutation(20_000, 5)[:9]]
    assert data.load("shapes", limit=4, seed=5).ids.tolist() == some.ids[:4].tolist()


def test_no_image_is_in_two_splits() -> None:
    seen = np.concatenate([draw(*key, np.arange(1000)).images for key in HASHES])
    assert len({image.tobytes() for image in seen}) == len(seen)


def test_classes_are_about_equally_frequent() -> None:
    counts = np.bincount(data.load("shapes", "test").labels, minlength=10)
    assert counts.min() > 320 and counts.max() < 480  # 400 each, four standard deviations


def test_shared_arrays_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        data.load("shapes-empty").images[0] = 0


def test_masks_cover_the_object() -> None:
    some = data.load("shapes", "test", limit=300)
    mask = data.masks(some.ids)
    assert mask.shape == (300, 32, 32) and mask.dtype == bool
    share = mask.mean(axis=(1, 2))
    assert share.min() > 0.03 and share.max() < 0.35
    assert not mask[:, [0, -1]].any() and not mask[:, :, [0, -1]].any()
    # the object's colour was chosen far from the background's
    inside = np.array([image[m].mean(axis=0) for image, m in zip(some.images, mask, strict=True)])
    outside = np.array([image[~m].mean(axis=0) for image, m in zip(some.images, mask, strict=True)])
    assert np.linalg.norm(inside - outside, axis=1).min() > 40


def test_masks_of_any_order_and_set() -> None:
    ids = np.array(
        ["shapes/test/00007", "shapes-empty/test/00001", "shapes-novel/test/00002", "shapes/test/00003"]
    )
    mixed = data.masks(ids)
    assert not mixed[1].any()
    for i, one in enumerate(ids):
        assert np.array_equal(mixed[i], data.masks(np.array([one]))[0])
    many = row_ids("shapes/train/", np.arange(600))
    assert np.array_equal(data.masks(many)[599], data.masks(many[599:])[0])
    assert data.masks(np.array([], dtype=str)).shape == (0, 32, 32)


@pytest.mark.parametrize(
    "one", ["digits/test/00001", "shapes/val/00001", "shapes/test/04000", "shapes/test/x", "shapes/test/²", "a"]
)
def test_masks_of_what_has_none(one: str) -> None:
    with pytest.raises(data.DataError, match=r"no mask for|no such image"):
        data.masks(np.array([one]))


def test_has_masks() -> None:
    assert data.has_masks("shapes", 32) and data.has_masks("shapes-empty", 32)
    assert not data.has_masks("digits", 32) and not data.has_masks("shapes", 64)
