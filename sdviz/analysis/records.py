"""Compares bundles by their manifests and reports; no network is opened."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..bundle import BundleError, Manifest, read_manifest
from ..bundle.manifest import sha256
from ..evaluation import Report, ReportError, read_report

# what runs that belong together may differ in: the recipe, seeds, and what does not change a number
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
    "sd_test",
)


@dataclass(frozen=True, eq=False)
class BundleRecord:
    """A bundle's manifest and report."""

    name: str  # as in the menu
    path: Path  # its folder
    manifest: Manifest  # bundle.json
    hash: str  # SHA-256 of bundle.json
    report: Report | None  # report.json; None where it was never measured

    @property
    def recipe(self) -> tuple[int, float] | None:
        """S and w of the outliers that the detector was trained with; None without a configuration."""
        config: dict[str, Any] = self.manifest.config or {}
        outliers = config.get("outliers")
        if not isinstance(outliers, dict):
            return None
        s, w = (outliers.get(key) for key in RECIPE)
        d = self.manifest.defaults
        return (d.start_timestep if s is None else int(s), d.guidance_scale if w is None else float(w))

    @property
    def family(self) -> str:
        """The configuration without recipe and seeds, as text: equal for runs that belong together."""
        config = _without(self.manifest.config or {}, NO_MATTER)
        for part in ("outliers", "defaults"):
            if isinstance(config.get(part), dict):
                config[part] = _without(config[part], RECIPE)
        return json.dumps([self.manifest.dataset, config], sort_keys=True)

    @property
    def seeds(self) -> dict[str, object]:
        """Every seed of the configuration, by its key."""
        leaves = _leaves(self.manifest.config or {})
        return {key: value for key, value in leaves.items() if key.rpartition(".")[2] == "seed"}


def once_each(records: Sequence[BundleRecord]) -> list[BundleRecord]:
    """Drops repeated runs: keeps one record for each system, recipe and seeds.

    Of several the one with most sets, then with most other methods, stays; else the last.
    """
    found: dict[str, BundleRecord] = {}
    for one in sorted(records, key=_measured):
        found[json.dumps([one.family, one.recipe, one.seeds], sort_keys=True)] = one
    return [one for one in records if any(one is other for other in found.values())]


def _measured(record: BundleRecord) -> tuple[int, int]:
    report = record.report
    return (len(report.results), len(report.baselines)) if report is not None else (0, 0)


def read_record(path: Path, name: str) -> BundleRecord:
    """Manifest and report, each checked by its SHA-256. Raises BundleError: no bundle, or a changed report."""
    manifest, digest = read_manifest(path)
    report = None
    if "report.json" in manifest.files:
        try:
            report = read_report(_checked(path, manifest, "report.json"))
        except ReportError as error:
            raise BundleError(str(error)) from error
    return BundleRecord(name, path, manifest, digest, report)


def read_columns(record: BundleRecord) -> dict[str, dict[str, np.ndarray]]:
    """The scores of every set, by the bundle's own settings.

    Returns:
        set -> "both", "distance" or "votes" -> (N,); empty in a bundle that was never measured.

    Raises:
        BundleError: scores.parquet was changed.
    """
    if "scores.parquet" not in record.manifest.files:
        return {}
    columns = {"both": "total", "distance": "distance", "votes": "votes"}
    path = _checked(record.path, record.manifest, "scores.parquet")
    table = pq.read_table(path, columns=["set", *columns.values()])
    names = np.array(table["set"].to_pylist(), dtype=str)
    found = {}
    for name in dict.fromkeys(names.tolist()):
        part = table.filter(pa.array(names == name))
        found[name] = {mode: part[column].to_numpy() for mode, column in columns.items()}
    return found


def _checked(path: Path, manifest: Manifest, name: str) -> Path:
    file = path / name
    if file.is_symlink():
        raise BundleError(f"{file}: leads out of the bundle")
    if not file.is_file():
        raise BundleError(f"{file} is missing")
    if sha256(file) != manifest.files[name]:
        raise BundleError(f"{file} was changed or cut: its SHA-256 is not the one in bundle.json")
    return file


@dataclass(frozen=True, eq=False)
class RecipeMap:
    """A measure over S and w."""

    s: list[int]  # values of S, rising
    w: list[float]  # values of w, rising
    mean: np.ndarray  # float64 (w, S), NaN where no bundle was made so
    sd: np.ndarray  # the same over the bundles of a cell (n - 1); NaN with fewer than two
    n: np.ndarray  # int64 (w, S), how many bundles


def recipe_map(records: Sequence[BundleRecord], role: str) -> RecipeMap:
    """Mean AUROC of a role's sets over S and w.

    Args:
        records: That belong together; those without a recipe, or that did not measure such sets, are left out.
        role: "near", "far" or "validation".

    Returns:
        AUROC, 0..1; a map without cells where no record fits.
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
    """The mean AUROC by both terms of Eq. 6 over a role's sets, 0..1; None where there are none."""
    means = record.report.means.get(role) if record.report is not None else None
    return means["both"].auroc if means and "both" in means else None


def differing_keys(records: Sequence[BundleRecord]) -> dict[str, list[object]]:
    """The keys of the configuration in which bundles differ, and each one's value, None where it has none."""
    return differing_settings([one.manifest.config or {} for one in records])


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[object]]:
    """The keys, as in "a.b", in which configurations differ, and each one's value, None where it has none."""
    leaves = [_leaves(one) for one in configs]
    keys = dict.fromkeys(key for tree in leaves for key in tree)
    found: dict[str, list[object]] = {}
    for key in keys:
        values = [tree.get(key) for tree in leaves]
        if any(value != values[0] for value in values):
            found[key] = values
    return found


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _without(tree: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {
        key: _without(value, keys) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if key not in keys
    }
