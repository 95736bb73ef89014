"""Results and scores of the other methods in a bundle."""

from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from ..bundle.parts import numbers
from ..evaluation.report import BaselineResult
from .tables import Evidence, MissingPart, by_set


@dataclass(frozen=True, eq=False)
class Method:
    """Another method."""

    key: str  # its name in files
    title: str  # its name on pages
    result: BaselineResult  # from report.json
    scores: dict[str, np.ndarray]  # by set, float64 (N,), higher is more OOD
    is_imported: bool = False  # it was scored elsewhere, and may lack some sets


def methods_of(evidence: Evidence) -> tuple[Method, ...]:
    """Reads the methods of baselines.parquet, in the report's order. Raises MissingPart: there are none."""
    found = evidence.report.baselines
    why = (
        "no other method was measured beside it; name some under `evaluation.baselines` in the configuration of"
        " a run"
    )
    if not found:
        raise MissingPart(f"this bundle has no baselines.parquet: {why}")
    with evidence.part("baselines.parquet", why) as file:
        parts = by_set(pq.read_table(file))
        scores = {key: {name: numbers(part[key], np.float64) for name, part in parts.items()} for key in found}
        return tuple(Method(key, result.title, result, scores[key]) for key, result in found.items())
