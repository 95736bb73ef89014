from __future__ import annotations

import json
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from sdviz.config.tree import TuningConfig
from sdviz.evaluation import (
    BaselineScores,
    Evaluation,
    ReportError,
    baseline_report,
    cluster_report,
    control_report,
    frechet_distances,
    id_accuracy,
    interpolation_report,
    make_report,
    read_report,
)
from sdviz.evaluation.report import Report, Trial

DOC = Path(__file__).resolve().parents[3] / "docs" / "report.md"


@pytest.fixture
def full_report(evaluation: Callable[..., Evaluation]) -> Callable[..., dict[str, Any]]:
    """Makes a report with every part, from real evaluations."""

    def make(**changes: object) -> dict[str, Any]:
        method, plain = evaluation(), evaluation(0.6)
        rng = np.random.default_rng(0)
        x = rng.normal(size=(4, 30, 3))
        classes = rng.integers(0, 3, 30)
        sizes = {one["values"]: one["counts"] for one in method.scores["set"].value_counts().to_pylist()}
        scores = {name: rng.normal(size=n) for name, n in sizes.items()}
        trials = (Trial(settings={"k": 5, "normalize": True}, value=0.7), Trial(settings={"k": 9}, value=None))
        knn = BaselineScores("knn+tuned", "kNN, tuned", {"k": 5}, scores, trials)
        settings: dict[str, Any] = {
            "bootstrap": 20,
            "bootstrap_seed": 0,
            "seeds": {"run": 0, "detector": 3},
            "config_sha256": "0" * 64,
            "id_accuracy": id_accuracy(np.eye(3)[classes], classes, classes),
            "clusters": cluster_report(classes, classes, 3, "scan"),
            "frechet": {"FD (small)": frechet_distances(*x, np.arange(30))},
            "interpolation": {"0": interpolation_report(plain), "1": interpolation_report(method)},
            "overlap": {"on_overlap": "drop", "copies": 2, "sets": {"near-a": {"train": 3, "test": 1}}},
            "images": {
                "pictures": 9,
                "classes": {"a": 9},
                "splits": {"train": 9},
                "passed_over": {".txt": 1},
                "unreadable": ["a.png"],
                "exact_copies": 1,
                "near_copies": 2,
                "overlap": {"near-a": 3},
                "value_range": "0..255",
                "warnings": ["one"],
            },
            "baselines": {"knn+tuned": baseline_report(method, knn, 20, 0)},
            "tuning": TuningConfig().model_dump(mode="json"),
        }
        controls = {"no_training": control_report(method, plain, 20, 0)}
        return make_report(method.report, controls, **(settings | changes))

    return make


def paths(tree: object, names: dict[str, list[str]], path: str = "") -> set[str]:
    """Every key of a tree, with <placeholders> where `names` says that a name stands."""
    found = set()
    if isinstance(tree, dict):
        for key, value in tree.items():
            own = names.get(re.sub(r"<[^>]*>", "*", path))
            here = f"{path}.{own[0] if own else key}".lstrip(".")
            found |= {here} | paths(value, names, here)
    for one in tree if isinstance(tree, list) else ():
        found |= paths(one, names, path)
    return found


def report_keys() -> dict[str, str]:
    """Every key of report.json and what it means; `<set>` stands for the name of any set."""
    return dict(_keys(Report, ""))


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        kind = field.annotation
        extra = field.json_schema_extra
        named: Any = extra.get("by", []) if isinstance(extra, dict) else []
        for part in named:
            path += f".<{part}>"
            kind = typing.get_args(kind)[1]
        yield path, field.description or ""
        inner = [k for k in typing.get_args(kind) if k is not NoneType] or [kind]
        if isinstance(inner[0], type) and issubclass(inner[0], BaseModel):
            yield from _keys(inner[0], path + ".")


