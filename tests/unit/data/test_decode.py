from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from sdviz.data.decode import MAX_SCANS, DecodeError, of_array, open_picture, resized, through_jpeg, to_square
from sdviz.data.formats import readable
from sdviz.data.levels import Levels

Encode = Callable[..., bytes]


def decode_image(blob: bytes, size_px: int, **limits: int) -> np.ndarray:
    """The picture as one that is a set of its own."""
    picture = open_picture(blob, readable().names, **limits)
    return picture.square(size_px, "crop", Levels(None, lambda: iter(())).take(picture.extremes))


def difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_the_right_size_is_left_alone(picture: np.ndarray, encode: Encode) -> None:
    square = np.ascontiguousarray(picture[:24, :24])
    out = decode_image(encode(square), 24)
    assert np.array_equal(out, square) and out.dtype == np.uint8 and out.flags.writeable


def test_centre_square_then_bicubic(picture: np.ndarray, encode: Encode) -> None:
    expected = Image.fromarray(picture[:, 8:32]).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(decode_image(encode(picture), 16), np.asarray(expected))
    tall = np.ascontiguousarray(picture.transpose(1, 0, 2))
    assert np.array_equal(decode_image(encode(tall), 16), np.asarray(expected).transpose(1, 0, 2))
    assert decode_image(encode(picture), 32).shape == (32, 32, 3)


def test_shrinking_is_antialiased(encode: Encode) -> None:
    chequers = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    out = decode_image(encode(chequers), 32)
    assert np.abs(out.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2), (31, 33)])
def test_any_size(encode: Encode, size: tuple[int, int]) -> None:
    out = decode_image(encode(Image.new("RGB", size, (10, 200, 30))), 32)
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
        assert np.array_equal(decode_image(stored, 32), decode_image(encode(upright), 32)), kind


def test_a_damaged_exif_block_costs_only_the_rotation(picture: np.ndarray, encode: Encode) -> None:
    broken = encode(picture, "JPEG", exif=b"Exif\x00\x00nonsense")
    assert np.array_equal(decode_image(broken, 32), decode_image(encode(picture, "JPEG"), 32))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_over_white(encode: Encode, kind: str) -> None:
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[:16] = (200, 0, 0, 128)
    rgba[16:] = (0, 255, 0, 0)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    out = decode_image(encode(rgba, kind, **options), 32)
    assert difference(out[0, 0], np.array([227, 127, 127])) <= 1 and (out[31, 31] == 255).all()


def test_alpha_is_weighted_when_resized(encode: Encode) -> None:
    rgba = np.zeros((128, 128, 4), np.uint8)
    rgba[:, ::2] = (0, 0, 255, 255)  # every other column is clear, and black underneath
    out = decode_image(encode(rgba), 32)
    assert difference(out[8:24, 8:24], np.full((16, 16, 3), (127, 127, 255))) <= 3


