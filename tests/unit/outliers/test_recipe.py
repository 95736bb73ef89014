from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.outliers import Recipe, manifest_csv, manifest_row, read_manifest
from sdviz.table_files import TableError

RECIPE = Recipe(200, 2.0, 5, "ddim")


@pytest.mark.parametrize(
    "good",
    [
        {"start_timestep": 0},
        {"start_timestep": 400},
        {"start_timestep": np.int64(7)},
        {"guidance_scale": -1},
        {"guidance_scale": 20.0},
        {"guidance_scale": np.float32(1.5)},
        {"num_inference_steps": 1000},
        {"eta": 1},
        {"guidance_interval": (0.0, 0.5)},
        {"guidance_interval": [0.2, 0.2]},
        {"guidance_interval": (0.1, float("inf"))},
        {"seed": 2**63 - 1},
        {"solver": "ddpm"},
    ],
)
def test_takes_settings_up_to_the_ends_of_their_ranges(good: dict[str, Any]) -> None:
    dataclasses.replace(RECIPE, **good).check(400)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"start_timestep": -1}, r"start_timestep S = -1 is outside 0\.\.400"),
        ({"start_timestep": 401}, r"start_timestep S = 401 is outside 0\.\.400"),
        ({"start_timestep": 2.5}, r"start_timestep S = 2\.5 is not a whole number in 0\.\.400"),
        ({"start_timestep": 100.0}, r"start_timestep S = 100\.0 is not a whole number in 0\.\.400"),
        ({"start_timestep": True}, r"start_timestep S = True is not a whole number"),
        ({"start_timestep": "100"}, r"start_timestep S = '100' is not a whole number"),
        ({"guidance_scale": float("nan")}, r"guidance_scale w = nan is not a number in -1\.\.20"),
        ({"guidance_scale": float("inf")}, r"guidance_scale w = inf is outside -1\.\.20"),
        ({"guidance_scale": 21}, r"guidance_scale w = 21 is outside -1\.\.20"),
        ({"guidance_scale": -1.1}, r"guidance_scale w = -1\.1 is outside -1\.\.20"),
        ({"guidance_scale": None}, r"guidance_scale w = None is not a number"),
        ({"num_inference_steps": 0}, r"num_inference_steps = 0 is outside 1\.\.1000"),
        ({"num_inference_steps": 10.0}, r"num_inference_steps = 10\.0 is not a whole number in 1\.\.1000"),
        ({"eta": 2}, r"eta = 2 is outside 0\.\.1"),
        ({"eta": -0.1}, r"eta = -0\.1 is outside 0\.\.1"),
        ({"seed": -1}, r"seed = -1 is outside 0\.\.9223372036854775807"),
        ({"seed": 3.0}, r"seed = 3\.0 is not a whole number"),
        ({"solver": "euler"}, "solver 'euler' is not one of ddim, ddpm, dpmpp_2m"),
        ({"guidance_interval": (0.5, 0.1)}, r"guidance_interval \(0\.5, 0\.1\) is not \(sigma_lo, sigma_hi\)"),
        ({"guidance_interval": (-0.1, 0.1)}, "guidance_interval"),
        ({"guidance_interval": (0.1,)}, "guidance_interval"),
        ({"guidance_interval": (0.1, float("nan"))}, "guidance_interval"),
        ({"guidance_interval": 0.5}, "guidance_interval 0.5"),
        ({"guidance_interval": ("0.1", "0.5")}, "guidance_interval"),
    ],
)
def test_refuses_settings_out_of_range(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPE, **bad).check(400)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    schedule, names = NoiseSchedule.linear(1000), ("=cat", "dog, brown")
    interval = dataclasses.replace(RECIPE, guidance_interval=(0.25, 0.5))
    rows = [manifest_row(one, schedule, names, '@a "b"', 0, 1, "0" * 64) for one in (RECIPE, interval)]
    (tmp_path / "manifest.csv").write_text(manifest_csv(rows), encoding="utf-8")
    assert read_manifest(tmp_path / "manifest.csv") == rows


@pytest.mark.parametrize(
    ("column", "text"),
    [
        *[("label", one) for one in ("", "x", "1.5", "1_0", " 1", "9" * 5_000, "٣")],
        *[("w", one) for one in ("x", "nan", "inf", "1e999", "1_0", "0x1", "9" * 400, " 1")],
    ],
)
def test_a_number_of_a_manifest_that_is_none_is_refused_by_its_line(
    tmp_path: Path, column: str, text: str
) -> None:
    row = manifest_row(RECIPE, NoiseSchedule.linear(1000), ("a", "b"), "x", 0, 1, "0" * 64)
    (tmp_path / "manifest.csv").write_text(manifest_csv([row, row | {column: text}]), encoding="utf-8")
    with pytest.raises(TableError, match=f"line 3: {column} .* is not a number") as error:
        read_manifest(tmp_path / "manifest.csv")
    assert str(error.value).isprintable() and len(str(error.value)) <= 300
