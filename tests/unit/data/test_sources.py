"""A data source is one file: it is found, named, loaded from and looked up in without a line elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import sdviz
from sdviz.data.sources import SOURCES

STRIPES = '''
from __future__ import annotations

import numpy as np

from sdviz.data.imageset import ImageSet, OnError
from sdviz.data.source import Choose, Source, row_ids


class Stripes(Source):
    """Three striped images."""

    built_in = ("stripes",)

    def splits(self, name: str) -> tuple[str, ...]:
        return ("test",)

    def load(
        self, name: str, split: str, choose: Choose, size_px: int, on_error: OnError, pictures: bool
    ) -> ImageSet:
        rows = choose(3)
        images = np.zeros((len(rows), size_px, size_px, 3), np.uint8)
        images[:, ::2] = 10 * rows[:, None, None, None]
        return ImageSet(name, split, images, rows % 2, row_ids(self.id_prefix(name, split), rows), ("a", "b"))

    def count(self, name: str, split: str) -> int:
        return 3


SOURCE = Stripes()
'''
USE = """
import numpy as np

from sdviz import data

assert "stripes" in data.names() and data.splits("stripes") == ("test",) and data.count("stripes") == 3
some = data.load("stripes", limit=2, size_px=8)
assert len(some) == 2 and some.split == "test" and some.images.shape == (2, 8, 8, 3)
found = data.look_up(some.ids[::-1], size_px=8)
assert found.found.all() and np.array_equal(found.images, some.images[::-1])
assert found.class_names.tolist() == [some.label_name(1), some.label_name(0)]
print("all true")
"""


def test_a_new_file_is_a_new_source(tmp_path: Path) -> None:
    shutil.copytree(
        Path(sdviz.__file__).parent, tmp_path / "sdviz", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "sdviz" / "data" / "sources" / "stripes.py").write_text(STRIPES)
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "all true\n", done.stderr


def test_every_source_is_a_file_of_its_own() -> None:
    files = {p.stem for p in (Path(sdviz.__file__).parent / "data" / "sources").glob("*.py")} - {"__init__"}
    assert {type(source).__module__.rpartition(".")[2] for source in SOURCES} == files
    named = [name for source in SOURCES for name in (*source.built_in, *source.kinds)]
    assert len(named) == len(set(named))
