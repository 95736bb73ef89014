"""The commands `run`, `resume`, `stop` and `list`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from sdviz import runs
from sdviz.config.reading import load_config
from tests.command_line import manifest, one_line_error
from tests.tiny_runs import write_tiny_config


def test_run_resume_list_and_generate(cli: Callable[..., Result], tmp_path: Path) -> None:
    config = write_tiny_config(tmp_path)
    result = cli(
        "run",
        config,
        "--set",
        "clusterer.total_steps=20",
        "--set",
        "diffusion.total_steps=20",
        "--device",
        "cpu",
    )
    assert result.exit_code == 0, result.output
    bundle = tmp_path / "runs" / "00001-pictures-tiny" / "bundle"
    assert result.stdout == f"{bundle}\n"
    assert "python -m sdviz resume 00001-pictures-tiny" in result.stderr
    assert "diffusion 20/20 loss" in result.stderr and "0:00 left" in result.stderr
    assert runs.find("1").config().clusterer.total_steps == 20

    result = cli("resume", "1")
    assert (result.exit_code, result.stdout) == (0, f"{bundle}\n")

    (entry,) = json.loads(cli("list", "--json").stdout)
    assert (entry["name"], entry["state"], entry["bundle"]) == ("00001-pictures-tiny", "done", str(bundle))
    assert cli("list").stdout.split()[:2] == ["00001-pictures-tiny", "done"]

    # the bundle learned the folder's own labels, and its defaults hold
    out = tmp_path / "out"
    result = cli("generate", "--bundle", bundle, "--images", f"folder:{tmp_path}/pictures", "--out", out)
    assert result.exit_code == 0, result.output
    for line in manifest(out):
        assert line["label_name"] == line["source_id"].split("/")[2]
        assert (line["S"], line["w"], line["steps"], line["solver"]) == ("50", "1.0", "2", "ddim")


def test_a_failed_run_is_one_line_and_exit_code_1(cli: Callable[..., Result], tmp_path: Path) -> None:
    config = write_tiny_config(tmp_path, clusterer_steps=2)
    wild = ["--set", "diffusion.learning_rate=1e30", "--set", "diffusion.max_grad_norm=1e30"]
    message = one_line_error(cli("run", config, *wild, "--set", "diffusion.warmup_steps=0"), 1)
    assert message.startswith("00001-pictures-tiny failed in stage diffusion: the U-Net's loss")
    assert str(tmp_path / "runs" / "00001-pictures-tiny" / "log.txt") in message
    (entry,) = json.loads(cli("list", "--json").stdout)
    assert (entry["state"], entry["bundle"]) == ("failed", None)
    assert "NaN or infinite" in entry["error"]
    assert "NaN or infinite" in cli("list").stdout


def test_stop_of_a_run_that_is_not_running(cli: Callable[..., Result], tmp_path: Path) -> None:
    runs.create(load_config(write_tiny_config(tmp_path)))
    assert one_line_error(cli("stop", "1")) == "00001-pictures-tiny is not running: new"


def test_list_without_runs_and_with_a_damaged_one(cli: Callable[..., Result], tmp_path: Path) -> None:
    result = cli("list", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    config = load_config(write_tiny_config(tmp_path))
    damaged = runs.create(config)
    runs.create(config)
    (damaged.path / "status.json").write_text("{")
    entries = json.loads(cli("list", "--json").stdout)
    assert [entry["state"] for entry in entries] == ["damaged", "new"]
    assert "status.json is damaged" in cli("list").stdout


def test_an_older_run_is_one_line_wherever_it_is_named(cli: Callable[..., Result], tmp_path: Path) -> None:
    config = write_tiny_config(tmp_path)
    older = runs.create(load_config(config))
    tree = json.loads(older.status_file.read_text())
    del tree["format_version"]
    older.status_file.write_text(json.dumps(tree))
    for texts in (("resume", "1"), ("stop", "1"), ("run", config, "--from", "1")):
        result = cli(*texts)
        line = one_line_error(result)
        assert result.stderr == f"error: {line}\n"
        assert line.startswith(f"{older.path}: made by an older sdviz (format 1, "), line
        assert line.endswith(f"make it again with: python -m sdviz run {older.path / 'config.yaml'}")
    assert len(runs.list_runs()) == 1
    (entry,) = json.loads(cli("list", "--json").stdout)
    assert entry["state"] == "older format"
    assert "made by an older sdviz (format 1, " in cli("list").stdout


def test_a_dry_run_of_a_misspelt_set_is_one_line(cli: Callable[..., Result], tmp_path: Path) -> None:
    result = cli(
        "run", write_tiny_config(tmp_path), "--dry-run", "--set", "data.id=digit", "--set", "data.size_px=32"
    )
    assert one_line_error(result).startswith("no data set 'digit'; nearest: digits")
