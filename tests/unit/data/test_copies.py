from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.fft import dct

from sdviz import data
from sdviz.data.copies import contents, look_at, near_groups, near_matches

RED_PINK_BLUE = ((180, 60, 60), (190, 90, 90), (60, 60, 180))


def encoded_again(image: Image.Image) -> Image.Image:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=75)
    return Image.open(stream).convert("RGB")


def resized(image: Image.Image) -> Image.Image:
    smaller = image.resize((24, 24), Image.Resampling.BICUBIC)
    return smaller.resize(image.size, Image.Resampling.BICUBIC)


def brighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.08)


COPYISTS = {"encoded again": encoded_again, "resized": resized, "brighter": brighter}


def copied(images: np.ndarray, copyist: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(copyist(Image.fromarray(one))) for one in images])


def test_contents_are_equal_where_all_pixels_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    found = contents(images[[2, 0, 2, 1]])
    assert found[0] == found[2] and len(set(found)) == 3
    # views of other memory
    assert contents(images[:, ::-1][:, ::-1]) == contents(images)
    images[1] = images[0]
    images[1, 7, 7, 2] ^= 1
    assert len(set(contents(images))) == 4


def test_the_hash_is_phash() -> None:
    images = data.load("shapes", "train", limit=60).images
    for picture, found in zip(images, look_at(images).hashes, strict=True):
        grey = np.asarray(Image.fromarray(picture).convert("L"), np.float64)
        low = dct(dct(grey, axis=0), axis=1)[:8, :8]
        assert (np.unpackbits(found) == (low > np.median(low)).reshape(-1)).all()


@pytest.mark.parametrize("size_px", [32, 80])
@pytest.mark.parametrize("copyist", COPYISTS)
def test_copies_that_are_not_exact_are_found_among_drawn_pictures(copyist: str, size_px: int) -> None:
    images = data.load("shapes", "train", limit=150, size_px=size_px).images
    both = np.concatenate([images, copied(images, COPYISTS[copyist])])
    first = near_groups(look_at(both))
    assert (first[:150] == np.arange(150)).all()  # 150 different scenes
    is_found = first[150:] == np.arange(150)
    assert is_found.mean() >= 0.94
    # and in another set
    rows = near_matches(look_at(both[150:]), look_at(images))
    assert (rows == np.where(is_found, np.arange(150), -1)).all()


def test_a_chain_of_copies_is_one_group() -> None:
    (image,) = data.load("shapes", "train", limit=1).images
    steps = [ImageEnhance.Brightness(Image.fromarray(image)).enhance(0.5 + 0.05 * i) for i in range(11)]
    stack = np.stack([np.asarray(one) for one in steps])
    order = np.random.default_rng(1).permutation(11)
    assert (near_groups(look_at(stack[order])) == 0).all()


def test_pictures_without_structure_are_no_near_copies() -> None:
    rng = np.random.default_rng(0)
    plain = np.repeat(rng.integers(0, 256, (40, 1, 1, 3), np.uint8), 32, axis=1).repeat(32, axis=2)
    noisy = (128 + rng.integers(-3, 4, (40, 32, 32, 3))).astype(np.uint8)
    images = np.concatenate([plain, noisy])
    assert (near_groups(look_at(images)) == np.arange(80)).all()
    assert (near_matches(look_at(images), look_at(images[::-1])) == -1).all()
    assert (
        near_groups(look_at(images[:0])).tolist() == near_matches(look_at(images[:0]), look_at(images)).tolist()
    )


def test_another_colour_is_another_picture() -> None:
    noise = np.random.default_rng(0).integers(-30, 31, (1, 32, 32, 3))
    red, pink, blue = (np.clip(np.array(c) + noise, 0, 255).astype(np.uint8) for c in RED_PINK_BLUE)
    assert near_groups(look_at(np.concatenate([red, pink, blue]))).tolist() == [0, 0, 2]


@pytest.mark.slow
def test_copies_and_different_pictures_of_cifar10(sdviz_data: Path) -> None:
    if not (sdviz_data / "cifar10_train.parquet").is_file():
        pytest.skip("no cifar10_train.parquet")
    whole = data.load("cifar10", "train")
    # 1. 410 of 50,000 pictures repeat an earlier one; nearly all of them do show one object twice
    assert (near_groups(look_at(whole.images)) != np.arange(len(whole))).mean() < 0.01
    # 2. within a class, without these
    one = whole.take(whole.labels == 3)
    first = near_groups(look_at(one.images))
    assert (first != np.arange(len(one))).mean() < 0.01
    images = one.images[first == np.arange(len(one))][:1000]
    assert (near_matches(look_at(images[:500]), look_at(images[500:])) == -1).all()
    # 3. copies
    for copyist in COPYISTS.values():
        rows = near_matches(look_at(copied(images, copyist)), look_at(images))
        assert (rows == np.arange(1000)).mean() > 0.99