def test_palette_with_a_clear_colour(encode: Encode) -> None:
    paletted = Image.fromarray((np.indices((32, 32))[1] // 16).astype(np.uint8)).convert("P")
    paletted.putpalette([255, 0, 0, 0, 0, 255])
    solid = decode_image(encode(paletted), 32)
    assert (solid[:, :16] == (255, 0, 0)).all() and (solid[:, 16:] == (0, 0, 255)).all()
    clear = decode_image(encode(paletted, transparency=0), 32)
    assert (clear[:, :16] == 255).all() and (clear[:, 16:] == (0, 0, 255)).all()
    assert np.array_equal(clear, decode_image(encode(paletted, "GIF", transparency=0), 32))


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
    out = decode_image(encode(image, "TIFF"), 32)
    assert out.shape == (32, 32, 3) and out.dtype == np.uint8
    if mode in ("L", "LA", "I", "I;16", "F"):
        assert difference(out, decode_image(encode(Image.fromarray(picture).convert("L")), 32)) <= 1
    elif mode not in ("1", "P", "LAB"):
        assert difference(out, decode_image(encode(picture), 32)) <= 3


def test_cmyk_jpeg(picture: np.ndarray, encode: Encode) -> None:
    stored = encode(Image.fromarray(picture).convert("CMYK"), "JPEG", quality=100, subsampling=0)
    assert difference(decode_image(stored, 32), decode_image(encode(picture), 32)) <= 6


def test_16_bit_grey_and_colour(png: Encode) -> None:
    values = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    grey = decode_image(png(32, 32, 16, 0, rows), 32)
    assert np.array_equal(grey, np.repeat(np.round(values / 257).astype(np.uint8)[..., None], 3, -1))
    rows = b"".join(b"\0" + np.repeat(row, 3).tobytes() for row in values)
    assert difference(decode_image(png(32, 32, 16, 2, rows), 32), grey) <= 1
    # 16-bit PGM
    pgm = b"P5 32 32 65535\n" + values.tobytes()
    assert np.array_equal(decode_image(pgm, 32), grey)


def test_floating_point(encode: Encode) -> None:
    ramp = np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)
    unit = decode_image(encode(Image.fromarray(ramp), "TIFF"), 32)
    assert np.array_equal(unit, decode_image(encode(Image.fromarray(ramp * 255), "TIFF"), 32))
    assert np.array_equal(unit[..., 0], np.round(ramp * 255))
    ramp[0] = np.nan
    assert (decode_image(encode(Image.fromarray(ramp), "TIFF"), 32)[0] == 0).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_the_first_frame_of_many(encode: Encode, kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    out = decode_image(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options), 32)
    assert difference(out, np.full((32, 32, 3), (255, 0, 0))) <= 2


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_further_pictures_in_a_file_are_noticed(encode: Encode, kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    many = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert open_picture(many, readable().names).has_more
    assert not open_picture(encode(frames[0], kind), readable().names).has_more


def test_a_limit_of_the_side_is_told_before_decoding(encode: Encode) -> None:
    file = encode(Image.new("RGB", (12, 9)))
    assert decode_image(file, 4, max_side_px=12).shape == (4, 4, 3)
    with pytest.raises(DecodeError, match="^is 12 x 9 px; at most 11 px a side$"):
        decode_image(file[:-20], 4, max_side_px=11)


def test_through_jpeg_is_pillows_own_round(picture: np.ndarray) -> None:
    images = np.stack([picture, picture[::-1]])
    for quality, subsampling in ((30, "4:2:0"), (95, "4:4:4")):
        made = through_jpeg(images, quality, subsampling)
        for image, again in zip(images, made, strict=True):
            stream = BytesIO()
            Image.fromarray(image).save(stream, "JPEG", quality=quality, subsampling=subsampling)
            assert np.array_equal(again, np.asarray(Image.open(stream)))
    assert difference(made, images) < difference(through_jpeg(images, 30, "4:2:0"), images)


def tiff16(values: np.ndarray, order: str, compression: str) -> bytes:
    """A TIFF of 16-bit colour (H,W,3|4), which Pillow cannot write; compression "none" or "deflate"."""
    height, width, bands = values.shape
    body = values.astype(f"{order}u2").tobytes()
    body = zlib.compress(body) if compression == "deflate" else body
    start = 8 + 2 + 12 * (10 + (bands == 4)) + 4
    tags = [
        (256, 3, width), (257, 3, height), (258, 3, start), (259, 3, 8 if compression == "deflate" else 1),
        (262, 3, 2), (273, 4, start + 2 * bands), (277, 3, bands), (278, 3, height), (279, 4, len(body)),
        (284, 3, 1), *([(338, 3, 2)] if bands == 4 else []),
    ]  # fmt: skip
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, kind, value in tags:
        count, short = (bands, False) if tag == 258 else (1, kind == 3)
        packed = struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
        out += struct.pack(f"{order}HHI", tag, kind, count) + packed
    return out + struct.pack(f"{order}I", 0) + struct.pack(f"{order}{bands}H", *[16] * bands) + body


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("form", ["png", "<none", "<deflate", ">none", ">deflate"])
def test_16_bit_colour_keeps_all_bits(png: Encode, bands: int, form: str) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (8, 8, bands))
    if bands == 4:
        values[..., 3] = 65535
    if form == "png":
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        blob = png(8, 8, 16, 2 if bands == 3 else 6, rows)
    else:
        blob = tiff16(values, form[0], form[1:])
    picture = open_picture(blob, readable().names)
    assert picture.mode == ("RGB;16" if bands == 3 else "RGBA;16")
    assert isinstance(picture.pixels, np.ndarray) and np.array_equal(picture.pixels, values[..., :3])
    # 12 bits in 16
    assert np.array_equal(decode_image(blob, 8), np.round(values[..., :3] / 4095 * 255))


def test_16_bit_grey_with_alpha_is_laid_over_white(png: Encode) -> None:
    values = np.zeros((4, 4, 2), ">u2")
    values[..., 0] = 1000
    values[:2, :, 1] = 65535
    picture = open_picture(
        png(4, 4, 16, 4, b"".join(b"\0" + row.tobytes() for row in values)), readable().names
    )
    assert picture.mode == "LA;16" and picture.extremes.high == 1000
    out = decode_image(png(4, 4, 16, 4, b"".join(b"\0" + row.tobytes() for row in values)), 4)
    assert (out[:2] == round(1000 / 1023 * 255)).all() and (out[2:] == 255).all()


def test_12_bits_in_16_are_not_black(encode: Encode) -> None:
    ramp = np.linspace(0, 4095, 1024).astype(np.uint16).reshape(32, 32)
    out = decode_image(encode(Image.fromarray(ramp)), 32)
    assert np.array_equal(out[..., 0], np.round(ramp / 4095 * 255)) and out.max() == 255


def test_float_tiff_up_to_65535_is_not_white(encode: Encode) -> None:
    ramp = np.linspace(0, 65535, 1024, dtype=np.float32).reshape(32, 32)
    out = decode_image(encode(Image.fromarray(ramp), "TIFF"), 32)
    assert np.array_equal(out[..., 1], np.round(ramp / 257))


def test_pixels_and_scans_are_capped_before_decoding(png: Encode, encode: Encode) -> None:
    with pytest.raises(DecodeError, match="^is 9000 x 9000 px; at most 67 million pixels are read$"):
        decode_image(png(9000, 9000, 8, 2, b""), 4)
    with pytest.raises(DecodeError, match="^is 9 x 12 px; at most 0 million pixels are read$"):
        decode_image(png(9, 12, 8, 2, b""), 4, max_pixels=100)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = encode(noise, "JPEG", progressive=True)
    last = file.rindex(b"\xff\xda")
    # the last scan again and again, as a decoder takes it
    many = file[:last] + file[last:-2] * MAX_SCANS + b"\xff\xd9"
    assert decode_image(file, 8).shape == (8, 8, 3)
    with pytest.raises(DecodeError, match="has 1.. scans; at most 100 are read"):
        decode_image(many, 8)


def test_arrays_become_pictures() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for array in (grey, grey[..., None], grey.astype(np.int32), grey.astype(np.float64)):
        picture = of_array(array)
        assert picture.extremes.high == 63 and picture.stored_size == (8, 8)
        assert np.array_equal(
            picture.square(8, "crop", Levels(None, lambda: iter(())).take(picture.extremes))[..., 2], grey
        )
    assert [of_array(one).mode for one in (grey, grey > 3, grey.astype(">u2"))] == ["L", "bool", "uint16"]
    nan = np.full((2, 2), np.nan)
    assert of_array(nan).extremes.low == 0.0


def test_pad_and_stretch(picture: np.ndarray) -> None:
    image = Image.fromarray(picture)
    padded = to_square(image, 40, "pad")
    assert np.array_equal(padded[8:32], picture) and not padded[:8].any() and not padded[32:].any()
    expected = image.resize((40, 40), Image.Resampling.BICUBIC)
    assert np.array_equal(to_square(image, 40, "stretch"), np.asarray(expected))
    squares = np.stack([picture[:24, :24]] * 2)
    assert resized(squares, 24) is squares and resized(squares, 12).shape == (2, 12, 12, 3)


def test_numbers_beyond_float32_count_as_infinite() -> None:
    numbers = np.array([[0.0, 1e300], [0.5, 1.0]])
    picture = of_array(numbers)
    assert (picture.extremes.low, picture.extremes.high) == (0, 1)
    pixels = picture.square(2, "crop", Levels(None, lambda: iter(())).take(picture.extremes))
    assert pixels[..., 0].tolist() == [[0, 255], [128, 255]]
