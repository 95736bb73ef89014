from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from sdviz.cli import app
from tests.command_line import one_line_error
from tests.cut_bundle import save_cut_bundle

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guide.md"
Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cut_bundle(tmp_path_factory.mktemp("cut") / "b")


@pytest.fixture
def cli(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    return lambda *args: CliRunner().invoke(app, ["import", "--bundle", str(bundle), *map(str, args)])


@pytest.fixture
def scores(bundle: Path, tmp_path: Path) -> Path:
    table = pd.read_parquet(bundle / "scores.parquet").rename(columns={"distance": "score"})
    table[["set", "id", "score"]].to_csv(tmp_path / "theirs.csv", index=False)
    return tmp_path / "theirs.csv"


def test_an_import_is_added_listed_and_removed(cli: Cli, scores: Path) -> None:
    assert cli("--list").stdout == "no imports for this bundle\n"
    added = cli(scores)
    assert added.exit_code == 0, added.output
    lines = added.stdout.splitlines()
    assert lines[0].startswith("theirs: scores of 40 test, 40 shapes-novel")
    assert re.fullmatch(r"  shapes-novel: AUROC [\d.]+ %, ours [\d.]+ %", lines[1])
    listed = cli("--list")
    assert listed.stdout == added.stdout
    told = json.loads(cli("--list", "--json").stdout)
    assert [one["name"] for one in told["imports"]] == ["theirs"]
    # the first term of Eq. 6 is the bundle's mode "distance"
    assert told["imports"][0]["auroc"].keys() == told["ours"].keys()
    removed = cli("--remove", "theirs")
    assert (removed.exit_code, removed.stdout) == (0, "no imports for this bundle\n")


def test_what_is_no_import_is_one_line(cli: Cli, scores: Path, tmp_path: Path) -> None:
    assert "give one of FILE, --list and --remove NAME" in one_line_error(cli())
    assert "give one of FILE" in one_line_error(cli(scores, "--list"))
    assert "no import 'x'" in one_line_error(cli("--remove", "x"))
    assert one_line_error(cli(tmp_path / "none.csv")) == f"{tmp_path / 'none.csv'}: no such file"
    scores.write_text(scores.read_text().replace("digits/test/", "digits/tset/"))
    assert re.search(r"theirs\.csv: line \d+: digits has no image 'digits/tset/", one_line_error(cli(scores)))


def test_the_example_of_the_guide(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    code = code.replace("checkpoints/shapes", str(bundle)).replace("mine.csv", str(tmp_path / "mine.csv"))
    exec(compile(code, str(GUIDE), "exec"), {})  # noqa: S102
    added = cli(tmp_path / "mine.csv")
    assert added.exit_code == 0, added.output
    assert added.stdout.startswith("mine: scores of 40 test, ")
