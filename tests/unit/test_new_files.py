"""A method, a solver or a data source is one file: put into its folder, it is known everywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdviz.baselines import BASELINES
from sdviz.cli.bundles import SOLVERS
from sdviz.data import BUILT_IN, permutation
from sdviz.diffusion.samplers import SAMPLERS

ROOT = Path(__file__).resolve().parents[2]

METHOD = """
from __future__ import annotations

import numpy as np
from pydantic import Field

from ..interface import Baseline, OnProgress, Reference


class Centroid(Baseline):
    key, title, needs = "centroid", "Centroid", ("features",)

    class Settings(Baseline.Settings):
        power: float = Field(2.0, gt=0)

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        self._mean = known.mean(0)

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        return np.linalg.norm(queries - self._mean, axis=1).astype(np.float64) ** self.settings.power
"""
SOLVER = """
from __future__ import annotations

import torch

from ..sampling import Sampler, Step


def update(s: Step) -> torch.Tensor:
    return s.x_0


SAMPLER = Sampler("one_jump", "One jump", update)
"""
SOURCE = '''
from __future__ import annotations

import numpy as np

from sdviz.data.imageset import ImageSet
from sdviz.data.source import Choose, Source, row_ids
from sdviz.data.stack import Reading


class Stripes(Source):
    """Three striped images."""

    built_in = ("stripes",)

    def splits(self, name: str) -> tuple[str, ...]:
        return ("test",)

    def load(self, name: str, split: str, choose: Choose, reading: Reading) -> ImageSet:
        rows, side = choose(3), reading.size_px
        images = np.zeros((len(rows), side, side, 3), np.uint8)
        images[:, ::2] = 10 * rows[:, None, None, None]
        return ImageSet(name, split, images, rows % 2, row_ids(self.id_prefix(name, split), rows), ("a", "b"))

    def count(self, name: str, split: str) -> int:
        return 3


SOURCE = Stripes()
'''
SCRIPT = """
import json
from typer.testing import CliRunner
from sdviz import data
from sdviz.cli import app
from sdviz.baselines import BASELINES, Images, Reference
from sdviz.config.nodes import ConfigError
from sdviz.config.reading import key_paths, load_config, to_yaml
from sdviz.diffusion.samplers import SAMPLERS

method = BASELINES["centroid"](power=1).fit(Reference(Images(features=[[0.0, 0.0], [2.0, 0.0]])))
open("mine.yaml", "w").write("data: {id: shapes}")
config = load_config("mine.yaml", ["evaluation.baselines=[dn2, {method: centroid, power: 3}]"])
open("written.yaml", "w").write(to_yaml(config))
errors = []
wrong_ones = ("centrod", *(f"{{method: centroid, {one}}}" for one in ("power: 0", "k: 3", "pwer: 3")))
for wrong in wrong_ones:
    try:
        load_config("mine.yaml", [f"evaluation.baselines=[{wrong}]"])
    except ConfigError as error:
        errors.append(str(error))
some = data.load("stripes", limit=2, size_px=8)
found = data.look_up(some.ids[::-1], size_px=8)
print(json.dumps({
    "known": list(BASELINES),
    "scores": method.score(Images(features=[[1.0, 3.0]])).tolist(),
    "settings": config.evaluation.baselines[1].build().settings.power,
    "same": load_config("written.yaml").evaluation == config.evaluation,
    "keys": list(key_paths()),
    "solvers": list(SAMPLERS),
    "solver": load_config("mine.yaml", ["defaults.solver=one_jump"]).defaults.solver,
    "help": CliRunner().invoke(app, ["generate", "--help"], env={"COLUMNS": "200"}).output,
    "errors": errors,
    "sets": list(data.names()),
    "splits": data.splits("stripes"),
    "count": data.count("stripes"),
    "loaded": [some.split, some.ids.tolist(), some.images[:, 0, 0, 0].tolist(), some.images.shape],
    "found": [found.found.tolist(), found.class_names.tolist()],
    "same_images": bool((found.images == some.images[::-1]).all()),
    "run": load_config("mine.yaml", ["data.id=stripes"]).data.id,
}))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a package sees that has a method, a solver and a data source more than ours, a file each."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT / "sdviz", folder / "sdviz", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "sdviz" / "baselines" / "distance" / "centroid.py").write_text(METHOD)
    (folder / "sdviz" / "diffusion" / "samplers" / "one_jump.py").write_text(SOLVER)
    (folder / "sdviz" / "data" / "sources" / "stripes.py").write_text(SOURCE)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_new_file_is_a_method_that_scores(seen: dict[str, Any]) -> None:
    assert set(seen["known"]) == {*BASELINES, "centroid"}
    assert seen["scores"] == [3.0]


def test_the_configuration_takes_it_with_its_settings(seen: dict[str, Any]) -> None:
    assert seen["settings"] == 3.0
    assert seen["same"]
    assert "evaluation.baselines.power" in seen["keys"]


def test_its_mistakes_are_explained_as_those_of_all_others(seen: dict[str, Any]) -> None:
    unknown, low, foreign, misspelt = seen["errors"]
    assert unknown.startswith("--set evaluation.baselines.0.method: must be '") and "'centroid'" in unknown
    assert low == "--set evaluation.baselines.0.power: must be greater than 0, got 0"
    assert foreign == "--set evaluation.baselines.0: centroid has no k"
    assert misspelt.endswith(
        "evaluation.baselines.0.pwer: unknown key; the nearest is evaluation.baselines.0.power"
    )


def test_a_new_file_is_a_solver_of_configuration_and_command_line(seen: dict[str, Any]) -> None:
    assert seen["solvers"] == sorted([*SAMPLERS, "one_jump"])
    assert seen["solver"] == "one_jump"
    assert ", ".join(seen["solvers"]) in seen["help"]


def test_a_new_file_is_a_data_source_that_is_listed_loaded_and_looked_up(seen: dict[str, Any]) -> None:
    assert {*BUILT_IN, "stripes"} <= set(seen["sets"])
    assert (seen["splits"], seen["count"], seen["run"]) == (["test"], 3, "stripes")
    rows = permutation(3, 0)[:2].tolist()
    split, ids, levels, shape = seen["loaded"]
    assert (split, ids) == ("test", [f"stripes/test/{row:05d}" for row in rows])
    assert levels == [10 * row for row in rows] and shape == [2, 8, 8, 3]
    there, names = seen["found"]
    assert there == [True, True] and seen["same_images"]
    assert names == ["ab"[row % 2] for row in reversed(rows)]


def test_solvers_are_called_as_their_files() -> None:
    assert list(SAMPLERS) == SOLVERS


def test_methods_stand_in_the_order_of_their_files() -> None:
    files = [one.__module__ for one in BASELINES.values()]
    assert files == sorted(files)


@pytest.mark.parametrize("key", BASELINES)
def test_a_method_has_what_a_run_asks_of_it(key: str) -> None:
    method = BASELINES[key]
    settings = method.Settings.model_fields
    assert ("epochs" in settings) == (method.training_passes > 0)
    assert ("generator_steps" in settings) == ("outliers" in method.needs)