def test_documented_and_produced_keys_agree(full_report: Callable[..., dict[str, Any]]) -> None:
    documented = set(report_keys())
    named: dict[str, list[str]] = {}
    for key in documented:
        parts = key.split(".")
        for i, part in enumerate(parts):
            if part.startswith("<"):
                named[re.sub(r"<[^>]*>", "*", ".".join(parts[:i]))] = [part]
    produced = paths(full_report(), named)
    holders = {key for key in produced if any(other.startswith(f"{key}.<") for other in documented)}
    assert produced - holders == documented
    assert all(report_keys().values()), "a key without a word about it"


def test_the_page_lists_the_keys() -> None:
    text = DOC.read_text("utf-8")
    listed = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", text, re.M))
    assert listed.items() <= report_keys().items() and list(listed) == [k for k in report_keys() if k in listed]
    shared = {key.removeprefix("controls.<control>.") for key in set(report_keys()) - set(listed)}
    assert shared <= set(listed) and "results.<set>.modes.<mode>.auroc" in shared


def test_written_and_read_again(full_report: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    tree = full_report()
    path = tmp_path / "report.json"
    path.write_text(json.dumps(tree), "utf-8")
    report = read_report(path)
    assert report.model_dump(mode="json") == tree
    assert report.results["near-a"].modes["both"].auroc == tree["results"]["near-a"]["modes"]["both"]["auroc"]
    assert report.controls["no_training"].differences["near-a"]["both"].auroc > 0
    assert {"sdviz", "python", "torch"} <= set(report.versions)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tree: tree.pop("results"), "results: Field required"),
        (lambda tree: tree.update(extra=1), "extra: Extra inputs"),
        (lambda tree: tree["bank"].update(n_id="many"), "bank.n_id"),
        (lambda tree: tree["thresholds"].update(both=float("nan")), "thresholds.both"),
        (lambda tree: tree.update(format_version=99), "format_version"),
    ],
)
def test_a_report_that_is_not_one_is_named(
    full_report: Callable[..., dict[str, Any]], tmp_path: Path, spoil: Callable[[Any], object], message: str
) -> None:
    tree = full_report()
    spoil(tree)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(tree), "utf-8")
    with pytest.raises(ReportError, match=f"report.json: {message}"):
        read_report(path)


def test_no_report_and_no_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="none.json: no report there"):
        read_report(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"bank": {', "utf-8")
    with pytest.raises(ReportError, match="cut.json: Invalid JSON"):
        read_report(tmp_path / "cut.json")
    with pytest.raises(ReportError, match="the report: bank: Field required"):
        make_report({}, {}, bootstrap=0, bootstrap_seed=0, seeds={}, config_sha256="")


def test_id_accuracy_by_hand() -> None:
    g_in = np.eye(3)[[0, 0, 1, 1, 2, 2]] * 5.0
    clusters = np.array([0, 0, 1, 1, 2, 0])
    classes = np.array([1, 1, 2, 0, -1, 0])  # cluster 0 is class 1, 1 is 2, 2 is 0; one unknown
    found = id_accuracy(g_in, clusters, classes)
    assert found == {"clusters": pytest.approx(5 / 6), "ground_truth": pytest.approx(4 / 5), "n": 6}
    assert id_accuracy(g_in, clusters, np.full(6, -1))["ground_truth"] is None
    with pytest.raises(ValueError, match="do not fit"):
        id_accuracy(g_in, clusters[:-1], classes)


def test_cluster_report_by_hand() -> None:
    perfect = cluster_report(np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1]), 2, "kmeans")
    assert perfect == {"source": "kmeans", "n_clusters": 2, "n": 4, "accuracy": 1.0, "nmi": 1.0, "ari": 1.0}
    unknown = cluster_report(np.array([1, 0]), np.array([-1, -1]), 2, "scan")
    assert (unknown["n"], unknown["accuracy"], unknown["ari"]) == (0, None, None)
    with pytest.raises(ValueError, match="do not fit"):
        cluster_report(np.array([1]), np.array([0, 1]), 2, "scan")
