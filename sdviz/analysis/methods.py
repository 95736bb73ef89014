"""Results and scores of the other methods in a bundle."""

from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from ..evaluation.report import BaselineResult
from .tables import Evidence, MissingPart


@dataclass(frozen=True, eq=False)
class Method:
    """Another method."""

    key: str  # its name in files
    title: str  # its name on pages
    result: BaselineResult  # from report.json
    scores: dict[str, np.ndarray]  # by set, float64 (N,), higher is more OOD


def methods_of(evidence: Evidence) -> tuple[Method, ...]:
    """Reads the methods of baselines.parquet, in the report's order. Raises MissingPart: there are none."""
    path, found = evidence.bundle.parts.get("baselines.parquet"), evidence.report.baselines
    if path is None or not found:
        raise MissingPart(
            "this bundle has no baselines.parquet: no other method was measured beside it; name some under"
            " `evaluation.baselines` in the configuration of a run"
        )
    table = pq.read_table(path)
    names = np.array(table["set"].to_pylist(), dtype=str)
    rows = {name: np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())}
    methods = []
    for key, result in found.items():
        column = table[key].to_numpy()
        methods.append(Method(key, result.title, result, {name: column[at] for name, at in rows.items()}))
    return tuple(methods)
