from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdviz import data
from sdviz.data.formats import UPLOADED
from sdviz.data.uploads import from_uploads, prepare_upload

Encode = Callable[..., bytes]
FORMATS = [kind for kind in UPLOADED if kind not in ("HEIF", "JXL")]  # those that need a plugin


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "is empty"),
        (b"hello, this is text", "is not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture"),
        (b"\x89PNG\r\n\x1a\n", "is not a picture"),
        ((20_000, 10, 8, 2, b""), "is 20000 x 10 px; at most 10000 px a side"),
        ((10, 10_001, 8, 2, b""), "is 10 x 10001 px; at most 10000 px a side"),
        ((4097, 4097, 8, 2, b""), "is 4097 x 4097 px; at most 17 million pixels are read"),
        (b"\xff\xd8\xff" + 101 * b"\xff\xda", "is cut short or damaged"),
        ((60_000, 60_000, 8, 2, b""), "has too many pixels"),
        ((32, 32, 8, 2, b"\0\0\0"), "is cut short or damaged"),
    ],
)
def test_refusals_are_one_line_with_the_name(
    png: Encode, blob: bytes | tuple[int, int, int, int, bytes], message: str
) -> None:
    file = blob if isinstance(blob, bytes) else png(*blob)
    with pytest.raises(data.DataError) as caught:
        prepare_upload(file, "my\nfile.png")
    assert str(caught.value).startswith(f"my file.png {message}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_cut_short(encode: Encode, kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = encode(noise, kind)
    with pytest.raises(data.DataError, match="is cut short or damaged|is not a picture"):
        prepare_upload(whole[: int(len(whole) * share)], "cut")


@pytest.mark.filterwarnings("ignore")  # Pillow warns of some of these
@pytest.mark.parametrize("kind", FORMATS)
def test_altered_bytes_give_a_picture_or_one_line(picture: np.ndarray, encode: Encode, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = np.frombuffer(
        encode(picture, kind, **({} if kind in ("GIF", "BMP", "PPM") else {"exif": exif})), np.uint8
    )
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        altered = whole.copy()
        altered[rng.integers(0, len(whole), 3)] = rng.integers(0, 256, 3)
        try:
            assert prepare_upload(altered.tobytes(), "a").shape == (32, 32, 3)
        except data.DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused < 150


def test_from_uploads(picture: np.ndarray, encode: Encode) -> None:
    one, two = encode(picture), encode(picture[::-1])
    files = [("one.png", one), ("bad.png", b"text"), ("two.png", two), ("again.png", one)]
    uploads, refused = from_uploads(files)
    assert refused == ["bad.png is not a picture"]
    assert len(uploads) == 2 and uploads.labels.tolist() == [-1, -1] and uploads.class_names == ()
    assert np.array_equal(uploads.images[1], prepare_upload(two, "two.png"))
    assert all(len(one) == len("upload/") + 16 and one.startswith("upload/") for one in uploads.ids)
    assert from_uploads(files[2:3])[0].ids[0] == uploads.ids[1]
    none, refused = from_uploads([("bad.png", b"text")], size_px=16)
    assert none.images.shape == (0, 16, 16, 3) and len(refused) == 1


def test_a_bomb_in_a_folder_is_named(png: Encode, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(60_000, 60_000, 8, 2, b""))
    with pytest.raises(data.DataError, match=r"bomb\.png has too many pixels"):
        data.load(f"folder:{tmp_path}")
