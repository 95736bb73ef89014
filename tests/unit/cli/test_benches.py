from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from sdviz.cli import benches
from tests.command_line import one_line_error

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of benches that note their call; `knn` misses its target."""
    folder = tmp_path / "bench"
    folder.mkdir()
    for name in benches.SCRIPTS:
        call = f"open({str(tmp_path / 'called')!r}, 'a').write({name + chr(10)!r})"
        (folder / f"{name}.py").write_text(f"{call}\nraise SystemExit({int(name == 'knn')})\n")
    monkeypatch.setattr(benches, "BENCH", folder)
    return folder


def called(tmp_path: Path) -> list[str]:
    return (tmp_path / "called").read_text().split()


def test_every_bench_is_a_script_of_the_checkout() -> None:
    assert all((ROOT / "bench" / f"{name}.py").is_file() for name in benches.SCRIPTS)
    assert benches.BENCH == ROOT / "bench"


@pytest.mark.usefixtures("scripts")
def test_the_named_benches_run_in_order(cli: Callable[..., Result], tmp_path: Path) -> None:
    result = cli("bench", "training", "data")
    assert result.exit_code == 0, result.output
    assert called(tmp_path) == ["training", "data"]
    assert result.stdout == "\n## bench/training.py\n\n\n## bench/data.py\n\n"


@pytest.mark.usefixtures("scripts")
def test_a_missed_target_is_named_after_all_have_run(cli: Callable[..., Result], tmp_path: Path) -> None:
    result = cli("bench")
    assert result.exit_code == 1
    assert result.stderr == "error: a target was missed, or a benchmark failed: knn\n"
    assert called(tmp_path) == list(benches.SCRIPTS)


@pytest.mark.usefixtures("scripts")
def test_an_unknown_bench_starts_none(cli: Callable[..., Result], tmp_path: Path) -> None:
    assert (
        one_line_error(cli("bench", "data", "speed"))
        == f"no bench 'speed'; there are {', '.join(benches.SCRIPTS)}"
    )
    assert not (tmp_path / "called").exists()


def test_without_a_checkout_it_says_where_to_run(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benches, "BENCH", tmp_path / "none")
    assert one_line_error(cli("bench")).startswith(
        "the scripts are not installed with the package: run it in a"
    )
