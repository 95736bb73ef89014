"""Pictures for pages and downloads: data URIs, heat maps, contact sheets."""

import base64
import io
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Okabe & Ito 2008, also for colour-blind people; each has one meaning on every page
ID_COLOUR = "#0072B2"
# training images are ID too: a lighter blue
TRAIN_COLOUR = "#6BA8D6"
NEAR_OOD_COLOUR = "#D55E00"
FAR_OOD_COLOUR = "#E69F00"
OUTLIER_COLOUR = "#009E73"
CONTROL_COLOUR = "#CC79A7"
NEUTRAL_COLOUR = "#8A94A0"

# from dark blue over teal to yellow, each lighter than the last, so that it works in grey too
_HEAT_STOPS = np.array([[18, 16, 52], [30, 70, 130], [24, 132, 130], [110, 190, 90], [253, 231, 60]], float)
HEAT_MAX = 0.5
# size of a picture in a contact sheet, raised to a multiple of its own side
SHEET_PX = 128


def png_bytes(image: np.ndarray) -> bytes:
    """Encodes one image, uint8 (H,W,3), as PNG."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, "PNG")
    return stream.getvalue()


def data_uri(image: np.ndarray) -> str:
    """Returns an image, uint8 (H,W,3), as a `data:` address; the page enlarges it without blur."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode("ascii")


def side_of(uri: str) -> int:
    """The width in pixels of a picture of `data_uri`."""
    # a PNG has it in bytes 16 to 19, which are among the first 32 letters
    return int.from_bytes(base64.b64decode(uri.partition(",")[2][:32])[16:20])


def crisp_px(size_px: int, side: int) -> int:
    """The smallest multiple of a picture's own side from `size_px` on: all its pixels are equally large."""
    return -(-size_px // side) * side


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the largest difference over the channels, uint8 (...,H,W,3) -> float64 (...,H,W), 0..1."""
    return np.abs(a.astype(np.int16) - b.astype(np.int16)).max(-1) / 255.0


def heat_map(values: np.ndarray) -> np.ndarray:
    """Returns values as colours, uint8 (...,3); 0 is dark, `HEAT_MAX` and above is yellow."""
    position = np.clip(values / HEAT_MAX, 0, 1) * (len(_HEAT_STOPS) - 1)
    channels = [np.interp(position, range(len(_HEAT_STOPS)), stops) for stops in _HEAT_STOPS.T]
    return np.round(np.stack(channels, -1)).astype(np.uint8)


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """Makes each pixel a factor x factor square, uint8 (H*factor,W*factor,3)."""
    return image.repeat(factor, 0).repeat(factor, 1)


def contact_sheet(rows: list[tuple[str, np.ndarray]], captions: list[str], footer: str) -> np.ndarray:
    """Draws a labelled sheet: a line of pictures for each row, a column for each image.

    Args:
        rows: (name, uint8 (N,H,W,3)), each with the same N.
        captions: N texts under the columns.
        footer: A text at the bottom that says how the sheet was made.

    Returns:
        uint8 (height,width,3), dark text on white.
    """
    n, height, width = rows[0][1].shape[:3]
    factor = crisp_px(SHEET_PX, width) // width
    cell_w, cell_h, gap, left = width * factor, height * factor, 8, 118
    font = ImageFont.load_default(13)
    footer_lines = _wrap(footer, max(40, (left + n * (cell_w + gap)) // 7))
    total_w = left + n * (cell_w + gap) + gap
    caption_lines = [_wrap(c, max(8, cell_w // 7)) for c in captions]
    caption_h = 16 * max(len(c) for c in caption_lines) + 6
    total_h = len(rows) * (cell_h + gap) + gap + caption_h + 17 * len(footer_lines) + 8
    sheet = Image.new("RGB", (total_w, total_h), "white")
    draw = ImageDraw.Draw(sheet)
    y = gap
    for name, images in rows:
        draw.text((gap, y + cell_h // 2 - 8), name, fill="#1B2430", font=font)
        for i, image in enumerate(images):
            sheet.paste(Image.fromarray(enlarge(image, factor)), (left + i * (cell_w + gap), y))
        y += cell_h + gap
    for i, lines in enumerate(caption_lines):
        for j, line in enumerate(lines):
            draw.text((left + i * (cell_w + gap), y + 16 * j), line, fill="#1B2430", font=font)
    for j, line in enumerate(footer_lines):
        draw.text((gap, y + caption_h + 17 * j), line, fill="#5A6572", font=font)
    return np.asarray(sheet)


def _wrap(text: str, width: int) -> list[str]:
    return wrap(text, width, break_long_words=False, break_on_hyphens=False)
