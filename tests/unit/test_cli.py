"""The command line as a whole: its start, its help, its errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from sdviz import runs
from tests.command_line import one_line_error
from tests.patience import patience
from tests.tiny_runs import write_tiny_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["run", "none.yaml"], "none.yaml: No such file or directory"),
        (
            ["run", "TINY", "--set", "diffusion.batchsize=3"],
            "--set diffusion.batchsize: unknown key; the nearest is",
        ),
        (["run", "TINY", "--device", "tpu9"], "device 'tpu9' is not one of auto, cpu"),
        (["run"], "Missing argument"),
        (["resume", "7"], "no run '7' in"),
        (["resume", "../x"], "no run '../x' in"),
        (["stop", "7"], "no run '7' in"),
        (["download", "imagenet"], "'imagenet' cannot be downloaded; cifar10, cifar100, svhn, sd-outliers can"),
        (["walk"], "No such command 'walk'"),
        ([], "Missing command"),
        (["list", "--long"], "No such option"),
    ],
)
def test_a_mistake_is_one_line_and_starts_nothing(
    cli: Callable[..., Result], tmp_path: Path, args: list[str], expected: str
) -> None:
    config = write_tiny_config(tmp_path)
    assert one_line_error(cli(*[config if arg == "TINY" else arg for arg in args])).startswith(expected)
    assert not runs.list_runs()


def test_help_needs_neither_torch_nor_diffusers() -> None:
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from sdviz.cli import app\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        "assert CliRunner().invoke(app, ['list']).exit_code == 0\n"
        "heavy = {'torch', 'diffusers', 'pyarrow', 'numpy', 'accelerate'} & set(sys.modules)\n"
        "print(result.output)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=patience(120)
    )
    assert done.returncode == 0, done.stderr
    for command in ("run", "resume", "stop", "list", "download", "generate"):
        assert command in done.stdout


def test_python_m_sdviz_is_the_command_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sdviz", "run", "none.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=patience(120),
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: none.yaml: No such file or directory\n"
