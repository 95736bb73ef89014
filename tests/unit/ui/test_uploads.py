from __future__ import annotations

from io import BytesIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdviz.ui import uploads
from sdviz.ui.cache.kept import clear
from sdviz.ui.uploads import KeptUploads, prepared_uploads


def file(name: str, content: bytes) -> Any:  # noqa: ANN401
    return SimpleNamespace(name=name, getvalue=lambda: content)


def manifest(**how: Any) -> Any:  # noqa: ANN401
    return SimpleNamespace(reading={"size_px": 8, "value_range": "auto", "fit": "crop"} | how)


def test_an_upload_is_decoded_once_for_all_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    clear()
    stream = BytesIO()
    Image.new("RGB", (16, 8), "red").save(stream, "PNG")
    files = [file("a.png", stream.getvalue()), file("b.png", b"text")]
    calls, real = [], uploads.from_uploads

    def counting(*args: Any) -> Any:  # noqa: ANN401
        calls.append(args[0][0][0])
        return real(*args)

    monkeypatch.setattr(uploads, "from_uploads", counting)
    for _ in range(3):
        pictures, refused = prepared_uploads(files, manifest())
        assert list(pictures)[0].startswith("upload/") and refused == ["b.png is not a picture"]
        assert (next(iter(pictures.values())) == (255, 0, 0)).all()
    assert calls == ["a.png", "b.png"]
    # as the bundle's run fitted pictures
    padded, _ = prepared_uploads(files[:1], manifest(fit="pad"))
    assert not next(iter(padded.values()))[:2].any() and len(calls) == 3


def test_pictures_of_a_page_that_was_left_are_kept() -> None:
    kept = KeptUploads()
    one, two = np.zeros((1, 1, 3), np.uint8), np.ones((1, 1, 3), np.uint8)
    kept.take({"one": one})
    kept.take({})
    kept.take({"two": two})
    assert list(kept.all()) == ["two", "one"]
    kept.clear()
    assert list(kept.all()) == ["two"]
