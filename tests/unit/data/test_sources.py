from __future__ import annotations

from pathlib import Path

import sdviz
from sdviz.data.sources import SOURCES


def test_every_source_is_a_file_of_its_own() -> None:
    files = {p.stem for p in (Path(sdviz.__file__).parent / "data" / "sources").glob("*.py")} - {"__init__"}
    assert {type(source).__module__.rpartition(".")[2] for source in SOURCES} == files
    named = [name for source in SOURCES for name in (*source.built_in, *source.kinds)]
    assert len(named) == len(set(named))
