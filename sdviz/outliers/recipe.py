"""The settings that an outlier is made by, their ranges, and the manifest row that records them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusion.samplers import SAMPLERS
from ..diffusion.schedule import NoiseSchedule
from ..table_files import TableError, csv_text, read_csv
from ..text import short_line

# lowest and highest value, also in the configuration
RANGES = {"guidance_scale": (-1, 20), "num_inference_steps": (1, 1000), "eta": (0, 1)}


@dataclass(frozen=True)
class Recipe:
    """The settings that outliers are made by.

    Attributes:
        start_timestep: S, the number of noising steps.
        guidance_scale: w of Eq. 3.
        num_inference_steps: K, network calls from x_S to x_0; above S, S are made.
        solver: A name in `SAMPLERS`.
        eta: DDIM's share of fresh noise, 0..1.
        guidance_interval: (sigma_lo, sigma_hi), or None for guidance everywhere.
        seed: With an image's id, fixes its noise and its wrong label.
    """

    start_timestep: int
    guidance_scale: float
    num_inference_steps: int
    solver: str
    eta: float = 0.0
    guidance_interval: tuple[float, float] | None = None
    seed: int = 0

    def check(self, max_train_timestep: int) -> None:
        """Raises ValueError if a field is out of its range; the message names value and range."""
        _check_range("start_timestep S", self.start_timestep, 0, max_train_timestep, whole=True)
        _check_range("guidance_scale w", self.guidance_scale, *RANGES["guidance_scale"])
        _check_range(
            "num_inference_steps", self.num_inference_steps, *RANGES["num_inference_steps"], whole=True
        )
        _check_range("eta", self.eta, *RANGES["eta"])
        _check_range("seed", self.seed, 0, 2**63 - 1, whole=True)
        if self.solver not in SAMPLERS:
            raise ValueError(f"solver {self.solver!r} is not one of {', '.join(SAMPLERS)}")
        if self.guidance_interval is not None:
            interval = self.guidance_interval
            pair = isinstance(interval, tuple | list) and len(interval) == 2
            if not pair or not all(map(_is_real, interval)) or not is_interval(*interval):
                raise ValueError(
                    f"guidance_interval {interval!r} is not (sigma_lo, sigma_hi) with 0 <= sigma_lo <= sigma_hi"
                )


def is_interval(low: float, high: float) -> bool:
    """Whether these are the ends of a guidance interval, 0 <= low <= high."""
    return 0 <= low <= high


def _is_real(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _check_range(name: str, value: float, low: float, high: float, whole: bool = False) -> None:
    # 100.0 is refused: it would draw other noise than 100
    if not _is_real(value) or np.isnan(value) or (whole and not isinstance(value, int | np.integer)):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name} = {value!r} is not {kind} in {low}..{high}")
    if not low <= value <= high:
        raise ValueError(f"{name} = {value} is outside {low}..{high}")


def manifest_row(
    recipe: Recipe,
    schedule: NoiseSchedule,
    class_names: tuple[str, ...],
    source_id: str,
    label: int,
    target_label: int,
    bundle_hash: str,
) -> dict[str, Any]:
    """One row of manifest.csv: an outlier's source (id, y~), its label c_r, and how it was made."""
    low, high = recipe.guidance_interval or (None, None)
    return {
        "source_id": source_id,
        "label": label,
        "label_name": class_names[label],
        "target_label": target_label,
        "target_name": class_names[target_label],
        "S": recipe.start_timestep,
        "sigma": round(schedule.sigma(recipe.start_timestep), 6),
        "w": recipe.guidance_scale,
        "guidance_sigma_lo": low,
        "guidance_sigma_hi": high,
        "solver": recipe.solver,
        "steps": min(recipe.num_inference_steps, recipe.start_timestep),
        "eta": recipe.eta,
        "seed": recipe.seed,
        "bundle_sha256": bundle_hash,
    }


_WHOLE = ("label", "target_label", "S", "steps", "seed")
_WHOLE_TEXT = re.compile(r"-?[0-9]{1,19}")
_REAL_TEXT = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?(e[-+]?[0-9]{1,3})?")
_REAL = ("sigma", "w", "guidance_sigma_lo", "guidance_sigma_hi", "eta")


def manifest_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of manifest.csv: at least one row, with the columns of the first; other keys are left out."""
    return csv_text(list(rows[0]), [[row.get(key) for key in rows[0]] for row in rows])


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """The rows of a manifest.csv, with numbers as numbers. Raises TableError or OSError: it cannot be read."""
    rows: list[dict[str, Any]] = []
    table = read_csv(path)
    for row, line in zip(table.records(), table.lines, strict=True):
        numbers: dict[str, Any] = {}
        for key in row:
            if key not in (*_WHOLE, *_REAL) or (key in _REAL and not row[key]):
                continue
            found = _number(row[key], key in _WHOLE)
            if found is None:
                raise TableError(f"line {line}: {key} {short_line(row[key])!r} is not a number")
            numbers[key] = found
        rows.append(row | {key: numbers.get(key) for key in (*_WHOLE, *_REAL) if key in row})
    return rows


def _number(text: str, whole: bool) -> float | None:
    """The number that a cell holds, an int if it must be whole; None for any other text."""
    if whole:
        return int(text) if _WHOLE_TEXT.fullmatch(text) else None
    number = float(text) if _REAL_TEXT.fullmatch(text) else math.nan
    return number if math.isfinite(number) else None
