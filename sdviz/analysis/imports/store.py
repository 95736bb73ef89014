"""Keeps others' scores and features: one Parquet file each, in the folder of runs, for one bundle.

The file is `.imports/<the bundle's hash>/<name>.parquet` with columns set, id, and score or feature or both;
scores are higher for more OOD. Its metadata has what was measured. The bundle's own folder never changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from ... import runs
from ...baselines import BASELINES
from ...bundle.parts import numbers, texts
from ...detection.score import SDScore
from ...evaluation.report import BaselineResult
from ...evaluation.sets import mean_over_sets, measure
from ...table_files import write_parquet
from ..tables import OUTLIERS, TRAIN, Evidence, by_set
from .reading import Given, ImportProblem, read_given

FOLDER = ".imports"
OURS = "SD outliers"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,39}")
_METADATA = b"sdviz import"


@dataclass(frozen=True)
class ImportFile:
    """The file of one import, at one time."""

    path: Path
    changed_ns: int

    @property
    def name(self) -> str:
        """The import's name."""
        return self.path.stem


class _About(BaseModel):
    """What the metadata of a file say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    sets: dict[str, int]
    n_features: int = Field(ge=0)
    result: BaselineResult | None


@dataclass(frozen=True, eq=False)
class Imported:
    """Others' scores or features of a bundle's images."""

    name: str
    source: str  # the name of the file that it was read from
    sets: dict[str, int]  # images by set, the banks `TRAIN` and `OUTLIERS` too if there are features of them
    n_features: int  # D, 0 for none
    result: BaselineResult | None  # None without scores
    scores: dict[str, np.ndarray]  # by scored set, float64 (N,) in the bundle's order, higher is more OOD


def import_files(bundle_hash: str) -> tuple[ImportFile, ...]:
    """The imports of a bundle, by name."""
    files = sorted(_folder(bundle_hash).glob("*.parquet"))
    return tuple(ImportFile(path, path.stat().st_mtime_ns) for path in files if not path.name.startswith("."))


def find_import(bundle_hash: str, name: str) -> ImportFile:
    """The import of a name. Raises ImportProblem: there is none."""
    files = import_files(bundle_hash)
    for file in files:
        if file.name.casefold() == name.casefold():
            return file
    there = ", ".join(file.name for file in files) or "none"
    raise ImportProblem(f"no import {name!r} for this bundle; there is {there}")


def _folder(bundle_hash: str) -> Path:
    return runs.runs_root() / FOLDER / bundle_hash[:16]


def add_import(
    evidence: Evidence, path: Path, name: str, higher_is_id: bool = False, replace: bool = False
) -> ImportFile:
    """Reads others' scores or features from a file, measures them as ours, and keeps them.

    Features of the ID bank, the held-out ID images and an OOD set are scored by Eq. 6 with the bundle's k,
    alpha and normalisation; without features of our outliers, by its first term.

    Args:
        path: As for `read_given`.
        name: Of letters, digits, blanks and ._+-, at most 40.
        higher_is_id: Whether its scores are higher for ID images.
        replace: Whether to replace an import of this name.

    Raises:
        ImportProblem: A bad name or file.
        MissingPart: The bundle was never measured.
    """
    # 1. the name
    taken = {one.casefold() for key, method in BASELINES.items() for one in (key, method.title)}
    if not _NAME.fullmatch(name) or name != name.strip(" ."):
        raise ImportProblem(f"name {name!r}: up to 40 letters, digits, blanks and . _ + -, as --name my-method")
    if name.casefold() in taken | {OURS.casefold()}:
        raise ImportProblem(f"name {name!r} is that of a method here: choose another, as --name {name}-2")
    for file in import_files(evidence.bundle.hash):
        if file.name.casefold() == name.casefold():
            if not replace:
                raise ImportProblem(f"{file.name} is there already: give --replace, or another --name")
            name = file.name

    # 2. rows, scores and metrics
    try:
        given = read_given(path)
        rows = given.rows_of(evidence)
        scores = _given_scores(given, rows, evidence, higher_is_id)
    except ImportProblem as error:
        raise ImportProblem(f"{path}: {error}") from error
    settings: dict[str, str | bool | int | float] = {"imported": path.name}
    if given.scores is None and TRAIN in rows and evidence.id_set.name in rows:
        scores = _scores_by_features(given, rows, evidence)
        own = evidence.report.score
        settings |= {"k": own.k, "normalize": own.normalize}
        settings |= {"alpha": own.alpha} if OUTLIERS in rows else {}
    result = _measured(name, settings, scores, evidence) if scores else None

    # 3. the file
    about = _About(
        source=path.name,
        sets={one: len(some) for one, some in rows.items()},
        n_features=0 if given.features is None else given.features.shape[1],
        result=result,
    )
    order = np.concatenate(list(rows.values()))
    columns = {"set": pa.array(given.sets[order].tolist()), "id": pa.array(given.ids[order].tolist())}
    if scores:
        spread = [scores.get(one, np.full(len(some), np.nan)) for one, some in rows.items()]
        columns["score"] = pa.array(np.concatenate(spread), from_pandas=True)
    if given.features is not None:
        columns["feature"] = pa.array(list(given.features[order]), pa.list_(pa.float32()))
    folder = _folder(evidence.bundle.hash)
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(
        pa.table(columns).replace_schema_metadata({_METADATA: about.model_dump_json()}),
        folder / f"{name}.parquet",
    )
    return find_import(evidence.bundle.hash, name)


def _given_scores(
    given: Given, rows: Mapping[str, np.ndarray], evidence: Evidence, higher_is_id: bool
) -> dict[str, np.ndarray]:
    """The scores of each scored set; {} for a file without scores."""
    if given.scores is None:
        if higher_is_id:
            raise ImportProblem("--higher-is-id is about scores, and the file has features alone")
        return {}
    found = {name: given.scores[some] for name, some in rows.items() if name in evidence.sets}
    for name, scores in found.items():
        for row in np.flatnonzero(np.isnan(scores))[:1]:
            raise given.problem(rows[name][row], "the score is missing or NaN")
    id_name = evidence.id_set.name
    if id_name not in found:
        raise ImportProblem(f"no scores of {id_name}, the held-out ID images, which are needed")
    if len(found) < 2:
        raise ImportProblem(f"no scores of an OOD set: {', '.join(evidence.ood_sets)}")
    return {name: -scores if higher_is_id else scores for name, scores in found.items()}


def _scores_by_features(
    given: Given, rows: Mapping[str, np.ndarray], evidence: Evidence
) -> dict[str, np.ndarray]:
    assert given.features is not None
    banks, own = evidence.banks, evidence.report.score
    outliers = given.features[rows[OUTLIERS]] if OUTLIERS in rows else None
    scorer = SDScore(own.k, own.alpha, own.normalize).fit(
        given.features[rows[TRAIN]],
        outliers,
        banks.id_ids,
        banks.outlier_ids if outliers is not None else None,
        banks.outlier_sources if outliers is not None else None,
        evidence.bundle.device,
    )
    names = [name for name in rows if name in evidence.sets]
    found = {name: scorer.score(given.features[rows[name]], given.ids[rows[name]]).total for name in names}
    return found if len(found) > 1 else {}


def _measured(
    name: str,
    settings: dict[str, str | bool | int | float],
    scores: Mapping[str, np.ndarray],
    evidence: Evidence,
) -> BaselineResult:
    drawn, sets = evidence.report.bootstrap, evidence.ood_sets
    id_scores = scores[evidence.id_set.name]
    names = [one for one in evidence.report.results if one in scores]
    results = {one: measure(id_scores, scores[one], drawn.n, drawn.seed) for one in names}
    means = mean_over_sets(results, {one: sets[one].role for one in results})
    # a mean over fewer sets than ours has does not compare with it
    ours = evidence.report.means
    means = {role: mean for role, mean in means.items() if mean.n_sets == ours[role]["both"].n_sets}
    return BaselineResult(title=name, settings=settings, results=results, means=means)


def read_import(file: ImportFile) -> Imported:
    """Reads an import, without its features. Raises ImportProblem: the file is damaged."""
    try:
        schema = pq.read_schema(file.path)
        about = _About.model_validate_json((schema.metadata or {})[_METADATA])
        scores = {}
        if about.result is not None:
            parts = by_set(pq.read_table(file.path, columns=["set", "score"]))
            columns = {one: part["score"] for one, part in parts.items()}
            scores = {
                one: numbers(column, np.float64) for one, column in columns.items() if not column.null_count
            }
        return Imported(file.name, about.source, about.sets, about.n_features, about.result, scores)
    except Exception as error:  # for altered bytes libraries raise anything
        raise _damaged(file) from error


def read_features(file: ImportFile) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The ids, str (N,), and features, float32 (N,D), of each set of an import with features.

    Raises:
        ImportProblem: The file is damaged.
    """
    found = {}
    try:
        for name, part in by_set(pq.read_table(file.path, columns=["set", "id", "feature"])).items():
            rows = part["feature"].to_pylist()
            found[name] = texts(part["id"]), np.array(rows, np.float32).reshape(len(rows), -1)
            if not np.isfinite(found[name][1]).all():
                raise ValueError("a feature is not a finite number")
    except Exception as error:  # as above
        raise _damaged(file) from error
    return found


def _damaged(file: ImportFile) -> ImportProblem:
    return ImportProblem(f"{file.path} is damaged: remove it, and import again")
