"""Compares bundles by their manifests and reports, without their networks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ..bundle import BundleError, Manifest, read_manifest
from ..bundle.manifest import check_file
from ..bundle.parts import numbers, reading
from ..evaluation import Report, ReportError, read_report
from ..evaluation.sets import COLUMN_OF_MODE
from ..runs.reading import differing_settings, leaves
from .tables import by_set

# settings in which runs of one family may differ: the recipe, seeds, and those that change no number
RECIPE = ("start_timestep", "guidance_scale")
NO_MATTER = (
    "seed",
    "device",
    "profile",
    "save_every_sec",
    "bundle",
    "controls",
    "bootstrap",
    "baselines",
    "tuning",
    "sd_test",
)


@dataclass(frozen=True, eq=False)
class BundleRecord:
    """A bundle's manifest and report."""

    name: str  # as in the menu
    path: Path  # its folder
    manifest: Manifest
    hash: str  # `Bundle.hash`
    report: Report | None  # None if it was never measured

    @property
    def recipe(self) -> tuple[int, float] | None:
        """S and w of the outliers in detector training; None without a configuration."""
        if not isinstance(self.manifest.setting("outliers"), dict):
            return None
        s, w = (self.manifest.setting("outliers", key) for key in RECIPE)
        d = self.manifest.defaults
        return (d.start_timestep if s is None else int(s), d.guidance_scale if w is None else float(w))

    @property
    def family(self) -> str:
        """The configuration without recipe and seeds, as text. Runs of one family can be averaged."""
        config = _without(self.manifest.config, NO_MATTER)
        for part in ("outliers", "defaults"):
            if isinstance(config.get(part), dict):
                config[part] = _without(config[part], RECIPE)
        return json.dumps([self.manifest.dataset, config], sort_keys=True)

    @property
    def seeds(self) -> dict[str, object]:
        """All seeds of the configuration, by key."""
        settings = leaves(self.manifest.config)
        return {key: value for key, value in settings.items() if key.rpartition(".")[2] == "seed"}


def once_each(records: Sequence[BundleRecord]) -> list[BundleRecord]:
    """Keeps one record for each family, recipe and seeds: the one with most sets, then most methods."""
    found: dict[str, BundleRecord] = {}
    for one in sorted(records, key=_measured):
        found[json.dumps([one.family, one.recipe, one.seeds], sort_keys=True)] = one
    return [one for one in records if any(one is other for other in found.values())]


def _measured(record: BundleRecord) -> tuple[int, int]:
    report = record.report
    return (len(report.results), len(report.baselines)) if report is not None else (0, 0)


def read_record(path: Path, name: str) -> BundleRecord:
    """Reads manifest and report. Raises BundleError: no bundle, or a file whose SHA-256 differs."""
    manifest, digest = read_manifest(path)
    report = None
    if "report.json" in manifest.files:
        try:
            report = read_report(check_file(path, manifest, "report.json"))
        except ReportError as error:
            raise BundleError(str(error)) from error
    return BundleRecord(name, path, manifest, digest, report)


def read_columns(record: BundleRecord) -> dict[str, dict[str, np.ndarray]]:
    """Reads the scores of every set, by the bundle's own settings.

    Returns:
        set -> "both", "distance" or "votes" -> (N,); empty if the bundle was never measured.

    Raises:
        BundleError: scores.parquet was changed, or cannot be read.
    """
    if "scores.parquet" not in record.manifest.files:
        return {}
    path = check_file(record.path, record.manifest, "scores.parquet")
    with reading(path) as file:
        table = pq.read_table(file, columns=["set", *COLUMN_OF_MODE.values()])
        return {
            name: {mode: numbers(part[column], np.float64) for mode, column in COLUMN_OF_MODE.items()}
            for name, part in by_set(table).items()
        }


@dataclass(frozen=True, eq=False)
class RecipeMap:
    """A measure over S and w."""

    s: list[int]  # rising
    w: list[float]  # rising
    mean: np.ndarray  # float64 (w, S), NaN without a bundle
    sd: np.ndarray  # float64 (w, S), standard deviation (n - 1), NaN with fewer than two bundles
    n: np.ndarray  # int64 (w, S), number of bundles


def recipe_map(records: Sequence[BundleRecord], role: str) -> RecipeMap:
    """Averages the AUROC of a role's sets, 0..1, by S and w.

    Args:
        records: Of one family; those without a recipe or such sets are left out.
        role: "near", "far" or "validation".
    """
    cells: dict[tuple[int, float], list[float]] = {}
    for one in records:
        value = mean_auroc(one, role)
        if one.recipe is not None and value is not None:
            cells.setdefault(one.recipe, []).append(value)
    s, w = sorted({key[0] for key in cells}), sorted({key[1] for key in cells})
    mean, sd = np.full((len(w), len(s)), np.nan), np.full((len(w), len(s)), np.nan)
    n = np.zeros((len(w), len(s)), np.int64)
    for (at_s, at_w), values in cells.items():
        i, j = w.index(at_w), s.index(at_s)
        mean[i, j], n[i, j] = np.mean(values), len(values)
        if len(values) > 1:
            sd[i, j] = np.std(values, ddof=1)
    return RecipeMap(s, w, mean, sd, n)


def mean_auroc(record: BundleRecord, role: str) -> float | None:
    """The mean AUROC over a role's sets by the full score, 0..1; None without such sets."""
    means = record.report.means.get(role) if record.report is not None else None
    return means["both"].auroc if means and "both" in means else None


def differing_keys(records: Sequence[BundleRecord]) -> dict[str, list[object]]:
    """The settings in which bundles differ, as `differing_settings`."""
    return differing_settings([one.manifest.config for one in records])


def _without(tree: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {
        key: _without(value, keys) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if key not in keys
    }
