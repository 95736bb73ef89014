from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sdviz.registry import modules_of


def test_files_are_found_in_folders_too_and_private_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pets/__init__", "pets/dog", "pets/_hidden", "pets/cats/__init__", "pets/cats/tabby"):
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [one.__name__ for one in modules_of("pets")] == ["pets.cats.tabby", "pets.dog"]
    for name in [one for one in sys.modules if one.partition(".")[0] == "pets"]:
        monkeypatch.delitem(sys.modules, name)
