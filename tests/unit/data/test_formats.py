from __future__ import annotations

import io
import sys
from types import ModuleType

import pytest
from PIL import Image, ImageFile

from sdviz.data.decode import open_picture
from sdviz.data.formats import readable, what_helps


def test_what_pillow_reads_is_read_and_nothing_that_starts_a_program() -> None:
    found = readable()
    assert {".jpg", ".jfif", ".jpe", ".mpo", ".png", ".tif", ".jp2", ".avif"} <= found.suffixes
    assert not found.suffixes & {".eps", ".ps", ".pdf", ".h5", ".mpg", ".wmf"}
    assert "JPEG" in found.names and not {"EPS", "WMF", "PDF"} & set(found.names)


class _Plugin(ImageFile.ImageFile):
    format = "SDVIZTEST"

    def _open(self) -> None:
        assert self.fp is not None
        if self.fp.read(9) != b"sdviztest":
            raise SyntaxError("another")
        self._mode, self._size = "L", (2, 2)
        self.tile = [ImageFile._Tile("raw", (0, 0, 2, 2), 9, "L")]


def test_an_installed_plugin_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plugin = ModuleType("pillow_heif")

    def register() -> None:
        asked.append(True)
        Image.register_open("SDVIZTEST", _Plugin)
        Image.register_extension("SDVIZTEST", ".heic")

    monkeypatch.setattr(plugin, "register_heif_opener", register, raising=False)
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    try:
        found = readable()
        assert asked and ".heic" in found.suffixes
        made = open_picture(b"sdviztest\x01\x02\x03\x04", found.names)
        assert isinstance(made.pixels, Image.Image) and made.pixels.tobytes() == b"\x01\x02\x03\x04"
    finally:
        Image.OPEN.pop("SDVIZTEST", None)
        Image.EXTENSION.pop(".heic", None)
        if "SDVIZTEST" in Image.ID:
            Image.ID.remove("SDVIZTEST")
    stream = io.BytesIO()
    Image.new("RGB", (2, 2)).save(stream, "PNG")
    assert open_picture(stream.getvalue(), readable().names).mode == "RGB"


def test_help_for_what_cannot_be_read() -> None:
    assert what_helps(".heic") == "no decoder; pip install pillow-heif"
    assert what_helps(".npz") == "arrays and tables are opened by themselves, as npz:PATH"
    assert what_helps(".txt") is None
