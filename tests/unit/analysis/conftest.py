from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sdviz.analysis import Evidence
from sdviz.analysis.records import BundleRecord, read_record
from sdviz.bundle import Bundle
from sdviz.bundle.manifest import MANIFEST, sha256
from tests.cut_bundle import save_cut_bundle
from tests.generated import carry_generated


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the shipped bundle with a few rows of each table; nothing writes into it."""
    return save_cut_bundle(tmp_path_factory.mktemp("cut") / "b")


@pytest.fixture(scope="module")
def evidence(whole: Path) -> Evidence:
    return Evidence(Bundle.load(whole, "cpu"))


@pytest.fixture(scope="session")
def generated_folder(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A copy of that bundle, of a set "toys" that no machine has, with generated images; and their table."""
    folder = Path(shutil.copytree(whole, tmp_path_factory.mktemp("generated") / "b"))
    return folder, carry_generated(folder, 20, "toys")


@pytest.fixture
def carrying(generated_folder: tuple[Path, pd.DataFrame]) -> tuple[Evidence, pd.DataFrame]:
    """The evidence of that copy, and the table of its generated images."""
    return Evidence(Bundle.load(generated_folder[0], "cpu")), generated_folder[1]


@pytest.fixture
def altered(whole: Path) -> Callable[..., BundleRecord]:
    """Makes a copy of that bundle's papers with another configuration, other names and figures."""

    def alter(
        to: Path,
        change: dict[str, Any] | None = None,
        dataset: str | None = None,
        auroc: dict[str, float] | None = None,
        rename: dict[str, str] | None = None,
    ) -> BundleRecord:
        to.mkdir()
        for name in (MANIFEST, "report.json", "scores.parquet"):
            shutil.copy(whole / name, to / name)
        report = json.loads((to / "report.json").read_text())
        for old, new in (rename or {}).items():
            report["results"][new] = report["results"].pop(old)
        for name, value in (auroc or {}).items():
            report["results"][name]["modes"]["both"]["auroc"] = value
            report["means"][report["results"][name]["role"]]["both"]["auroc"] = value
        (to / "report.json").write_text(json.dumps(report))
        manifest = json.loads((to / MANIFEST).read_text())
        for key, value in (change or {}).items():
            node = manifest["config"]
            *path, last = key.split(".")
            for part in path:
                node = node[part]
            node[last] = value
        manifest["dataset"] = dataset or manifest["dataset"]
        manifest["files"]["report.json"] = sha256(to / "report.json")
        (to / MANIFEST).write_text(json.dumps(manifest))
        return read_record(to, to.name)

    return alter
