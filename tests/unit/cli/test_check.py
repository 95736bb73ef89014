"""The command `check`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from sdviz.cli.check import told
from sdviz.data.check import Check
from sdviz.data.found import Found
from tests.tiny_runs import write_pictures

KEYS = {
    "pictures", "classes", "splits", "passed_over", "unreadable", "exact_copies", "near_copies", "overlap",
    "value_range", "warnings",
}  # fmt: skip


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    folder = write_pictures(tmp_path / "pets", 4)
    shutil.copy(folder / "red" / "0.png", folder / "red" / "again.png")
    return folder


def test_one_screen(cli: Callable[..., Result], pets: Path) -> None:
    result = cli("check", f"folder:{pets}", "--against", "digits")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"folder:{pets}" and len(lines) < 24
    assert "  pictures      13" in lines and "  classes       5 red, 4 blue, 4 green" in lines
    assert "  exact copies  1" in lines and "  also in it    0 of 1,797 of digits" in lines


def test_json_at_exit_0_and_2(cli: Callable[..., Result], pets: Path) -> None:
    good = cli("check", f"folder:{pets}", "--json")
    assert good.exit_code == 0 and good.stderr == ""
    for args in ([f"folder:{pets}", "--against", f"folder:{pets}/red"], ["folder:/nowhere"], ["no-such-set"]):
        bad = cli("check", *args, "--json")
        assert bad.exit_code == 2 and set(json.loads(bad.stdout)) == set(json.loads(good.stdout)) == KEYS
        (line,) = bad.stderr.splitlines()
        assert line.startswith("error: ") and json.loads(bad.stdout)["warnings"][0] in line
    assert json.loads(good.stdout)["exact_copies"] == 1


def test_long_lists_and_names_of_any_kind_stay_short() -> None:
    names = {f"class {i}": 100 - i for i in range(30)}
    found = Found({".heic": 8, "@eaDir": 1200}, ("a\nb.jpg",), "0..4095", {"640x480": 3}, {"L": 3})
    lines = told(Check("x", "train", 1234, names, {"train": 1234, "test": 5}, found, warnings=("odd",)))
    classes = ", ".join(f"{100 - i} class {i}" for i in range(8))
    assert f"  classes       {classes} and 22 more" in lines
    assert "  pictures      1,234 of split train" in lines and "  splits        1,234 train, 5 test" in lines
    assert "  passed over   1,200 @eaDir, 8 .heic" in lines and "  unreadable    a b.jpg" in lines
    assert "  values        0..4095" in lines and lines[-1] == "warning: odd"
    assert not any("\n" in line for line in lines)
    # nothing was read: the error alone says why
    assert told(Check("x", refusals=("no",))) == ["x"]


def test_it_starts_without_torch(pets: Path) -> None:
    program = (
        "import sys; from sdviz.data.check import check_source; check_source(sys.argv[1]);"
        "print('torch' in sys.modules)"
    )
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [sys.executable, "-c", program, f"folder:{pets}"],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
