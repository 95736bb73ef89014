from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdviz.files import leftovers
from sdviz.projection import Layouts
from sdviz.projection.files import SUFFIX, read_layouts, write_layouts


@pytest.fixture
def layouts() -> Layouts:
    rng = np.random.default_rng(0)
    return Layouts(rng.normal(size=(3, 5, 2)).astype(np.float32), rng.random(3), rng.random((3, 2)))


def test_what_was_written_is_read(layouts: Layouts, tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / f"a{SUFFIX}"
    write_layouts(file, layouts)
    found = read_layouts(file)
    assert found is not None
    for name in ("points", "trust", "explained"):
        assert np.array_equal(getattr(found, name), getattr(layouts, name))
    assert [one.name for one in file.parent.iterdir()] == [file.name] and not leftovers(tmp_path)


def test_a_file_that_is_missing_cut_or_another_has_no_layouts(layouts: Layouts, tmp_path: Path) -> None:
    file = tmp_path / f"a{SUFFIX}"
    assert read_layouts(file) is None and read_layouts(tmp_path) is None
    write_layouts(file, layouts)
    whole = file.read_bytes()
    for share in (0.0, 0.3, 0.9):
        file.write_bytes(whole[: int(share * len(whole))])
        assert read_layouts(file) is None
    columns = {"points": layouts.points, "trust": layouts.trust, "explained": layouts.explained}
    for wrong in (
        {"trust": layouts.trust[:2]},
        {"points": layouts.points[0]},
        {"explained": layouts.explained[:1]},
        {"trust": np.array([None] * 3)},
    ):
        with file.open("wb") as stream:
            np.savez(stream, **(columns | wrong))
        assert read_layouts(file) is None
    with file.open("wb") as stream:
        np.savez(stream, points=layouts.points, trust=layouts.trust)
    assert read_layouts(file) is None
