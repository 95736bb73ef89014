from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from sdviz.analysis import Evidence
from sdviz.analysis.imports import (
    ImportProblem,
    add_import,
    find_import,
    import_files,
    read_features,
    read_import,
)
from sdviz.analysis.points import imported_points
from sdviz.table_files import csv_text

Table = Callable[..., Path]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def table(evidence: Evidence, tmp_path: Path) -> Table:
    """Writes a CSV with a score for each image of some sets, shuffled."""

    def write(name: str, *sets: str, sign: int = 1) -> Path:
        rng = np.random.default_rng(0)
        rows = []
        for one in sets:
            scores = rng.normal(evidence.sets[one].role != "id", 1, len(evidence.sets[one])).round(1)
            rows += [[i, one, sign * x] for i, x in zip(evidence.sets[one].ids, scores.tolist(), strict=True)]
        rng.shuffle(rows)
        (tmp_path / name).write_text(csv_text(["id", "set", "score"], rows), encoding="utf-8")
        return tmp_path / name

    return write


def test_scores_are_measured_as_ours_and_kept_beside_the_runs(
    evidence: Evidence, table: Table, runs: Path
) -> None:
    path = table("their scores.csv", *evidence.sets)
    file = add_import(evidence, path, "theirs")
    assert file.path == runs / ".imports" / evidence.bundle.hash[:16] / "theirs.parquet"
    assert import_files(evidence.bundle.hash) == (file,)
    found = read_import(file)
    assert (found.name, found.source, found.n_features) == ("theirs", "their scores.csv", 0)
    assert found.sets == {name: len(one) for name, one in evidence.sets.items()}
    frame = pd.read_csv(path).set_index("id")["score"]
    assert found.result is not None and found.result.settings == {"imported": "their scores.csv"}
    known = frame[evidence.id_set.ids].to_numpy()
    for name, one in evidence.ood_sets.items():
        ood = frame[one.ids].to_numpy()
        assert np.array_equal(found.scores[name], ood)
        truth = np.repeat([0, 1], [len(known), len(ood)])
        assert found.result.results[name].auroc == pytest.approx(roc_auc_score(truth, np.r_[known, ood]))
        low, high = found.result.results[name].auroc_interval or (1, 0)
        assert low < found.result.results[name].auroc < high
    assert found.result.means.keys() == evidence.report.means.keys()


def test_higher_is_id_turns_the_scores(evidence: Evidence, table: Table) -> None:
    up = read_import(add_import(evidence, table("a.csv", "test", "digits"), "up"))
    down = read_import(add_import(evidence, table("b.csv", "test", "digits", sign=-1), "down", True))
    assert up.result is not None and down.result is not None
    assert up.result.results == down.result.results and list(up.result.results) == ["digits"]
    # a mean over fewer sets than ours is none
    assert "far" in evidence.report.means and up.result.means == {}


def test_features_are_scored_by_eq_6_from_the_id_bank(evidence: Evidence, tmp_path: Path) -> None:
    rng, banks, own = np.random.default_rng(0), evidence.banks, evidence.report.score
    names = {"test": evidence.sets["test"].ids, "digits": evidence.sets["digits"].ids, "train": banks.id_ids}
    features = {name: rng.normal(size=(len(ids), 5)).astype(np.float32) for name, ids in names.items()}
    features["digits"] += 1

    def write(*sets: str) -> Path:
        arrays = {
            "id": np.concatenate([names[one] for one in sets]),
            "set": np.concatenate([np.full(len(names[one]), one) for one in sets]),
            "feature": np.concatenate([features[one] for one in sets]),
        }
        np.savez(tmp_path / "f.npz", **arrays)
        return tmp_path / "f.npz"

    file = add_import(evidence, write("digits", "train", "test"), "net")
    found = read_import(file)
    assert found.n_features == 5 and list(found.sets) == ["test", "digits", "train"]
    assert found.result is not None
    assert found.result.settings == {"imported": "f.npz", "k": own.k, "normalize": own.normalize}
    unit = {name: f / np.linalg.norm(f, axis=1, keepdims=True) for name, f in features.items()}
    distances = NearestNeighbors(n_neighbors=own.k).fit(unit["train"]).kneighbors(unit["digits"])[0]
    assert own.normalize
    np.testing.assert_allclose(found.scores["digits"], (distances**2).sum(1), rtol=1e-4)
    assert pq.read_schema(file.path).field("feature").type.value_type == "float"
    again = read_features(file)
    assert all(np.array_equal(again[name][0], ids) for name, ids in names.items())
    assert all(np.array_equal(again[name][1], f) for name, f in features.items())
    points = imported_points(evidence, "net", again, ["train", "digits"], 30, normalize=False)
    assert points.features.shape == (1, 30, 5) and (points.frames, points.imported) == (("net",), "net")
    row = int(np.flatnonzero(points.sets == "digits")[0])
    assert np.array_equal(points.features[0, row], features["digits"][points.scored_rows[row]])
    # without the ID bank there is a picture and no score
    only = read_import(add_import(evidence, write("test", "digits"), "only"))
    assert only.result is None and only.scores == {}
    # with our outliers their votes count
    names["SD outliers"], features["SD outliers"] = banks.outlier_ids, features["train"] + 1
    both = read_import(add_import(evidence, write(*names), "both"))
    assert both.result is not None and both.result.settings["alpha"] == own.alpha
    more = both.scores["digits"] - found.scores["digits"]
    np.testing.assert_allclose(more / own.alpha, (more / own.alpha).round(), atol=1e-3)
    assert more.max() > 0


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("digits",), "no scores of test, the held-out ID images, which are needed"),
        (("test",), "no scores of an OOD set: shapes-novel, "),
    ],
)
def test_sets_that_are_too_few(evidence: Evidence, table: Table, sets: tuple[str, ...], message: str) -> None:
    path = table("a.csv", *sets)
    with pytest.raises(ImportProblem, match=re.escape(f"{path}: {message}")):
        add_import(evidence, path, "a")


