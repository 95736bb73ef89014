"""Manifests and reports of every bundle on this machine, kept, without their networks."""

from pathlib import Path

from sdviz.analysis.records import BundleRecord, read_columns, read_record
from sdviz.bundle import MANIFEST, BundleError
from sdviz.ui.cache.kept import kept
from sdviz.ui.page import find_bundles


@kept("records")
def _record(path: str, name: str, changed_ns: int) -> BundleRecord:
    return read_record(Path(path), name)


def find_record(path: Path, name: str) -> BundleRecord:
    """Manifest and report of a bundle, read again when bundle.json changes; raises as `read_record`."""
    file = path / MANIFEST
    return _record(str(path), name, file.stat().st_mtime_ns if file.exists() else 0)


# the scores of a bundle
find_columns = kept("columns")(read_columns)


def all_records() -> tuple[list[BundleRecord], list[str]]:
    """Every bundle of this machine, and one line for each that cannot be read."""
    found, problems = [], []
    for name, path in find_bundles().items():
        try:
            found.append(find_record(path, name))
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
    """Where the numbers of several bundles come from, a line for each."""
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
