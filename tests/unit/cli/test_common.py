from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from sdviz.cli import common
from sdviz.cli.common import Mistake, checking, counting_bar, fail, load_images, progress_bar
from sdviz.config.nodes import ConfigError
from sdviz.data import DataError

SMALL = {"size_px": 8, "value_range": "auto", "fit": "crop"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Turns the clock of the progress lines on by some seconds."""
    now = [1000.0]
    monkeypatch.setattr(common.time, "monotonic", lambda: now[0])

    def turn(sec: float) -> None:
        now[0] += sec

    yield turn
    monkeypatch.undo()


def answer(error: BaseException) -> Result:
    """What a command answers that ends with an error."""
    one = typer.Typer(cls=common._OneLineGroup, pretty_exceptions_enable=False)

    @one.command()
    def broken() -> None:
        raise error

    one.callback()(lambda: None)
    return CliRunner().invoke(one, ["broken"])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (Mistake("k is\n too large"), 2, "k is too large"),
        (ConfigError("seed: is missing"), 2, "seed: is missing"),
        (FileNotFoundError(2, "No such file or directory", "a.yaml"), 1, "a.yaml: No such file or directory"),
        (OSError("the disk is gone"), 1, "the disk is gone"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_of_the_user_or_the_system_is_one_line(error: BaseException, code: int, text: str) -> None:
    result = answer(error)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"error: {text}\n")


def test_an_error_of_ours_is_shown_whole() -> None:
    result = answer(ValueError("a bug"))
    assert isinstance(result.exception, ValueError) and "error:" not in result.stderr


def test_checking_makes_mistakes_of_value_errors_only() -> None:
    with pytest.raises(Mistake, match="^too far$"), checking():
        raise ValueError("too far")
    with pytest.raises(KeyError), checking():
        raise KeyError("x")


def test_fail_is_one_line_on_stderr_and_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        fail("a\n  b", 7)
    assert ended.value.exit_code == 7 and capsys.readouterr() == ("", "error: a b\n")


def test_images_are_loaded_with_warnings_as_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        Image.new("RGB", (8, 8), (i * 100, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"bad\.png is not a picture"):
        load_images(f"folder:{tmp_path}", None, False, SMALL)
    found = load_images(f"folder:{tmp_path}", None, True, SMALL)
    assert sorted(found.images[:, 0, 0, 0].tolist()) == [0, 100, 200]
    said = capsys.readouterr().err
    assert said.startswith("warning: ") and said.count("\n") == 1 and "1 of 4 images cannot be used" in said
    assert len(load_images("digits:test", 2, False, SMALL)) == 2


def test_without_a_terminal_progress_is_a_line_every_ten_seconds(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar() as show:
        for share in (0.0, 0.1, 0.2, 0.3, 1.0):
            show(f"part {share}", share, None if share == 0.0 else 75.0)
            clock(6)
    assert capsys.readouterr().err.splitlines() == [
        "part 0.0", "part 0.2, 1:15 left", "part 1.0, 1:15 left",
    ]  # fmt: skip


def test_the_time_left_is_by_the_average_pace(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with counting_bar() as show:
        show("none", 0, 40)
        clock(30)
        show("ten", 10, 40)
        clock(15)
        show("all", 40, 40)
    assert capsys.readouterr().err.splitlines() == ["none", "ten, 1:30 left", "all, 0:00 left"]
