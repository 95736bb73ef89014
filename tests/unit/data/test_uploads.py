from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sdviz import data
from sdviz.data.decode import FORMATS
from sdviz.data.uploads import from_uploads, prepare_upload

Encode = Callable[..., bytes]


def png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    """A PNG written by hand, for what Pillow cannot write; `pixels` may be missing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_the_right_size_is_left_alone(picture: np.ndarray, encode: Encode) -> None:
    square = np.ascontiguousarray(picture[:24, :24])
    out = prepare_upload(encode(square), "a.png", size_px=24)
    assert np.array_equal(out, square) and out.dtype == np.uint8 and out.flags.writeable


def test_centre_square_then_bicubic(picture: np.ndarray, encode: Encode) -> None:
    expected = Image.fromarray(picture[:, 8:32]).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(prepare_upload(encode(picture), "a.png", size_px=16), np.asarray(expected))
    tall = np.ascontiguousarray(picture.transpose(1, 0, 2))
    assert np.array_equal(
        prepare_upload(encode(tall), "a.png", size_px=16), np.asarray(expected).transpose(1, 0, 2)
    )
    assert prepare_upload(encode(picture), "a.png").shape == (32, 32, 3)


def test_shrinking_is_antialiased(encode: Encode) -> None:
    chequers = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    out = prepare_upload(encode(chequers), "chequers.png")
    assert np.abs(out.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2), (31, 33)])
def test_any_size(encode: Encode, size: tuple[int, int]) -> None:
    out = prepare_upload(encode(Image.new("RGB", size, (10, 200, 30))), "a.png")
    assert out.shape == (32, 32, 3) and (out == (10, 200, 30)).all()


@pytest.mark.parametrize("size", [(40, 24), (41, 24), (24, 41), (32, 32)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(encode: Encode, orientation: int, size: tuple[int, int]) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        stored = encode(noise, kind, exif=exif, **options)
        upright = ImageOps.exif_transpose(Image.open(BytesIO(encode(noise, "PNG", exif=exif))))
        assert np.array_equal(prepare_upload(stored, "a"), prepare_upload(encode(upright), "b")), kind


def test_a_damaged_exif_block_costs_only_the_rotation(picture: np.ndarray, encode: Encode) -> None:
    broken = encode(picture, "JPEG", exif=b"Exif\x00\x00nonsense")
    assert np.array_equal(prepare_upload(broken, "a.jpg"), prepare_upload(encode(picture, "JPEG"), "b.jpg"))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_over_white(encode: Encode, kind: str) -> None:
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[:16] = (200, 0, 0, 128)
    rgba[16:] = (0, 255, 0, 0)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    out = prepare_upload(encode(rgba, kind, **options), "a")
    assert difference(out[0, 0], np.array([227, 127, 127])) <= 1 and (out[31, 31] == 255).all()


def test_alpha_is_weighted_when_resized(encode: Encode) -> None:
    rgba = np.zeros((128, 128, 4), np.uint8)
    rgba[:, ::2] = (0, 0, 255, 255)  # every other column is clear, and black underneath
    out = prepare_upload(encode(rgba), "a.png")
    assert difference(out[8:24, 8:24], np.full((16, 16, 3), (127, 127, 255))) <= 3


def test_palette_with_a_clear_colour(encode: Encode) -> None:
    paletted = Image.fromarray((np.indices((32, 32))[1] // 16).astype(np.uint8)).convert("P")
    paletted.putpalette([255, 0, 0, 0, 0, 255])
    solid = prepare_upload(encode(paletted), "a.png")
    assert (solid[:, :16] == (255, 0, 0)).all() and (solid[:, 16:] == (0, 0, 255)).all()
    clear = prepare_upload(encode(paletted, transparency=0), "b.png")
    assert (clear[:, :16] == 255).all() and (clear[:, 16:] == (0, 0, 255)).all()
    assert np.array_equal(clear, prepare_upload(encode(paletted, "GIF", transparency=0), "c.gif"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"])
def test_every_mode_that_pillow_writes(picture: np.ndarray, encode: Encode, mode: str) -> None:
    image = Image.fromarray(picture)
    if mode == "LAB":
        image = Image.new("LAB", (40, 24), (128, 0, 0))
    elif mode == "P":
        image = image.quantize(64)
    elif mode in ("I", "I;16"):
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).convert(mode)
    else:
        image = image.convert(mode)
    out = prepare_upload(encode(image, "TIFF"), f"{mode}.tif")
    assert out.shape == (32, 32, 3) and out.dtype == np.uint8
    if mode in ("L", "LA", "I", "I;16", "F"):
        assert difference(out, prepare_upload(encode(Image.fromarray(picture).convert("L")), "l.png")) <= 1
    elif mode not in ("1", "P", "LAB"):
        assert difference(out, prepare_upload(encode(picture), "rgb.png")) <= 3


def test_cmyk_jpeg(picture: np.ndarray, encode: Encode) -> None:
    stored = encode(Image.fromarray(picture).convert("CMYK"), "JPEG", quality=100, subsampling=0)
    assert difference(prepare_upload(stored, "a.jpg"), prepare_upload(encode(picture), "b.png")) <= 6


def test_16_bit_grey_and_colour(encode: Encode) -> None:
    values = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    grey = prepare_upload(png(32, 32, 16, 0, rows), "grey.png")
    assert np.array_equal(grey, np.repeat(np.round(values / 257).astype(np.uint8)[..., None], 3, -1))
    rows = b"".join(b"\0" + np.repeat(row, 3).tobytes() for row in values)
    assert difference(prepare_upload(png(32, 32, 16, 2, rows), "rgb.png"), grey) <= 1
    # 16-bit PGM
    pgm = b"P5 32 32 65535\n" + values.tobytes()
    assert np.array_equal(prepare_upload(pgm, "a.pgm"), grey)


def test_floating_point(encode: Encode) -> None:
    ramp = np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)
    unit = prepare_upload(encode(Image.fromarray(ramp), "TIFF"), "a.tif")
    assert np.array_equal(unit, prepare_upload(encode(Image.fromarray(ramp * 255), "TIFF"), "b.tif"))
    assert np.array_equal(unit[..., 0], np.round(ramp * 255))
    ramp[0] = np.nan
    assert (prepare_upload(encode(Image.fromarray(ramp), "TIFF"), "c.tif")[0] == 0).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_the_first_frame_of_many(encode: Encode, kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    out = prepare_upload(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options), "a")
    assert difference(out, np.full((32, 32, 3), (255, 0, 0))) <= 2


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "is empty"),
        (b"hello, this is text", "is not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture"),
        (b"\x89PNG\r\n\x1a\n", "is not a picture"),
        (png(20_000, 10, 8, 2, b""), "is 20000 x 10 px; at most 10000 px a side"),
        (png(10, 10_001, 8, 2, b""), "is 10 x 10001 px; at most 10000 px a side"),
        (png(60_000, 60_000, 8, 2, b""), "has too many pixels"),
        (png(32, 32, 8, 2, b"\0\0\0"), "is cut short or damaged"),
    ],
)
def test_refusals_are_one_line_with_the_name(blob: bytes, message: str) -> None:
    with pytest.raises(data.DataError) as caught:
        prepare_upload(blob, "my\nfile.png")
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
    assert refused == [f"bad.png is not a picture ({', '.join(FORMATS)})"]
    assert len(uploads) == 2 and uploads.labels.tolist() == [-1, -1] and uploads.class_names == ()
    assert np.array_equal(uploads.images[1], prepare_upload(two, "two.png"))
    assert all(len(one) == len("upload/") + 16 and one.startswith("upload/") for one in uploads.ids)
    assert from_uploads(files[2:3])[0].ids[0] == uploads.ids[1]
    none, refused = from_uploads([("bad.png", b"text")], size_px=16)
    assert none.images.shape == (0, 16, 16, 3) and len(refused) == 1


def test_a_bomb_in_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(60_000, 60_000, 8, 2, b""))
    with pytest.raises(data.DataError, match=r"bomb\.png has too many pixels"):
        data.load(f"folder:{tmp_path}")