def test_an_empty_score_is_found_in_its_line(evidence: Evidence, table: Table) -> None:
    path = table("a.csv", "test", "digits")
    lines = path.read_text("utf-8").splitlines()
    lines[7] = re.sub(r",[^,]*$", ",", lines[7])
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ImportProblem, match="line 8: the score is missing"):
        add_import(evidence, path, "a")


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".a", "a" * 41, "a\nb", "a ", "=a", "ü"])
def test_names_that_are_none(evidence: Evidence, table: Table, name: str) -> None:
    with pytest.raises(ImportProblem, match="up to 40 letters, digits, blanks"):
        add_import(evidence, table("a.csv", "test", "digits"), name)


def test_names_that_are_taken(evidence: Evidence, table: Table) -> None:
    path = table("a.csv", "test", "digits")
    for name in ("kNN", "dn2", "sd Outliers"):
        with pytest.raises(ImportProblem, match="is that of a method here"):
            add_import(evidence, path, name)
    add_import(evidence, path, "Mine")
    with pytest.raises(ImportProblem, match="Mine is there already: give --replace"):
        add_import(evidence, path, "mine")
    add_import(evidence, path, "mine", higher_is_id=True, replace=True)
    assert [file.name for file in import_files(evidence.bundle.hash)] == ["Mine"]
    assert find_import(evidence.bundle.hash, "MINE").name == "Mine"
    with pytest.raises(ImportProblem, match="no import 'x' for this bundle; there is Mine"):
        find_import(evidence.bundle.hash, "x")


def test_a_damaged_import_is_one_line(evidence: Evidence, table: Table) -> None:
    file = add_import(evidence, table("a.csv", "test", "digits"), "a")
    for raw in (b"no parquet", file.path.read_bytes()[:-9]):
        file.path.write_bytes(raw)
        for read in (read_import, read_features):
            with pytest.raises(ImportProblem, match=r"a\.parquet is damaged: remove it, and import again"):
                read(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about | {"source": 7},
        lambda about: about | {"sets": {"test": "many"}},
        lambda about: about | {"n_features": -1},
        lambda about: about | {"result": {}},
        lambda about: [about],
        lambda about: [[]] * 9,
    ],
)
def test_an_import_that_says_something_else_is_damaged(
    evidence: Evidence, table: Table, change: Callable[[dict[str, Any]], object]
) -> None:
    file = add_import(evidence, table("a.csv", "test", "digits"), "a")
    kept = pq.read_table(file.path)
    about = change(json.loads(kept.schema.metadata[b"sdviz import"]))
    pq.write_table(kept.replace_schema_metadata({b"sdviz import": json.dumps(about)}), file.path)
    with pytest.raises(ImportProblem, match="is damaged"):
        read_import(file)


def test_features_that_are_none_are_damaged(evidence: Evidence, table: Table) -> None:
    file = add_import(evidence, table("a.csv", "test", "digits"), "a")
    kept = pq.read_table(file.path)
    for features in ([[1.0, 2.0]] * (len(kept) - 1) + [[1.0]], [[np.nan, 1.0]] * len(kept), [None] * len(kept)):
        column = pa.array(features, pa.list_(pa.float32()))
        pq.write_table(kept.append_column("feature", column), file.path)
        with pytest.raises(ImportProblem, match="is damaged"):
            read_features(file)
