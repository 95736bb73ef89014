"""Manifests, reports and scores of the bundles on this machine, read without their networks."""

from pathlib import Path

import numpy as np

from sdviz.analysis.records import BundleRecord, read_columns, read_record
from sdviz.bundle import MANIFEST, BundleError
from sdviz.ui.cache.kept import kept
from sdviz.ui.page import find_bundles


@kept("records")
def _record(path: str, name: str, changed_ns: int) -> BundleRecord:
    """Manifest and report of a bundle, read again when bundle.json changes."""
    return read_record(Path(path), name)


@kept("columns")
def find_columns(record: BundleRecord) -> dict[str, dict[str, np.ndarray]]:
    """The scores of a bundle. Raises as `read_columns`."""
    return read_columns(record)


def all_records() -> tuple[list[BundleRecord], list[str]]:
    """Every bundle on this machine, and a line for each that cannot be read."""
    found, problems = [], []
    for name, path in find_bundles().items():
        try:
            file = path / MANIFEST
            found.append(_record(str(path), name, file.stat().st_mtime_ns if file.exists() else 0))
        except (BundleError, OSError) as error:
            problems.append(f"{name}: {error}")
    return found, problems


def families(records: list[BundleRecord]) -> dict[str, list[BundleRecord]]:
    """Groups bundles that differ only in S, w and seeds."""
    found: dict[str, list[BundleRecord]] = {}
    for one in records:
        found.setdefault(one.family, []).append(one)
    return found


def many_lines(records: list[BundleRecord]) -> dict[str, str]:
    """Where the numbers of bundles come from: a line for each bundle."""
    lines = {}
    for one in records:
        report = one.report
        parts = [f"bundle hash {one.hash}"]
        if report is not None:
            seeds = ", ".join(f"{stage} {seed}" for stage, seed in report.seeds.items())
            parts += [f"configuration {report.config_sha256}", f"seeds {seeds}"]
        versions = ", ".join(f"{k} {v}" for k, v in one.manifest.versions.items())
        lines[one.name] = "; ".join([*parts, f"versions {versions}"])
    return lines
