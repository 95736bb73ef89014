"""The threshold that a bundle keeps, and the reference that it makes of held-out ID scores."""

from __future__ import annotations

import json
import math

import numpy as np

from ..evaluation.reference import OODReference, ood_reference
from ..files import write_atomically
from .core import Bundle
from .manifest import MANIFEST, Threshold, parse_json


def make_threshold(value: float | None, id_recall: float | None) -> Threshold | None:
    """Checks a threshold of one's own.

    Args:
        value: A score; higher ones are called OOD.
        id_recall: The share of held-out ID images that pass, in % above 1, else as a share: 95 is .95.

    Returns:
        None if neither is given.

    Raises:
        ValueError: Both are given, or one is out of range.
    """
    if value is not None and id_recall is not None:
        raise ValueError("--threshold and --id-recall both say where the threshold is: give one")
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"--threshold {value:g}: a score is a number from 0 up")
    if id_recall is not None and not 0 < id_recall <= 100:
        raise ValueError(f"--id-recall {id_recall:g}: must be above 0, up to 100 %")
    if value is None and id_recall is None:
        return None
    if id_recall is not None and id_recall <= 1:
        id_recall = 100 * id_recall
    return Threshold(value=value, id_recall=id_recall)


def reference_of(bundle: Bundle, id_scores: np.ndarray, own_score: bool = True) -> OODReference:
    """Held-out ID scores with the threshold that the bundle keeps; it keeps 95 % ID recall if none was chosen.

    Args:
        id_scores: (N,).
        own_score: Whether they are by the bundle's own k, alpha and normalisation. A threshold that was given
            as a number holds for these alone.
    """
    kept = bundle.manifest.threshold
    if kept is None or (kept.value is not None and not own_score):
        return ood_reference(id_scores)
    if kept.id_recall is not None:
        return ood_reference(id_scores, kept.id_recall)
    return ood_reference(id_scores, threshold=kept.value)


def keep_threshold(bundle: Bundle) -> None:
    """Writes the threshold of a bundle's manifest into its bundle.json. OSError if that cannot be written."""
    assert bundle.path is not None
    assert bundle.manifest.threshold is not None
    file = bundle.path / MANIFEST
    tree = parse_json(file, file.read_bytes()) | {"threshold": bundle.manifest.threshold.model_dump()}
    write_atomically(file, json.dumps(tree, indent=1) + "\n")
